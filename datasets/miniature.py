"""The miniature: images of patterned shapes, drawn by tools/miniature/world.py. 15 seen and 5 unseen classes."""
import os

from mmseg.datasets import DATASETS, PascalVOCDataset

from models.errors import UserError

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

    def load_annotations(self, img_dir, *args) -> list[dict]:
        if not os.path.isdir(img_dir):
            raise UserError(f'no folder {img_dir} of images. `bash tools/quickstart.sh` draws this world to '
                            'work_dirs/miniature/world; name another place with --data-root DIR.')
        return super().load_annotations(img_dir, *args)
