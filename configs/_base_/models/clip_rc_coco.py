# CLIP-RC for COCO-Stuff: more prompts, other loss weights.
_base_ = './clip_rc.py'
model = dict(
    backbone=dict(num_tokens=100),
    decode_head=dict(loss_decode=dict(mask_weight=200., dice_weight=3., recovery_loss_weight=50.)))
