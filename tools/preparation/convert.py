"""Convert files as published: masks to label ids (H, W), uint8 as mmsegmentation 0.30 numbers them or uint16; images.

A converter of a damaged file raises an exception of any type, most of them Pillow's or SciPy's.
"""
from io import BytesIO

import cv2
import numpy as np
from PIL import Image
from scipy.io import loadmat

from datasets import ADE20K847
from datasets.matlab import read_label_map
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


# The full ADE20K is tested at half size or so: images and masks whose shorter side is longer than 512 are resized to
# that, images bilinearly without antialiasing and masks to the nearest pixel, both by OpenCV, and the longer side is
# rounded, as the preparation of MaskFormer and its followers does. Theirs writes JPEG of quality 75, which costs
# detail, and drops the EXIF orientation.
ADE_SIDE = 512
JPEG_QUALITY = dict(quality=95, subsampling='4:4:4')

_ade_table = np.full(26 * 256, 65535, np.uint16)  # id of an object -> class; red // 10 is at most 25
_ade_table[list(ADE20K847.OBJECT_IDS)] = range(len(ADE20K847.CLASSES))


def ade_full_image(content: bytes) -> bytes:
    """Resize a JPEG of the full ADE20K; one that is small enough stays as it is, byte for byte.

    Pixels stay as they are stored, and EXIF data with the orientation that turns them: so the image fits its mask if it
    did before.
    """
    with opened(BytesIO(content), 'it') as image:
        if min(image.size) <= ADE_SIDE:
            return content
        pixels = _ade_resized(np.asarray(image.convert('RGB')), cv2.INTER_LINEAR)
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, 'JPEG', **JPEG_QUALITY, exif=image.info.get('exif', b''))
    return buffer.getvalue()


def ade_full_labels(content: bytes) -> np.ndarray:
    """Convert a `_seg.png` of the full ADE20K to indices (H, W) uint16 of its 847 classes, 65535 for no class, resized.

    Raises:
        ValueError: it is not an image of 8-bit colours, red // 10 * 256 + green of which is the id of an object.
    """
    with opened(BytesIO(content), 'it') as image:
        if image.mode != 'RGB':
            raise ValueError(f'a mask has 8-bit colours, this one has Pillow\'s mode {image.mode}')
        red, green, _ = np.moveaxis(np.asarray(image), -1, 0)
    return _ade_resized(_ade_table[red // 10 * np.uint16(256) + green], cv2.INTER_NEAREST)


def _ade_resized(array: np.ndarray, interpolation: int) -> np.ndarray:
    height, width = array.shape[:2]
    short = min(height, width)
    if short <= ADE_SIDE:
        return array
    size = round(width / short * ADE_SIDE), round(height / short * ADE_SIDE)
    return cv2.resize(array, size, interpolation=interpolation)


def context459_labels(content: bytes) -> np.ndarray:
    """Return the ids (H, W) uint16 of PASCAL Context's original labels from a MATLAB file.

    Raises:
        ValueError: it has no `LabelMap` of whole ids of 16 bits.
    """
    ids = read_label_map(content, 'it')
    with np.errstate(invalid='ignore'):
        labels = ids.astype(np.uint16)
    if (labels != ids).any():
        raise ValueError(f'its LabelMap has values from {ids.min()} to {ids.max()}, type {ids.dtype}: whole ids of 16 '
                         'bits are expected')
    return labels


CONVERTERS = {'coco_stuff': coco_stuff_labels, 'sbd': sbd_labels, 'context': context_labels,  # see sources.py
              'ade_full': ade_full_labels, 'ade_full_image': ade_full_image, 'context459': context459_labels}
