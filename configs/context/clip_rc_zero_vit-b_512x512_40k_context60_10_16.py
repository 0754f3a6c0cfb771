# PASCAL Context, protocol (a), as ZegCLIP: 60 classes, ZS3's ten unseen. Inductive. CLIP-RC's settings
# were never published: P, R and loss weights are ours (those of VOC), the lengths are those of other methods.
#   bash dist_train.sh configs/context/clip_rc_zero_vit-b_512x512_40k_context60_10_16.py work_dirs/context60_inductive 4
_base_ = ['../_base_/models/clip_rc.py', '../_base_/datasets/context60_512x512.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_40k.py']
published = dict(hIoU=51.9, note='second-hand; its protocol is not named, very probably it is (a)')  # percent
