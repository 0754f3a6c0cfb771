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


class Sample(NamedTuple):
    """An image and its mask to be checked; a missing file is None."""
    split: Split
    image: Path | None
    mask: Path | None


class Findings(NamedTuple):
    """Problems as text, and the label ids that occur."""
    problems: list[str]
    labels: set[int]


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


def check(sample: Sample, ids: range) -> tuple[Split, Findings]:
    """Decode an image and its mask and compare them.

    Args:
        ids: valid label ids, beside void.
    """
    problems, sizes, labels = [], [], set()
    for path in (sample.image, sample.mask):
        if path is None:
            continue
        try:
            decoded = decode(path)
            sizes.append(upright_size(decoded))
            if path is sample.mask:
                labels = set(np.flatnonzero(np.bincount(label_ids(decoded).ravel())).tolist()) - {VOID}
        except (UserError, OSError) as error:
            problems.append(f'{path}: {error}')
    wrong = sorted(labels - set(ids))
    if wrong:
        problems.append(f'{sample.mask}: label ids {wrong[:5]} are out of range: valid are 0 to {ids.stop - 1} and '
                        f'{VOID}')
    if len(set(sizes)) > 1:
        problems.append(f'{sample.mask}: the mask is {sizes[1][1]}x{sizes[1][0]} pixels, its image '
                        f'{sizes[0][1]}x{sizes[0][0]}')
    return sample.split, Findings(problems, labels.intersection(ids))


def verify(name: str, benchmark: Benchmark, root: Path, workers: int) -> bool:
    """Print a report on a benchmark, and return whether it is complete and right. Nothing is changed."""
    print(f'{name} in {root}:')
    class_names = getattr(datasets, benchmark.dataset).CLASSES
    found = {split: survey(split, root, benchmark.mask_ending) for split in benchmark.splits}
    findings = check_all(benchmark, root, found, len(class_names), workers)
    good = names_are_used_once(found)
    for split, files in found.items():
        names = set(files.names or ())
        source = split.images if split.names is None else split.names
        if files.names is None:
            print(f'  {split.name}: no file {source}; 0 of {split.count:,} images')
        else:
            print(f'  {split.name}: {len(names):,} of {split.count:,} images in {source}; there are '
                  f'{len(names & files.images):,} images and {len(names & files.masks):,} masks')
        lists = [(f'no image in {split.images}', sorted(names - files.images)),
                 (f'no mask in {split.masks}', sorted(names - files.masks)),
                 ('wrong', findings[split].problems)]
        for kind, entries in lists:
            show(kind, entries)
        good &= len(names) == split.count and not any(entries for _, entries in lists)
    for part in ('training', 'val'):
        labels = {label for split in found if (split.name == 'val') == (part == 'val')
                  for label in findings[split].labels}
        absent = [class_name for label, class_name in enumerate(class_names, benchmark.first_label)
                  if label not in labels]
        none_of = f'; none of {", ".join(absent)}' if labels and absent else ''
        print(f'  classes in {part}: {len(class_names) - len(absent)} of {len(class_names)}{none_of}')
        good &= not (absent and part == 'training')  # a small val need not show every class
    return good


def check_all(benchmark: Benchmark, root: Path, found: dict[Split, Survey], classes: int, workers: int
              ) -> dict[Split, Findings]:
    """Check all files of each split."""
    samples = [Sample(split, root / split.images / f'{name}.jpg' if name in files.images else None,
                      root / split.masks / f'{name}{benchmark.mask_ending}' if name in files.masks else None)
               for split, files in found.items()
               for name in sorted({*(files.names or ())} & (files.images | files.masks))]
    together = {split: Findings([], set()) for split in found}
    for split, one in parallel(partial(check, ids=range(benchmark.first_label + classes)), samples, workers, 'images'):
        together[split].problems.extend(one.problems)
        together[split].labels.update(one.labels)
    return together


def names_are_used_once(found: dict[Split, Survey]) -> bool:
    """Print images that are listed twice or in two splits: training images must not be tested on."""
    counts = Counter(name for split, files in found.items() if split.names for name in files.names or ())
    repeated = sorted(name for name, count in counts.items() if count > 1)
    show('listed more than once', repeated)
    return not repeated


def show(kind: str, entries: list[str]) -> None:
    """Print the first entries of a list, one per line, and how many more there are."""
    for entry in entries[:SHOWN]:
        print(f'    {kind}: {entry}')
    if len(entries) > SHOWN:
        print(f'    {kind}: {len(entries) - SHOWN:,} more')
