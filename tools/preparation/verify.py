"""Check a prepared benchmark: files are there, decode and fit together, label ids and classes are right."""
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

import datasets
from datasets.loading import upright_size
from models.errors import UserError
from tools.preparation.convert_masks import VOID, decode, label_ids
from tools.preparation.files import names_in, stems
from tools.preparation.parallel import parallel
from tools.preparation.sources import Benchmark, Split

SHOWN = 5  # files of a kind that are listed


class Survey(NamedTuple):
    """The files of a split, as image names without ending."""
    names: list[str] | None  # of its list; None: the list is missing
    images: set[str]
    masks: set[str]


def survey(split: Split, root: Path, mask_ending: str) -> Survey:
    """List the files of a split without opening them."""
    images, masks = stems(root / split.images, '.jpg'), stems(root / split.masks, mask_ending)
    if split.names is None:
        return Survey(sorted(images | masks), images, masks)
    file = root / split.names
    return Survey(names_in(file) if file.is_file() else None, images, masks)


def incomplete_folders(benchmark: Benchmark, root: Path) -> set[str]:
    """Return the folders, as `benchmark` names them, in which files are missing; no file is opened."""
    incomplete = set()
    for split in benchmark.splits:
        found = survey(split, root, benchmark.mask_ending)
        names = set(found.names or ())
        if len(names) < split.count or names - found.masks:
            incomplete.add(split.masks)
        if len(found.images) < split.count or names - found.images:
            incomplete.add(split.images)
    return incomplete


def check(pair: tuple[Path, Path], ids: range) -> tuple[list[str], set[int]]:
    """Decode an image and its mask and compare them.

    Args:
        ids: valid label ids, beside void.

    Returns:
        problems as text, and the valid label ids that occur.
    """
    problems, sizes, labels = [], [], set()
    for path in pair:
        try:
            decoded = decode(path)
            sizes.append(upright_size(decoded))
            if path is pair[1]:
                labels = set(np.flatnonzero(np.bincount(label_ids(decoded).ravel())).tolist()) - {VOID}
        except (UserError, OSError) as error:
            problems.append(f'{path}: {error}')
    wrong = sorted(labels - set(ids))
    if wrong:
        problems.append(f'{pair[1]}: label ids {wrong[:5]} are out of range: valid are 0 to {ids.stop - 1} and {VOID}')
    if len(set(sizes)) > 1:
        problems.append(f'{pair[1]}: the mask is {sizes[1][1]}x{sizes[1][0]} pixels, its image '
                        f'{sizes[0][1]}x{sizes[0][0]}')
    return problems, labels.intersection(ids)


def verify(name: str, benchmark: Benchmark, root: Path, workers: int) -> bool:
    """Print a report on a benchmark, and return whether it is complete and right. Nothing is changed."""
    print(f'{name} in {root}:')
    class_names = getattr(datasets, benchmark.dataset).CLASSES
    ids = range(benchmark.first_label + len(class_names))
    good, listed, present = True, Counter(), {'training': set(), 'val': set()}
    for split in benchmark.splits:
        found = survey(split, root, benchmark.mask_ending)
        names = set(found.names or ())
        pairs = [(root / split.images / f'{name}.jpg', root / split.masks / f'{name}{benchmark.mask_ending}')
                 for name in sorted(names & found.images & found.masks)]
        problems = []
        for wrong, labels in parallel(partial(check, ids=ids), pairs, len(pairs), workers, 'images'):
            problems += wrong
            present['val' if split.name == 'val' else 'training'] |= labels
        if found.names is None:
            print(f'  {split.name}: no file {split.names}; 0 of {split.count:,} images')
        else:
            print(f'  {split.name}: {len(names):,} of {split.count:,} images in {split.names or split.images}; there '
                  f'are {len(names & found.images):,} images and {len(names & found.masks):,} masks')
        lists = {f'no image in {split.images}': sorted(names - found.images),
                 f'no mask in {split.masks}': sorted(names - found.masks), 'wrong': problems}
        for kind, entries in lists.items():
            show(kind, entries)
        good &= len(names) == split.count and not any(lists.values())
        listed.update(found.names if split.names and found.names else ())
    repeated = sorted(name for name, count in listed.items() if count > 1)  # within a split, or trained and tested on
    show('listed more than once', repeated)
    for part, labels in present.items():
        absent = [class_name for label, class_name in enumerate(class_names, benchmark.first_label)
                  if label not in labels]
        none_of = f'; none of {", ".join(absent)}' if labels and absent else ''
        print(f'  classes in {part}: {len(class_names) - len(absent)} of {len(class_names)}{none_of}')
        good &= not (absent and part == 'training')  # a small val need not show every class
    return good and not repeated


def show(kind: str, entries: list[str]) -> None:
    """Print the first entries of a list, one per line, and how many more there are."""
    for entry in entries[:SHOWN]:
        print(f'    {kind}: {entry}')
    if len(entries) > SHOWN:
        print(f'    {kind}: {len(entries) - SHOWN:,} more')
