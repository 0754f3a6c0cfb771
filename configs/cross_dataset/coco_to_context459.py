# A COCO-Stuff model on PASCAL Context's 459 original classes, without training. All classes count as seen.
#   python test.py configs/cross_dataset/coco_to_context459.py work_dirs/coco_inductive/latest.pth --eval mIoU
_base_ = ['../_base_/models/clip_rc_coco.py', '../_base_/datasets/context459_512x512.py',
          '../_base_/default_runtime.py']
cross_dataset = True
protocol = 'cross_context459'
