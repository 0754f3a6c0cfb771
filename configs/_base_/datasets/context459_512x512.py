# PASCAL Context with its 459 original classes, for testing only.
_base_ = './pipelines_512x512.py'
data_root = 'data/VOCdevkit/VOC2010'  # below the repository, may be a link; or use --data-root
data = dict(
    workers_per_gpu=4,
    test=dict(
        type='PascalContext459',
        data_root=data_root,
        img_dir='JPEGImages',
        ann_dir='SegmentationClassContext459',
        split='ImageSets/SegmentationContext/val.txt',
        pipeline={{_base_.test_pipeline}}))
