"""Images, masks, class names, splits and scores. Importing this package registers the datasets with mmsegmentation."""
from .ade20k import ADE20K150
from .class_split import ClassSplit, DatasetFacts
from .coco_stuff import COCOStuff164k
from .loading import LoadImage, LoadLabels
from .miniature import Miniature
from .pascal_context import PascalContext59, PascalContext60
from .sampling import PassSampler, SeededSamples
from .several import SeveralDatasets
from .voc12 import PascalVOC20
from .zero_shot import ZeroShotDataset

# Names of the benchmarks on command lines. The two with 59 classes differ in their split only.
BY_NAME = {'voc12': PascalVOC20, 'coco_stuff164k': COCOStuff164k, 'context59': PascalContext59,
           'context59misindexed': PascalContext59, 'context60': PascalContext60, 'ade20k': ADE20K150,
           'miniature': Miniature}

__all__ = ['ADE20K150', 'BY_NAME', 'COCOStuff164k', 'ClassSplit', 'DatasetFacts', 'LoadLabels', 'LoadImage',
           'Miniature', 'PascalContext59', 'PascalContext60', 'PascalVOC20', 'PassSampler', 'SeededSamples',
           'SeveralDatasets', 'ZeroShotDataset']
