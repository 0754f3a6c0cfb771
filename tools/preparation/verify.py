"""Whether a benchmark is whole: its files, that they decode and fit together, label ids, classes. Changes nothing."""
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

import datasets
from datasets.loading import upright_size
from models.errors import UserError
from tools.engine.progress import Progress
from tools.preparation.convert_masks import IGNORE, decode, label_ids
from tools.preparation.parallel import parallel
from tools.preparation.sources import Benchmark, Split

SHOWN = 5  # files of a kind that are named


class Survey(NamedTuple):
    """What is there of a split, by the images' names without ending; `names` is None without a list of them."""
    names: list[str] | None
    images: set[str]
    masks: set[str]


class Sample(NamedTuple):
    """What a look at an image and its mask found: problems as text, label ids of the mask."""
    problems: list[str]
    labels: set[int]


def survey(split: Split, root: Path, mask_ending: str) -> Survey:
    """A split's lists and folders, by their names alone."""
    images, masks = stems(root / split.images, '.jpg'), stems(root / split.masks, mask_ending)
    if split.names is None:
        return Survey(sorted(images | masks), images, masks)
    file = root / split.names
    return Survey(names_in(file) if file.is_file() else None, images, masks)


def names_in(file: Path) -> list[str]:
    """The lines of a list, blank ones left out."""
    return [line.strip() for line in file.read_text().splitlines() if line.strip()]


def stems(folder: Path, ending: str) -> set[str]:
    """Names of the files in a folder that end so, without the ending."""
    names = os.listdir(folder) if folder.is_dir() else []
    return {name.removesuffix(ending) for name in names if name.endswith(ending)}


def folders_that_lack(benchmark: Benchmark, root: Path) -> set[str]:
    """Folders, as the benchmark names them, in which files lack; files that are there are not opened."""
    lacking = set()
    for split in benchmark.splits:
        found = survey(split, root, benchmark.mask_ending)
        names = set(found.names or ())
        if len(names) < split.count or names - found.masks:
            lacking.add(split.masks)
        if len(found.images) < split.count or names - found.images:
            lacking.add(split.images)
    return lacking


def look_at(image: Path | None, mask: Path | None, classes: range) -> Sample:
    """Opens an image and its mask, one of which may lack.

    Args:
        classes: the label ids that are right, beside 255.
    """
    problems, sizes, labels = [], [], set()
    for path in (image, mask):
        if path is None:
            continue
        try:
            decoded = decode(path)
            sizes.append(upright_size(decoded))
            if path is mask:
                labels = set(np.flatnonzero(np.bincount(label_ids(decoded).ravel())).tolist()) - {IGNORE}
        except (UserError, OSError) as error:
            problems.append(f'{path}: {error}')
    wrong = sorted(labels - set(classes))
    if wrong:
        problems.append(f'{mask}: label ids {wrong[:5]} are out of range: 0 to {classes.stop - 1} and {IGNORE} are '
                        'right')
    if len(set(sizes)) > 1:
        problems.append(f'{mask}: the mask is {sizes[1][1]}x{sizes[1][0]} pixels, its image '
                        f'{sizes[0][1]}x{sizes[0][0]}')
    return Sample(problems, labels.intersection(classes))


def verify(name: str, benchmark: Benchmark, root: Path, workers: int) -> bool:
    """Prints what is there of a benchmark and what lacks or is wrong; True if nothing does."""
    print(f'{name} in {root}:')
    class_names = getattr(datasets, benchmark.dataset).CLASSES
    found = {split: survey(split, root, benchmark.mask_ending) for split in benchmark.splits}
    samples = look_at_all(benchmark, root, found, len(class_names), workers)
    whole = names_are_used_once(found)
    for split, has in found.items():
        names = set(has.names or ())
        where = split.images if split.names is None else split.names
        if has.names is None:
            print(f'  {split.name}: no file {where}; 0 of {split.count:,} images')
        else:
            print(f'  {split.name}: {len(names):,} of {split.count:,} images in {where}; there are '
                  f'{len(names & has.images):,} images and {len(names & has.masks):,} masks')
        lists = [(f'no image in {split.images}', sorted(names - has.images)),
                 (f'no mask in {split.masks}', sorted(names - has.masks)),
                 ('wrong', samples[split].problems)]
        for what, entries in lists:
            show(what, entries)
        whole &= len(names) == split.count and not any(entries for _, entries in lists)
    for part, splits in (('training', [split for split in found if split.name != 'val']),
                         ('val', [split for split in found if split.name == 'val'])):
        labels = {label for split in splits for label in samples[split].labels}
        absent = [class_name for label, class_name in enumerate(class_names, benchmark.first_label)
                  if label not in labels]
        none_of = f'; none of {", ".join(absent)}' if labels and absent else ''
        print(f'  classes in {part}: {len(class_names) - len(absent)} of {len(class_names)}{none_of}')
        whole &= not (absent and part == 'training')  # a small val need not show every class
    return whole


def look_at_all(benchmark: Benchmark, root: Path, found: dict[Split, Survey], classes: int, workers: int
                ) -> dict[Split, Sample]:
    """What is in the files of each split, taken together."""
    tasks = []
    for split, has in found.items():
        for name in sorted({*(has.names or ())} & (has.images | has.masks)):
            tasks.append((split, root / split.images / f'{name}.jpg' if name in has.images else None,
                          root / split.masks / f'{name}{benchmark.mask_ending}' if name in has.masks else None,
                          range(benchmark.first_label + classes)))
    whole = {split: Sample([], set()) for split in found}
    with Progress(0, len(tasks), 'images') as progress:
        for done, (split, sample) in enumerate(parallel(look_at_one, tasks, workers), 1):
            whole[split].problems.extend(sample.problems)
            whole[split].labels.update(sample.labels)
            progress.update(done)
    return {split: Sample(sorted(sample.problems), sample.labels) for split, sample in whole.items()}


def look_at_one(split: Split, *args) -> tuple[Split, Sample]:
    return split, look_at(*args)


def names_are_used_once(found: dict[Split, Survey]) -> bool:
    """Says which images are in a list twice, or in two: what is trained on must not be tested on."""
    times = Counter(name for split, has in found.items() if split.names for name in has.names or ())
    twice = sorted(name for name, count in times.items() if count > 1)
    show('listed more than once', twice)
    return not twice


def show(what: str, entries: list[str]) -> None:
    """The first entries of a list, a line each."""
    for entry in entries[:SHOWN]:
        print(f'    {what}: {entry}')
    if len(entries) > SHOWN:
        print(f'    {what}: {len(entries) - SHOWN:,} more')
