"""Images, masks, class names, splits and scores. Importing this package registers the datasets with mmsegmentation."""
from . import augmentation  # noqa: F401  registers its steps
from .benchmarks import (
    ADE20K150,
    ADE20K847,
    COCOStuff164k,
    PascalContext59,
    PascalContext60,
    PascalContext459,
    PascalVOC20,
    PascalVOC20b,
)
from .class_split import ClassSplit, DatasetFacts
from .loading import LoadImage, LoadLabels
from .miniature import Miniature
from .sampling import PassSampler, SeededSamples
from .several import SeveralDatasets
from .zero_shot import ZeroShotDataset

# Class lists by the names of protocols, for command lines. The two with 59 classes differ in the unseen classes that
# their configs name. All Context protocols share files: `context` in tools/prepare_data.py.
BY_NAME = {'voc12': PascalVOC20, 'coco': COCOStuff164k, 'context60': PascalContext60, 'context59': PascalContext59,
           'context59misindexed': PascalContext59, 'ade20k': ADE20K150, 'ade847': ADE20K847,
           'context459': PascalContext459, 'voc20b': PascalVOC20b, 'miniature': Miniature}

__all__ = ['ADE20K150', 'ADE20K847', 'BY_NAME', 'COCOStuff164k', 'ClassSplit', 'DatasetFacts', 'LoadLabels',
           'LoadImage', 'Miniature', 'PascalContext459', 'PascalContext59', 'PascalContext60', 'PascalVOC20',
           'PascalVOC20b', 'PassSampler', 'SeededSamples', 'SeveralDatasets', 'ZeroShotDataset']
