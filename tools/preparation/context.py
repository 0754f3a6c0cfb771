"""PASCAL in Detail's annotations, trainval_merged.json, as an archive of PASCAL Context's masks and lists.

The file is laid out like COCO's: `images` with `image_id`, `file_name`, `height`, `width` and `phase` ('train' or
'val'); `annos_segmentation` with `image_id`, `category_id` and `segmentation`, a run-length code of the image's size.
"""
import json
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np

# Categories of the file that are classes of PASCAL Context. Both are sorted by name, so a category's place here is its
# label id in mmseg's masks; 0 is background.
CATEGORIES = (0, 2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144,
              158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355,
              360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458)
LABEL_OF = {category: label for label, category in enumerate(CATEGORIES)}
# Keys that are kept; most of the file is dropped while reading.
KEPT = ('images', 'image_id', 'file_name', 'height', 'width', 'phase',
        'annos_segmentation', 'category_id', 'segmentation', 'size', 'counts')


def context_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of a file for each image, from which `context_labels` makes its mask, and of two lists.

    The lists, train.txt and val.txt, are sorted.

    A damaged file raises an exception of any type.
    """
    with path.open(encoding='utf-8') as file:
        data = json.load(file, object_hook=lambda entry: {key: entry[key] for key in KEPT if key in entry})
    images = {image['image_id']: image | {'segments': []} for image in data['images']}
    for segment in data['annos_segmentation']:
        image, code = images[segment['image_id']], segment['segmentation']
        if code['size'] != [image['height'], image['width']] or segment['category_id'] not in LABEL_OF:
            raise ValueError(f'a segment of {image["file_name"]} has size {code["size"]} and category '
                             f'{segment["category_id"]}')
        image['segments'].append((LABEL_OF[segment['category_id']], code['counts']))
    lists = {'train': [], 'val': []}
    for image in images.values():
        if image['phase'] in lists:
            name = PurePath(image['file_name'])
            lists[image['phase']].append(f'{name.stem}\n')
            yield name.name, json.dumps([[image['height'], image['width']], image['segments']]).encode()
    for name, lines in lists.items():
        yield f'{name}.txt', ''.join(sorted(lines)).encode()


def context_labels(content: bytes) -> np.ndarray:
    """Draw a mask of `context_files`, its segments, later ones on top, as label ids (H, W) uint8."""
    from pycocotools import mask  # an optional package
    size, segments = json.loads(content)
    labels = np.zeros(size, dtype=np.uint8)
    for label, code in segments:
        labels[mask.decode({'size': size, 'counts': code}) > 0] = label
    return labels
