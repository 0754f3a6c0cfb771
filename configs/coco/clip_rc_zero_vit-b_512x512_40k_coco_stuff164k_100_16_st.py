# COCO-Stuff 164k, transductive: self-training from iteration 40,000 of the inductive run (the
# published start is not known; this is the middle, as for VOC).
#   bash dist_train.sh configs/coco/clip_rc_zero_vit-b_512x512_40k_coco_stuff164k_100_16_st.py \
#       work_dirs/coco_transductive 8 --load-from work_dirs/coco_inductive/iter_40000.pth
_base_ = ['../_base_/models/clip_rc_coco.py', '../_base_/datasets/cocostuff_512x512.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_40k.py']
model = dict(self_training=True)
published = dict(aAcc=69.9, mIoU_seen=42.0, mIoU_unseen=60.8, hIoU=49.7)  # percent, with 2 images per GPU
