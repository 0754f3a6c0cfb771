# COCO-Stuff 164k, 171 classes; 15 are unseen, such as cow, grass, road and tree (datasets/benchmarks.py).
_base_ = './pipelines_512x512.py'
protocol = 'coco'
total_batch_size_source = 'ZegCLIP\'s; of CLIP-RC\'s only 2 images per GPU are known'
data_root = 'data/coco_stuff164k'  # below the repository, may be a link; or use --data-root
folders = dict(type='COCOStuff164k', data_root=data_root)
val = dict(
    img_dir='images/val2017', ann_dir='annotations/val2017', pipeline={{_base_.test_pipeline}}, **folders)
data = dict(
    samples_per_gpu=2,
    workers_per_gpu=4,
    train=dict(
        img_dir='images/train2017', ann_dir='annotations/train2017', pipeline={{_base_.train_pipeline}}, **folders),
    val=val,
    test=val)
