# ADE20K with 847 classes, for testing only.
_base_ = './pipelines_512x512.py'
data_root = 'data/ade/ADE20K847'  # below the repository, may be a link; or use --data-root
data = dict(
    workers_per_gpu=4,
    test=dict(
        type='ADE20K847',
        data_root=data_root,
        img_dir='images/validation',
        ann_dir='annotations/validation',
        pipeline={{_base_.test_pipeline}}))
