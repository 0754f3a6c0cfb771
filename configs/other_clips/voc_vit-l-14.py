# PASCAL VOC 2012, inductive, on OpenAI's CLIP ViT-L/14, 36x36 patches. No scores are published.
#   python tools/download.py ViT-L-14
#   bash dist_train.sh configs/other_clips/voc_vit-l-14.py work_dirs/voc_vit-l-14 2
_base_ = ['../_base_/models/clip_rc_any_clip.py', '../_base_/datasets/voc12_20_aug_512x512.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_40k.py']
clip = 'pretrained/ViT-L-14.pt'
model = dict(pretrained=clip, pretrained_text=clip)
image_size = 504  # patches of 14 do not divide 512
