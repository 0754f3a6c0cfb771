"""Convert masks as published to label ids (H, W) uint8 as mmsegmentation 0.30 numbers them.

A converter of a damaged file raises an exception of any type, most of them Pillow's or SciPy's.
"""
from io import BytesIO

import numpy as np
from scipy.io import loadmat

from models.image_io import opened
from tools.preparation.context import context_labels

# COCO-Stuff's maps count COCO's 91 things and 91 stuffs from 0. These things have no masks: street sign, hat, shoe, eye
# glasses, plate, mirror, window, desk, door, blender, hair brush. mmseg numbers the others without gaps.
COCO_STUFF_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
COCO_STUFF_IDS = [label for label in range(182) if label not in COCO_STUFF_UNUSED]

_coco_stuff_table = np.full(256, -1)  # label id of a map -> class; -1 for an unused id
_coco_stuff_table[COCO_STUFF_IDS] = range(len(COCO_STUFF_IDS))
_coco_stuff_table[255] = 255  # void, in the maps and in mmseg's masks


def coco_stuff_labels(content: bytes) -> np.ndarray:
    """Convert a pixel map of COCO-Stuff to indices (H, W) of its 171 classes, 255 for no class.

    Raises:
        ValueError: it is not a map of 8-bit ids, or has ids that COCO-Stuff does not use.
    """
    with opened(BytesIO(content), 'it') as image:
        ids, mode = np.asarray(image), image.mode
    if mode not in ('L', 'P'):
        raise ValueError(f'a mask has one 8-bit label per pixel, this one has Pillow\'s mode {mode}')
    labels = _coco_stuff_table[ids]
    if (labels < 0).any():
        raise ValueError(f'COCO-Stuff has no label ids {np.unique(ids[labels < 0])[:5].tolist()}')
    return labels.astype(np.uint8)


def sbd_labels(content: bytes) -> np.ndarray:
    """Convert a MATLAB file of SBD's `cls` to VOC's label ids (H, W), 0 background.

    Raises:
        ValueError: its mask is not one of 8-bit ids.
    """
    labels = loadmat(BytesIO(content), variable_names=['GTcls'])['GTcls'][0]['Segmentation'][0]
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f'its mask has the shape {labels.shape} and the type {labels.dtype}: 8-bit labels (H, W) are '
                         'expected')
    return labels


CONVERTERS = {'coco_stuff': coco_stuff_labels, 'sbd': sbd_labels, 'context': context_labels}  # see sources.py
