# PASCAL Context, protocol (a): 60 classes, background is one; ZS3's ten are unseen, the dataset's own split.
# Published under it: ZegCLIP, and very probably CLIP-RC.
_base_ = './pipelines_512x512.py'
protocol = 'context60'
total_batch_size_source = 'ours'
data_root = 'data/VOCdevkit/VOC2010'  # under the repository; a symlink does. Or --data-root
folders = dict(type='PascalContext60', data_root=data_root, img_dir='JPEGImages', ann_dir='SegmentationClassContext')
val = dict(split='ImageSets/SegmentationContext/val.txt', pipeline={{_base_.test_pipeline}}, **folders)
data = dict(
    samples_per_gpu=4,
    workers_per_gpu=4,
    train=dict(split='ImageSets/SegmentationContext/train.txt', pipeline={{_base_.train_pipeline}}, **folders),
    val=val,
    test=val)
