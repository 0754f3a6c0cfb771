# PASCAL VOC 2012, 20 classes without background, train and SBD's additional masks. Unseen (datasets/benchmarks.py):
# pottedplant, sheep, sofa, train, tvmonitor.
_base_ = './pipelines_512x512.py'
protocol = 'voc12'
total_batch_size_source = 'published'
data_root = 'data/VOCdevkit/VOC2012'  # below the repository, may be a link; or use --data-root
folders = dict(type='PascalVOC20', data_root=data_root, img_dir='JPEGImages')
val = dict(
    ann_dir='SegmentationClass',
    split='ImageSets/Segmentation/val.txt',
    pipeline={{_base_.test_pipeline}},
    **folders)
data = dict(
    samples_per_gpu=8,
    workers_per_gpu=4,
    train=dict(
        ann_dir=['SegmentationClass', 'SegmentationClassAug'],
        split=['ImageSets/Segmentation/train.txt', 'ImageSets/Segmentation/aug.txt'],
        pipeline={{_base_.train_pipeline}},
        **folders),
    val=val,
    test=val)
