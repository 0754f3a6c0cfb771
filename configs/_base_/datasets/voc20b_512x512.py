# PASCAL VOC 2012 with background: the model is asked for 59 names, and 39 of them are background. For testing only.
_base_ = './pipelines_512x512.py'
data_root = 'data/VOCdevkit/VOC2012'  # below the repository, may be a link; or use --data-root
data = dict(
    workers_per_gpu=4,
    test=dict(
        type='PascalVOC20b',
        data_root=data_root,
        img_dir='JPEGImages',
        ann_dir='SegmentationClass',
        split='ImageSets/Segmentation/val.txt',
        pipeline={{_base_.test_pipeline}}))
