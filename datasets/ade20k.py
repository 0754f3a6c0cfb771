"""ADE20K's 150 classes (Zhou et al. 2017), to test models of other datasets on."""
from mmseg.datasets import DATASETS, ADE20KDataset

from .zero_shot import ZeroShotDataset


@DATASETS.register_module()
class ADE20K150(ZeroShotDataset):
    """The 150 classes of mmseg's ADE20K; everything else (0 in the masks) is ignored."""

    CLASSES = tuple(name.strip() for name in ADE20KDataset.CLASSES)  # mmseg's 'bed ' has a blank
    PALETTE = ADE20KDataset.PALETTE
    PROMPT_SET = 'coco15'
    REDUCE_ZERO_LABEL = True
