# The inductive miniature on another dataset, without training: triangles and hexagons instead of squares, pentagons
# and circles; its classes are the five colours, names that training never used.
#   python tools/miniature/world.py work_dirs/miniature_colours --classes colours --corners 3 6 --train 1 --seed 7
#   python test.py configs/miniature/cross_dataset.py work_dirs/miniature/inductive/latest.pth --eval mIoU
_base_ = ['../_base_/models/clip_rc_mini.py', '../_base_/datasets/miniature.py', '../_base_/default_runtime.py']
cross_dataset = True
colours = ['red', 'yellow', 'green', 'blue', 'purple']
data = dict(
    test=dict(
        type='ZeroShotDataset',
        data_root='work_dirs/miniature_colours',
        classes=colours,
        palette=[[230, 25, 25], [235, 225, 25], [25, 170, 25], [25, 75, 230], [145, 30, 180]],
        reduce_zero_label=True))
