# A COCO-Stuff model on ADE20K's 150 classes, without training. All classes count as seen.
#   python test.py configs/cross_dataset/coco_to_ade20k150.py work_dirs/coco_inductive/latest.pth --eval mIoU
_base_ = ['../_base_/models/clip_rc_coco.py', '../_base_/datasets/ade20k_512x512.py', '../_base_/default_runtime.py']
cross_dataset = True
protocol = 'cross_ade20k150'
data = dict(test=dict(unseen=[]))
