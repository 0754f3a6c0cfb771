"""PASCAL Context with and without background. Papers use three protocols: see configs/context."""
from mmseg.datasets import DATASETS, PascalContextDataset, PascalContextDataset59

from .zero_shot import ZeroShotDataset


@DATASETS.register_module()
class PascalContext60(ZeroShotDataset):
    """59 classes and background; the ten of ZS3 are unseen (Bucher et al. 2019)."""

    CLASSES = PascalContextDataset.CLASSES
    PALETTE = PascalContextDataset.PALETTE
    UNSEEN = ('cow', 'motorbike', 'sofa', 'cat', 'boat', 'fence', 'bird', 'tvmonitor', 'keyboard', 'aeroplane')
    PROMPT_SET = 'coco15'


@DATASETS.register_module()
class PascalContext59(PascalContext60):
    """The same without background (0 in the masks), which is ignored."""

    CLASSES = PascalContextDataset59.CLASSES
    PALETTE = PascalContextDataset59.PALETTE
    REDUCE_ZERO_LABEL = True
