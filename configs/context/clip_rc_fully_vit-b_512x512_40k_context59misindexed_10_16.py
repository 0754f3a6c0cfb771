# PASCAL Context, protocol (c), as Cascade-CLIP: 59 classes, the mis-indexed ten unseen. Fully supervised,
# without recovery as for VOC. The settings are ours, see the inductive config.
#   bash dist_train.sh configs/context/clip_rc_fully_vit-b_512x512_40k_context59misindexed_10_16.py \
#       work_dirs/context59misindexed_fully 4
_base_ = ['../_base_/models/clip_rc.py', '../_base_/datasets/context59misindexed_512x512.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_40k.py']
model = dict(novel_class=[], decode_head=dict(loss_decode=dict(recovery_loss_weight=0.)))
