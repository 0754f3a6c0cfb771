# PASCAL VOC 2012, inductive, on a CLIP of open_clip: ViT-B/16 trained on LAION-2B, open_clip_model.safetensors of
# laion/CLIP-ViT-B-16-laion2B-s34B-b88K. Its name shows the kind of GELU, which no tensor does. For another CLIP set
# model.clip_name, model.pretrained and model.pretrained_text, and for patches of 14 also image_size=504.
#   bash dist_train.sh configs/other_clips/voc_open_clip_vit-b-16.py work_dirs/voc_open_clip 2
# No scores are published.
_base_ = ['../_base_/models/clip_rc_any_clip.py', '../_base_/datasets/voc12_20_aug_512x512.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_40k.py']
clip = 'pretrained/open_clip_ViT-B-16_laion2b_s34b_b88k.safetensors'
model = dict(pretrained=clip, pretrained_text=clip, clip_name='ViT-B-16/laion2b_s34b_b88k')
