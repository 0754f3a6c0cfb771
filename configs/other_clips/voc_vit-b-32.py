# PASCAL VOC 2012, inductive, on OpenAI's CLIP ViT-B/32: 16x16 patches instead of 32x32. No scores are published.
#   python tools/download.py ViT-B-32
#   bash dist_train.sh configs/other_clips/voc_vit-b-32.py work_dirs/voc_vit-b-32 2
_base_ = ['../_base_/models/clip_rc_any_clip.py', '../_base_/datasets/voc12_20_aug_512x512.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_40k.py']
clip = 'pretrained/ViT-B-32.pt'
model = dict(pretrained=clip, pretrained_text=clip)
