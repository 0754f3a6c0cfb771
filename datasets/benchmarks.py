"""The benchmarks: classes, colours and unseen classes. The splits are those of ZS3 (Bucher et al. 2019)."""
from pathlib import Path

from mmseg import datasets as mmseg

from .zero_shot import ZeroShotDataset

VOCABULARIES = Path(__file__).parent / 'vocabularies'


@mmseg.DATASETS.register_module(name=['PascalVOC20', 'ZeroPascalVOCDataset20'])
class PascalVOC20(ZeroShotDataset):
    """PASCAL VOC 2012 without background (0 in the masks), which is ignored: 15 seen and 5 unseen classes."""

    CLASSES = mmseg.PascalVOCDataset.CLASSES[1:]
    PALETTE = mmseg.PascalVOCDataset.PALETTE[1:]
    UNSEEN = ('pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor')
    REDUCE_ZERO_LABEL = True


@mmseg.DATASETS.register_module(name=['COCOStuff164k', 'ZeroCOCOStuffDataset'])
class COCOStuff164k(ZeroShotDataset):
    """The 171 things and stuffs of COCO-Stuff 164k: 156 seen and 15 unseen classes."""

    CLASSES = mmseg.COCOStuffDataset.CLASSES
    PALETTE = mmseg.COCOStuffDataset.PALETTE
    UNSEEN = ('cow', 'giraffe', 'suitcase', 'frisbee', 'skateboard', 'carrot', 'scissors', 'cardboard', 'clouds',
              'grass', 'playingfield', 'river', 'road', 'tree', 'wall-concrete')
    PROMPT_SET = 'coco15'

    def __init__(self, **kwargs):
        super().__init__(**{'seg_map_suffix': '_labelTrainIds.png', **kwargs})


@mmseg.DATASETS.register_module()
class PascalContext60(ZeroShotDataset):
    """PASCAL Context: background and 59 classes, ten unseen. Papers use three protocols: see configs/README.md."""

    CLASSES = mmseg.PascalContextDataset.CLASSES
    PALETTE = mmseg.PascalContextDataset.PALETTE
    UNSEEN = ('cow', 'motorbike', 'sofa', 'cat', 'boat', 'fence', 'bird', 'tvmonitor', 'keyboard', 'aeroplane')
    PROMPT_SET = 'coco15'


@mmseg.DATASETS.register_module()
class PascalContext59(PascalContext60):
    """The same without background (0 in the masks), which is ignored."""

    CLASSES = mmseg.PascalContextDataset59.CLASSES
    PALETTE = mmseg.PascalContextDataset59.PALETTE
    REDUCE_ZERO_LABEL = True


@mmseg.DATASETS.register_module()
class ADE20K150(ZeroShotDataset):
    """ADE20K's 150 classes (Zhou et al. 2017), to test models of other datasets; other pixels (0) are ignored."""

    CLASSES = tuple(name.strip() for name in mmseg.ADE20KDataset.CLASSES)  # mmseg's 'bed ' has a blank
    PALETTE = mmseg.ADE20KDataset.PALETTE
    PROMPT_SET = 'coco15'
    REDUCE_ZERO_LABEL = True


@mmseg.DATASETS.register_module()
class ADE20K847(ZeroShotDataset):
    """ADE20K's 847 most frequent classes (release 2021_17_01), to test models of other datasets.

    Masks of class indices with 65535 for other pixels, as `tools/prepare_data.py ade20k_full` makes them. Commas
    separate synonyms; 41 of them belong to several classes.

    Attributes:
        OBJECT_IDS: the id of each class in the masks that the owners publish.
    """

    OBJECT_IDS, CLASSES = zip(*(line.split('\t') for line in
                                (VOCABULARIES / 'ade847.tsv').read_text().splitlines()[1:]), strict=True)
    OBJECT_IDS = tuple(map(int, OBJECT_IDS))
    PROMPT_SET = 'coco15'


@mmseg.DATASETS.register_module()
class PascalContext459(ZeroShotDataset):
    """PASCAL Context's 459 classes (Mottaghi et al. 2014), ids 1 to 459 of its original masks, for testing only."""

    CLASSES = tuple((VOCABULARIES / 'context459.txt').read_text().splitlines())
    PROMPT_SET = 'coco15'
    REDUCE_ZERO_LABEL = True


@mmseg.DATASETS.register_module()
class PascalVOC20b(PascalVOC20):
    """PASCAL VOC 2012's 20 classes and background, for testing only.

    The model is asked for PASCAL Context's other classes, too, and theirs are background (OpenSeg, Ghiasi et al. 2022).
    """

    BACKGROUND = tuple(name for name in PascalContext59.CLASSES
                       if name not in (*PascalVOC20.CLASSES, 'table'))  # VOC's diningtable
    BACKGROUND_ID = 0
    CLASSES = (*PascalVOC20.CLASSES, *BACKGROUND)
    PALETTE = [*PascalVOC20.PALETTE, *[mmseg.PascalVOCDataset.PALETTE[0]] * len(BACKGROUND)]
    UNSEEN = ()
    PROMPT_SET = 'coco15'
