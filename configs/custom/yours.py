# Your own images and classes: copy this file, change the marked lines, and look at the samples before training:
#   python tools/browse_dataset.py configs/custom/yours.py --out work_dirs/yours/browse
#   bash dist_train.sh configs/custom/yours.py work_dirs/yours 2
_base_ = ['../_base_/models/clip_rc.py', '../_base_/datasets/pipelines_512x512.py', '../_base_/default_runtime.py',
          '../_base_/schedules/schedule_20k.py']
dataset = dict(
    type='ZeroShotDataset',
    data_root='data/yours',  # <- your folder, with images and masks of the same names
    classes=['cat', 'dog', 'sheep', 'sofa, couch'],  # <- in the order of the mask ids 0, 1, 2, 3; 255 is void
    unseen=['sheep'],  # <- training ignores their masks
    prompt_set='coco15',  # or 'single', 'imagenet80', or a list of texts such as 'an aerial photo of a {}'
    reduce_zero_label=False,  # True: 0 is background, not a class; the classes start at 1
    img_suffix='.jpg', seg_map_suffix='.png')  # <- for masks of colours see example.py
train = dict(img_dir='train/images', ann_dir='train/masks', pipeline={{_base_.train_pipeline}}, **dataset)
val = dict(img_dir='val/images', ann_dir='val/masks', pipeline={{_base_.test_pipeline}}, **dataset)
total_batch_size = 8  # 4 on each of 2 GPUs; the log compares it with the actual run
data = dict(samples_per_gpu=4, workers_per_gpu=4, train=train, val=val, test=val)
