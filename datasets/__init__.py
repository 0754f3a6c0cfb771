"""Images, labels, class names, splits and scores. Importing this package registers them with mmsegmentation."""
from .loading import LoadLabels, LoadPicture
from .miniature import Miniature
from .prompts import PROMPT_SETS
from .sampling import PassSampler, SeededSamples
from .voc12 import PascalVOC20
from .zero_shot import ClassSplit, DatasetFacts, ZeroShotDataset

__all__ = ['ClassSplit', 'DatasetFacts', 'LoadLabels', 'LoadPicture', 'Miniature', 'PROMPT_SETS', 'PascalVOC20',
           'PassSampler', 'SeededSamples', 'ZeroShotDataset']
