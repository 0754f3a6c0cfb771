"""Convert masks as published to label ids (H, W) uint8 as mmsegmentation 0.30 numbers them."""
import errno
from io import BytesIO

import numpy as np
from PIL import Image
from scipy.io import loadmat

from models.errors import UserError
from models.image_io import opened
from models.label_format import label_format

# COCO-Stuff's maps count COCO's 91 things and 91 stuffs from 0. These things have no masks: street sign, hat, shoe, eye
# glasses, plate, mirror, window, desk, door, blender, hair brush. mmseg numbers the others without gaps.
COCO_STUFF_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
COCO_STUFF_IDS = [label for label in range(182) if label not in COCO_STUFF_UNUSED]
VOID = label_format(len(COCO_STUFF_IDS)).ignore  # of all four benchmarks, in their masks and in mmseg's

_coco_stuff_table = np.full(256, -1)  # label id of a map -> class; -1 for an unused id
_coco_stuff_table[COCO_STUFF_IDS] = range(len(COCO_STUFF_IDS))
_coco_stuff_table[VOID] = VOID


def decode(file) -> Image.Image:
    """Decode an image from a path or an open file.

    Raises:
        UserError: it is damaged, truncated or too large.
        OSError: it cannot be read.
    """
    try:
        with opened(file, 'it') as image:
            image.load()
            return image
    except UserError:
        raise
    except Exception as error:  # of any kind: Pillow trusts the file
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # of the disk, not of Pillow
            raise
        raise UserError('it does not decode') from error


def label_ids(image: Image.Image) -> np.ndarray:
    """Return the label ids (H, W) uint8 of a decoded mask.

    Raises:
        UserError: it does not have one 8-bit label per pixel.
    """
    if image.mode not in ('L', 'P'):
        raise UserError(f'a mask has one 8-bit label per pixel, this one has Pillow\'s mode {image.mode}')
    return np.asarray(image)


def coco_stuff_labels(content: bytes) -> np.ndarray:
    """Convert a pixel map of COCO-Stuff to indices (H, W) of its 171 classes, 255 for no class.

    Raises:
        UserError: it is damaged, or has label ids that COCO-Stuff does not use.
    """
    ids = label_ids(decode(BytesIO(content)))
    labels = _coco_stuff_table[ids]
    if (labels < 0).any():
        raise UserError(f'COCO-Stuff has no label ids {np.unique(ids[labels < 0])[:5].tolist()}')
    return labels.astype(np.uint8)


def sbd_labels(content: bytes) -> np.ndarray:
    """Convert a MATLAB file of SBD's `cls` to VOC's label ids (H, W), 0 background.

    Raises:
        UserError: it is damaged, or holds no such mask.
    """
    try:
        labels = loadmat(BytesIO(content), variable_names=['GTcls'])['GTcls'][0]['Segmentation'][0]
    except Exception as error:  # of any kind: scipy's parser trusts the file
        raise UserError('not a MATLAB file with a mask of SBD, or damaged') from error
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise UserError(f'its mask has the shape {labels.shape} and the type {labels.dtype}: 8-bit labels (H, W) are '
                        'expected')
    return labels


CONVERTERS = {'coco_stuff': coco_stuff_labels, 'sbd': sbd_labels}  # as sources.py names them
