# COCO-Stuff 164k, 171 classes. The split is the dataset's own: 15 unseen, such as cow, grass, road, tree.
_base_ = './pipelines_512x512.py'
protocol = 'coco'
total_batch_size_source = 'ZegCLIP\'s; CLIP-RC\'s own, 2 images a GPU, is not known'
data_root = 'data/coco_stuff164k'  # under the repository; a symlink does. Or --data-root
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
