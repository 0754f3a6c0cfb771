# PASCAL VOC 2012, inductive: masks of 15 classes, 5 classes are unseen.
#   bash dist_train.sh configs/voc12/clip_rc_zero_vit-b_512x512_40k_voc_10_16.py work_dirs/voc_inductive 2
_base_ = ['../_base_/models/clip_rc.py', '../_base_/datasets/voc12_20_aug_512x512.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_40k.py']
published = dict(aAcc=95.8, mIoU_seen=92.8, mIoU_unseen=84.4, hIoU=88.4)  # percent, with 2 GPUs x 8 images
