"""The miniature: images of patterned shapes, drawn by tools/miniature/world.py. 15 seen and 5 unseen classes."""
from mmseg.datasets import DATASETS, PascalVOCDataset

from .zero_shot import ZeroShotDataset

COLOURS = ('red', 'yellow', 'green', 'blue', 'purple')
PATTERNS = ('paint', 'stripes', 'dots', 'checks')


@DATASETS.register_module()
class Miniature(ZeroShotDataset):
    """Each class is a colour and a pattern. Of each colour one pattern, and of each pattern a colour or two, is unseen.

    The layout of folders and mask files is VOC's; background (0 in the files) is ignored, as it is there.
    """

    CLASSES = tuple(f'{colour} {pattern}' for colour in COLOURS for pattern in PATTERNS)
    PALETTE = PascalVOCDataset.PALETTE[1:]
    UNSEEN = ('red stripes', 'yellow dots', 'green paint', 'blue checks', 'purple stripes')
    PROMPT_SET = 'single'

    def __init__(self, **kwargs):
        super().__init__(**{'reduce_zero_label': True, **kwargs})
