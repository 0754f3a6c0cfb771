# COCO-Stuff 164k, fully supervised: masks of all 171 classes; scores of the same seen and unseen classes.
#   bash dist_train.sh configs/coco/clip_rc_fully_vit-b_512x512_80k_coco_stuff164k_100_16.py work_dirs/coco_fully 8
_base_ = ['../_base_/models/clip_rc_coco.py', '../_base_/datasets/cocostuff_512x512.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_80k.py']
model = dict(
    novel_class=[],
    decode_head=dict(loss_decode=dict(mask_weight=100., dice_weight=1.5, recovery_loss_weight=1.)))
published = dict(aAcc=70.8, mIoU_seen=42.9, mIoU_unseen=64.1, hIoU=51.4)  # percent, with 2 images per GPU
