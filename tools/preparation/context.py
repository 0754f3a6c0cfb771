"""Masks and splits of PASCAL Context from PASCAL in Detail's annotations, trainval_merged.json.

The file is laid out like COCO's: `images` with `image_id`, `file_name`, `height`, `width` and `phase` ('train' or
'val'); `annos_segmentation` with `image_id`, `category_id` and `segmentation`, a run-length code of the image's size.
"""
import json
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from models.errors import UserError
from tools.preparation.files import naming_damage, remove_unfinished, stems, write_list, write_mask
from tools.preparation.parallel import parallel
from tools.preparation.sources import CONTEXT_LISTS, CONTEXT_MASKS

# Categories of the file that are classes of PASCAL Context. Both are sorted by name, so a category's place here is its
# label id in mmseg's masks; 0 is background.
CATEGORIES = (0, 2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144,
              158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355,
              360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458)
LABEL_OF = {category: label for label, category in enumerate(CATEGORIES)}
# Keys that are kept; most of the file is dropped while reading.
KEPT = ('images', 'image_id', 'file_name', 'height', 'width', 'phase',
        'annos_segmentation', 'category_id', 'segmentation', 'size', 'counts')


class Annotation(NamedTuple):
    """The segments of an image."""
    name: str  # of the image, without ending
    size: tuple[int, int]  # height and width in pixels
    segments: list[tuple[int, str]]  # label id and run-length code; later ones lie on top


def make_context(path: Path, root: Path, workers: int) -> None:
    """Write the missing masks of PASCAL Context, from the annotations at `path`, then its lists.

    Raises:
        UserError: the annotations are damaged, or pycocotools is missing.
    """
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError:
        raise UserError('PASCAL Context needs pycocotools: pip install -r tools/preparation/requirements.txt') from None
    splits = read(path)
    folder, lists = root / CONTEXT_MASKS, root / CONTEXT_LISTS
    for made in (folder, lists):
        made.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    present = stems(folder, '.png')
    tasks = [annotation for annotations in splits.values() for annotation in annotations
             if annotation.name not in present]
    for _ in parallel(partial(write, folder=folder, source=path), tasks, len(tasks), workers, 'masks'):
        pass
    for name, annotations in splits.items():
        write_list(lists / f'{name}.txt', (annotation.name for annotation in annotations))


def read(path: Path) -> dict[str, list[Annotation]]:
    """Read the annotations of 'train' and 'val'.

    Raises:
        UserError: the file is damaged, or laid out in another way.
    """
    splits, by_id = {'train': [], 'val': []}, {}
    with naming_damage(path):
        with path.open(encoding='utf-8') as file:
            data = json.load(file, object_hook=lambda entry: {key: entry[key] for key in KEPT if key in entry})
        for image in data['images']:
            annotation = Annotation(PurePath(image['file_name']).stem, (image['height'], image['width']), [])
            by_id[image['image_id']] = annotation
            if image['phase'] in splits:
                splits[image['phase']].append(annotation)
        for segment in data['annos_segmentation']:
            annotation, code = by_id[segment['image_id']], segment['segmentation']
            if tuple(code['size']) != annotation.size or segment['category_id'] not in LABEL_OF:
                raise ValueError(f'a segment of {annotation.name} has size {code["size"]} and category '
                                 f'{segment["category_id"]}')
            annotation.segments.append((LABEL_OF[segment['category_id']], code['counts']))
    return splits


def write(annotation: Annotation, *, folder: Path, source: Path) -> None:
    """Write the mask of an image: its segments, later ones on top, as label ids (H, W) uint8.

    Raises:
        UserError: a run-length code is damaged; names the image and `source`.
    """
    from pycocotools import mask
    labels = np.zeros(annotation.size, dtype=np.uint8)
    with naming_damage(source, annotation.name):
        for label, code in annotation.segments:
            labels[mask.decode({'size': list(annotation.size), 'counts': code}) > 0] = label
    write_mask(folder / f'{annotation.name}.png', labels)
