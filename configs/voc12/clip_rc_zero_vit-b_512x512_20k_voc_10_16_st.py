# PASCAL VOC 2012, transductive: self-training from iteration 20,000 of the inductive run.
#   bash dist_train.sh configs/voc12/clip_rc_zero_vit-b_512x512_20k_voc_10_16_st.py work_dirs/voc_transductive 2 \
#       --load-from work_dirs/voc_inductive/iter_20000.pth
_base_ = ['../_base_/models/clip_rc.py', '../_base_/datasets/voc12_20_aug_512x512.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_20k.py']
model = dict(self_training=True)
published = dict(aAcc=97.0, mIoU_seen=93.9, mIoU_unseen=92.2, hIoU=93.0)  # percent, with 2 GPUs x 8 images
