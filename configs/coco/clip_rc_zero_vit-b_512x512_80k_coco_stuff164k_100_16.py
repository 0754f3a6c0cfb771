# COCO-Stuff 164k, inductive: masks of 156 classes, 15 classes are unseen.
#   bash dist_train.sh configs/coco/clip_rc_zero_vit-b_512x512_80k_coco_stuff164k_100_16.py work_dirs/coco_inductive 8
_base_ = ['../_base_/models/clip_rc_coco.py', '../_base_/datasets/cocostuff_512x512.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_80k.py']
published = dict(aAcc=63.1, mIoU_seen=40.9, mIoU_unseen=41.6, hIoU=41.2)  # percent, with 2 images per GPU
