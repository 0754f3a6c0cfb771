# The miniature's world, drawn by tools/miniature/world.py: 20 classes, 5 unseen, images of 128x128 pixels.
_base_ = './pipelines_64x64.py'
total_batch_size_source = 'ours'
data_root = 'work_dirs/miniature/world'
folders = dict(type='Miniature', data_root=data_root, img_dir='JPEGImages', ann_dir='SegmentationClass')
val = dict(split='ImageSets/Segmentation/val.txt', pipeline={{_base_.test_pipeline}}, **folders)
data = dict(
    samples_per_gpu=4,
    workers_per_gpu=1,
    train=dict(split='ImageSets/Segmentation/train.txt', pipeline={{_base_.train_pipeline}}, **folders),
    val=val,
    test=val)
