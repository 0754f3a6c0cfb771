"""The miniature: images of patterned shapes, drawn by tools/miniature/world.py. 15 seen and 5 unseen classes."""
from mmseg.datasets import DATASETS, PascalVOCDataset

from .zero_shot import ZeroShotDataset

COLOURS = ('red', 'yellow', 'green', 'blue', 'purple')
PATTERNS = ('paint', 'stripes', 'dots', 'checks')


@DATASETS.register_module()
class Miniature(ZeroShotDataset):
    """20 classes, each a colour and a pattern; for each colour one pattern is unseen, for each pattern 1 or 2 colours.

    Folders and masks are laid out as in VOC; background (0 in the masks) is ignored.
    """

    CLASSES = tuple(f'{colour} {pattern}' for colour in COLOURS for pattern in PATTERNS)
    PALETTE = PascalVOCDataset.PALETTE[1:]
    UNSEEN = ('red stripes', 'yellow dots', 'green paint', 'blue checks', 'purple stripes')
    PROMPT_SET = 'single'
    REDUCE_ZERO_LABEL = True
