"""PASCAL VOC 2012 without background, 15 seen and 5 unseen classes (Bucher et al. 2019)."""
from mmseg.datasets import DATASETS, PascalVOCDataset

from .zero_shot import ZeroShotDataset


@DATASETS.register_module(name=['PascalVOC20', 'ZeroPascalVOCDataset20'])
class PascalVOC20(ZeroShotDataset):
    """The 20 classes of mmseg's PASCAL VOC; background (0 in the masks) is ignored."""

    CLASSES = PascalVOCDataset.CLASSES[1:]
    PALETTE = PascalVOCDataset.PALETTE[1:]
    UNSEEN = ('pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor')
    PROMPT_SET = 'single'
    REDUCE_ZERO_LABEL = True
