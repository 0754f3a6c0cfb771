"""COCO-Stuff 164k, 156 seen and 15 unseen classes (Bucher et al. 2019)."""
from mmseg.datasets import DATASETS, COCOStuffDataset

from .zero_shot import ZeroShotDataset


@DATASETS.register_module(name=['COCOStuff164k', 'ZeroCOCOStuffDataset'])
class COCOStuff164k(ZeroShotDataset):
    """The 171 things and stuffs of mmseg's COCO-Stuff."""

    CLASSES = COCOStuffDataset.CLASSES
    PALETTE = COCOStuffDataset.PALETTE
    UNSEEN = ('cow', 'giraffe', 'suitcase', 'frisbee', 'skateboard', 'carrot', 'scissors', 'cardboard', 'clouds',
              'grass', 'playingfield', 'river', 'road', 'tree', 'wall-concrete')
    PROMPT_SET = 'coco15'

    def __init__(self, **kwargs):
        super().__init__(**{'seg_map_suffix': '_labelTrainIds.png', **kwargs})
