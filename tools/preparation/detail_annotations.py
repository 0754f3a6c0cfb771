"""PASCAL in Detail's annotations, trainval_merged.json -> masks and splits of PASCAL Context.

The file is laid out like COCO's: `images` with `image_id`, `file_name`, `height`, `width` and `phase` ('train' or
'val'); `annos_segmentation` with `image_id`, `category_id` and `segmentation`, a run-length code of the image's size.
Masks are painted in the order of the file.
"""
import json
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from models.errors import UserError

# Categories of the file that are classes of PASCAL Context. Both are in alphabetical order, so a category's place here
# is its label id in mmseg's masks; 0 is background.
CATEGORIES = (0, 2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144,
              158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355,
              360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458)
LABEL_OF = {category: label for label, category in enumerate(CATEGORIES)}
# The rest of the file, most of it, is dropped as it is read.
KEPT = ('images', 'image_id', 'file_name', 'height', 'width', 'phase',
        'annos_segmentation', 'category_id', 'segmentation', 'size', 'counts')


class Drawing(NamedTuple):
    """An image's name without ending, its height and width in pixels, and its segments (label id, run-length code),
    the later ones on top.
    """
    name: str
    size: tuple[int, int]
    segments: list[tuple[int, str]]


def read(path: Path) -> dict[str, list[Drawing]]:
    """The drawings of 'train' and 'val'.

    Raises:
        UserError: damaged, or laid out in another way.
    """
    try:
        with path.open(encoding='utf-8') as file:
            data = json.load(file, object_hook=lambda entry: {key: entry[key] for key in KEPT if key in entry})
    except ValueError as error:
        raise UserError(f'{path} is damaged ({error}). Delete it and get it again.') from error
    splits, drawings = {'train': [], 'val': []}, {}
    try:
        for image in data['images']:
            drawing = Drawing(PurePath(image['file_name']).stem, (image['height'], image['width']), [])
            drawings[image['image_id']] = drawing
            if image['phase'] in splits:
                splits[image['phase']].append(drawing)
        for segment in data['annos_segmentation']:
            drawing, code = drawings[segment['image_id']], segment['segmentation']
            if tuple(code['size']) != drawing.size or not isinstance(code['counts'], str):
                raise TypeError(f'a segment of {drawing.name} is no run-length code of the image\'s size')
            if segment['category_id'] not in LABEL_OF:
                raise TypeError(f'{drawing.name} has category {segment["category_id"]}, none of PASCAL Context')
            drawing.segments.append((LABEL_OF[segment['category_id']], code['counts']))
    except (KeyError, TypeError) as error:
        what = f'no {error}' if isinstance(error, KeyError) else error
        raise UserError(f'{path} is not laid out as PASCAL in Detail\'s annotations ({what}). trainval_merged.json as '
                        'published is needed.') from error
    return splits


def paint(drawing: Drawing) -> np.ndarray:
    """Label ids (H, W) uint8.

    Raises:
        UserError: a damaged run-length code.
    """
    labels = np.zeros(drawing.size, dtype=np.uint8)
    for label, code in drawing.segments:
        labels[decode_runs(code, drawing.size)] = label
    return labels


def decode_runs(code: str, size: tuple[int, int]) -> np.ndarray:
    """COCO's compressed run-length code -> where the segment is, (H, W) bool.

    Runs of outside and inside take turns, down the columns. From the fourth on each is the difference to the one two
    places before. A number is written in groups of 5 bits, the lowest first, each as the character 48 + group, plus 32
    if another group follows; the highest bit of the last group is the sign.

    Raises:
        UserError: a damaged code.
    """
    groups = np.frombuffer(code.encode('ascii', errors='replace'), dtype=np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(groups < 32)
    if not len(last) or last[-1] != len(groups) - 1 or groups.min() < 0 or groups.max() > 63:
        raise UserError('a segment\'s run-length code is damaged')
    first = np.concatenate([[0], last[:-1] + 1])
    digits = last - first + 1  # of each number
    shifts = 5 * (np.arange(len(groups)) - np.repeat(first, digits))
    numbers = np.add.reduceat((groups & 31) << shifts, first) - ((groups[last] & 16) >> 4 << 5 * digits)
    numbers[1::2] = numbers[1::2].cumsum()
    numbers[2::2] = numbers[2::2].cumsum()
    if numbers.min() < 0 or numbers.sum() != size[0] * size[1]:
        raise UserError('a segment\'s run-length code does not fit the image')
    return np.repeat(np.arange(len(numbers)) % 2 == 1, numbers).reshape(size[::-1]).T
