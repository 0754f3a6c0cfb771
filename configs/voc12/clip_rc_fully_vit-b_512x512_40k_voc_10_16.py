# PASCAL VOC 2012, fully supervised: masks of all 20 classes; scores of the same seen and unseen classes.
#   bash dist_train.sh configs/voc12/clip_rc_fully_vit-b_512x512_40k_voc_10_16.py work_dirs/voc_fully 2
_base_ = ['../_base_/models/clip_rc.py', '../_base_/datasets/voc12_20_aug_512x512.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_40k.py']
model = dict(novel_class=[], decode_head=dict(loss_decode=dict(recovery_loss_weight=0.)))
published = dict(aAcc=97.1, mIoU_seen=94.1, mIoU_unseen=93.4, hIoU=93.7)  # percent, with 2 GPUs x 8 images
