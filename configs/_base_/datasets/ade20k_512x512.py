# ADE20K, 150 classes, for testing only.
_base_ = './pipelines_512x512.py'
data_root = 'data/ade/ADEChallengeData2016'  # below the repository, may be a link; or use --data-root
data = dict(
    workers_per_gpu=4,
    test=dict(
        type='ADE20K150',
        data_root=data_root,
        img_dir='images/validation',
        ann_dir='annotations/validation',
        pipeline={{_base_.test_pipeline}}))
