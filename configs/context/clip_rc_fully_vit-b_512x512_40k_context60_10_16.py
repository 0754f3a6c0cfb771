# PASCAL Context, protocol (a), as ZegCLIP: 60 classes, ZS3's ten unseen. Fully supervised, without recovery as
# for VOC. The settings are ours, see the inductive config.
#   bash dist_train.sh configs/context/clip_rc_fully_vit-b_512x512_40k_context60_10_16.py work_dirs/context60_fully 4
_base_ = ['../_base_/models/clip_rc.py', '../_base_/datasets/context60_512x512.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_40k.py']
model = dict(novel_class=[], decode_head=dict(loss_decode=dict(recovery_loss_weight=0.)))
