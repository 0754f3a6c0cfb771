# PASCAL Context, protocol (b), as OTSeg: 59 classes, ZS3's ten unseen. Transductive. The settings are ours, see
# the inductive config. It starts from iteration 20,000 of the inductive run.
#   bash dist_train.sh configs/context/clip_rc_zero_vit-b_512x512_20k_context59_10_16_st.py \
#       work_dirs/context59_transductive 4 --load-from work_dirs/context59_inductive/iter_20000.pth
_base_ = ['../_base_/models/clip_rc.py', '../_base_/datasets/context59_512x512.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_20k.py']
model = dict(self_training=True)
