# Your own images and classes need a config and no code. This one runs as it is, with drawn shapes and a mini CLIP, both
# part of the repository. For photographs copy yours.py, which is the same with CLIP ViT-B/16.
#   bash dist_train.sh configs/custom/example.py work_dirs/example 1
_base_ = ['../_base_/models/clip_rc_mini.py', '../_base_/datasets/pipelines_64x64.py', '../_base_/default_runtime.py',
          '../_base_/schedules/miniature.py']
dataset = dict(
    type='ZeroShotDataset',
    data_root='tests/data/custom',
    classes=['red', 'yellow', 'green', 'blue', 'purple'],
    unseen=['green'],  # training ignores its masks
    colour_masks=True,  # the masks have these colours, one per class
    palette=[[230, 25, 25], [235, 225, 25], [25, 170, 25], [25, 75, 230], [145, 30, 180]],
    ignored_colours=[[0, 0, 0]])  # void
train = dict(img_dir='train/images', ann_dir='train/masks', pipeline={{_base_.train_pipeline}}, **dataset)
val = dict(img_dir='val/images', ann_dir='val/masks', pipeline={{_base_.test_pipeline}}, **dataset)
data = dict(samples_per_gpu=4, workers_per_gpu=1, train=train, val=val, test=val)
total_batch_size_source = 'ours'
log_config = dict(interval=20)
