"""Check a prepared benchmark: files are there, can be loaded and fit together, label ids and classes are right."""
from collections import Counter
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

import datasets
from datasets.loading import LoadImage, check_size, load_mask
from datasets.masks import MaskIds
from models.errors import UserError
from tools.preparation.parallel import parallel
from tools.preparation.sources import Benchmark, Split

SHOWN = 5  # files of a kind that are listed
MOST_NAMES = 20  # of absent classes that are listed


def stems(folder: Path, ending: str) -> set[str]:
    """List the files in a folder that have this ending, without it; hidden files are left out."""
    return {path.name.removesuffix(ending) for path in folder.glob(f'[!.]*{ending}')}


def survey(split: Split, root: Path, mask_ending: str) -> tuple[list[str], set[str], set[str]]:
    """Return the names in the list of a split, its images and its masks, all without endings; no file is opened.

    Without a list all images and masks are listed; a list that is missing is empty.
    """
    images, masks = stems(root / split.images, '.jpg'), stems(root / split.masks, mask_ending)
    if split.names is None:
        return sorted(images | masks), images, masks
    file = root / split.names
    return file.read_text().split() if file.is_file() else [], images, masks


def incomplete_folders(benchmark: Benchmark, root: Path) -> set[str]:
    """Return the folders, as `benchmark` names them, in which files are missing."""
    incomplete = set()
    for split in benchmark.splits:
        names, images, masks = survey(split, root, benchmark.mask_ending)
        if len(masks) < split.count or {*names} - masks:
            incomplete.add(split.masks)
        if len(images) < split.count or {*names} - images:
            incomplete.add(split.images)
        if split.names and len({*names}) < split.count:  # SBD's archive, which has the masks, makes VOC's aug.txt
            incomplete.add(split.masks if split.name == 'aug' else str(PurePosixPath(split.names).parent))
    return incomplete


def check(pair: tuple[Path, Path], meaning: MaskIds) -> tuple[str | None, set[int]]:
    """Load an image and its mask as training does; return the error, if any, and the indices of the classes."""
    image, mask = pair
    try:
        size = LoadImage()({'img_prefix': image.parent, 'img_info': {'filename': image.name}})['img_shape'][:2]
        labels = load_mask(str(mask), meaning)
        check_size(str(mask), labels, size)
    except UserError as error:
        return str(error), set()
    return None, set(np.unique(labels).tolist()) - {meaning.ignore}


def verify(name: str, benchmark: Benchmark, root: Path, workers: int) -> bool:
    """Print a report on a benchmark, and return whether it is complete and right. Nothing is changed."""
    print(f'{name} in {root}:')
    dataset = getattr(datasets, benchmark.dataset)
    meaning, class_names = dataset.usual_masks(), dataset.describe().scored.names
    good, listed, present = True, Counter(), {}  # present: labels in the masks of 'training' and of 'val'
    for split in benchmark.splits:
        lines, images, masks = survey(split, root, benchmark.mask_ending)
        names = {*lines}
        pairs = [(root / split.images / f'{name}.jpg', root / split.masks / f'{name}{benchmark.mask_ending}')
                 for name in sorted(names & images & masks)]
        problems, labels_of_part = [], present.setdefault('val' if split.name == 'val' else 'training', set())
        for problem, labels in parallel(partial(check, meaning=meaning), pairs, len(pairs), workers, 'images'):
            problems += [problem] if problem else []
            labels_of_part |= labels
        if split.names and not (root / split.names).is_file():
            print(f'  {split.name}: no file {split.names}; 0 of {split.count:,} images')
        else:
            print(f'  {split.name}: {len(names):,} of {split.count:,} images in {split.names or split.images}; there '
                  f'are {len(names & images):,} images and {len(names & masks):,} masks')
        lists = {f'no image in {split.images}': sorted(names - images),
                 f'no mask in {split.masks}': sorted(names - masks), 'wrong': problems}
        for kind, entries in lists.items():
            show(kind, entries)
        good &= len(names) == split.count and not any(lists.values())
        listed.update(lines if split.names else ())
    repeated = sorted(name for name, count in listed.items() if count > 1)  # within a split, or trained and tested on
    show('listed more than once', repeated)
    for part, labels in present.items():
        absent = [class_name.split(',')[0] for index, class_name in enumerate(class_names) if index not in labels]
        more = f' and {len(absent) - MOST_NAMES} more' if len(absent) > MOST_NAMES else ''
        none_of = f'; none of {", ".join(absent[:MOST_NAMES])}{more}' if labels and absent else ''
        print(f'  classes in {part}: {len(class_names) - len(absent)} of {len(class_names)}{none_of}')
        good &= not (absent and part == 'training')  # a small val need not show every class
    return good and not repeated


def show(kind: str, entries: list[str]) -> None:
    """Print the first entries of a list, one per line, and how many more there are."""
    for entry in entries[:SHOWN]:
        print(f'    {kind}: {entry}')
    if len(entries) > SHOWN:
        print(f'    {kind}: {len(entries) - SHOWN:,} more')
