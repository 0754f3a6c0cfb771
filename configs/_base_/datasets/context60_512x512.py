# PASCAL Context, protocol (a): 60 classes with background; the ten of ZS3 are unseen (datasets/benchmarks.py).
# Used by ZegCLIP, and very probably by CLIP-RC.
_base_ = './pipelines_512x512.py'
protocol = 'context60'
total_batch_size_source = 'ours'
data_root = 'data/VOCdevkit/VOC2010'  # below the repository, may be a link; or use --data-root
folders = dict(type='PascalContext60', data_root=data_root, img_dir='JPEGImages', ann_dir='SegmentationClassContext')
val = dict(split='ImageSets/SegmentationContext/val.txt', pipeline={{_base_.test_pipeline}}, **folders)
data = dict(
    samples_per_gpu=4,
    workers_per_gpu=4,
    train=dict(split='ImageSets/SegmentationContext/train.txt', pipeline={{_base_.train_pipeline}}, **folders),
    val=val,
    test=val)
