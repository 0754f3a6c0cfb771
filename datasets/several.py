"""Test on several datasets of the same classes, and find classes that none of their masks contains."""
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
from mmcv.utils import print_log
from mmseg.datasets import ConcatDataset, RepeatDataset
from torch.utils.data import Dataset

from models.errors import UserError

from .files import first
from .loading import load_mask
from .masks import MaskIds
from .metrics import mean_of
from .zero_shot import ZeroShotDataset


def parts_of(dataset: Dataset) -> Iterator[ZeroShotDataset]:
    """Yield the datasets inside mmseg's wrappers.

    Raises:
        UserError: a wrapper or dataset is unsupported.
    """
    if isinstance(dataset, ZeroShotDataset):
        yield dataset
    elif isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from parts_of(part)
    elif isinstance(dataset, RepeatDataset):
        yield from parts_of(dataset.dataset)
    else:
        raise UserError(f'{type(dataset).__name__} is not supported here: use datasets of this project, a list of '
                        'them, ConcatDataset or RepeatDataset.')


class SeveralDatasets(ConcatDataset):
    """Datasets in a row, each scored on its own.

    Args:
        separate: False scores them as one dataset.

    Attributes:
        names: short names made of the folders and files in which the datasets differ.
        facts: class names, split, prompts and background, the same for all.

    Raises:
        UserError: classes, split, prompts or background differ.
    """

    def __init__(self, datasets: Sequence[ZeroShotDataset], *, separate: bool = True):
        super().__init__(datasets, separate)
        self.facts = datasets[0].facts
        if any(dataset.facts != self.facts for dataset in datasets):
            raise UserError('classes, split, prompt set or background of the listed datasets differ: test each with a '
                            'config of its own.')
        self.names = names_of(datasets)
        self.data_root = [dataset.data_root for dataset in datasets]

    def locate(self, index: int) -> tuple[str, ZeroShotDataset, int]:
        """Return the name of an image's dataset, the dataset, and the image's index in it."""
        number, index = self.get_dataset_idx_and_sample_idx(index)
        return self.names[number], self.datasets[number], index

    def format_results(self, results, imgfile_prefix, indices=None, **kwargs) -> list[str]:
        """Write label maps as `ZeroShotDataset.format_results` does, into a folder for each dataset."""
        places = [self.locate(index) for index in (range(len(self)) if indices is None else indices)]
        return [file for labels, (name, dataset, index) in zip(results, places, strict=True)
                for file in dataset.format_results([labels], os.path.join(imgfile_prefix, name), indices=[index])]

    def evaluate(self, results, metric='mIoU', logger=None, groups: Mapping[str, Sequence[int]] | None = None, **kwargs
                 ) -> dict[str, float]:
        """Compute the means over the datasets under the usual keys, and the scores of each as NAME.KEY.

        With `separate=False` these are the scores of one dataset.
        """
        if not self.separate_eval:
            return self.datasets[0].evaluate(results, metric, logger, groups)
        each, start = {}, 0
        for name, dataset in zip(self.names, self.datasets, strict=True):
            print_log(f'{name}: {len(dataset)} images', logger=logger)
            each[name] = dataset.evaluate(results[start:start + len(dataset)], metric, logger, groups)
            start += len(dataset)
        summaries = [{key: value for key, value in scores.items() if '.' not in key} for scores in each.values()]
        means = {key: round(mean_of(np.array([scores[key] for scores in summaries]), range(len(summaries))), 4)
                 for key in summaries[0]}
        print_log('means over the datasets: ' + ', '.join(f'{key} {value:.4f}' for key, value in means.items()),
                  logger=logger)
        return {**means, **{f'{name}.{key}': value for name, scores in each.items() for key, value in scores.items()}}


def names_of(datasets: Sequence[ZeroShotDataset]) -> list[str]:
    """Name datasets by the part of their split files, image or mask folders that differs, without dots, else number."""
    for attribute in ('split', 'img_dir', 'ann_dir'):
        paths = [getattr(dataset, attribute) for dataset in datasets]
        if all(paths) and len({*paths}) == len(paths):
            common = os.path.commonpath(paths)
            names = [os.path.splitext(os.path.relpath(path, common))[0] for path in paths]
            return [re.sub(r'[./ ]', '_', name) for name in names]
    return [str(number) for number in range(len(datasets))]


def warn_of_missing_classes(datasets: Sequence[ZeroShotDataset], wanted: Sequence[int], logger: logging.Logger,
                            most: int = 2000) -> None:
    """Look through masks in random order until every wanted class has been seen; warn of those that were not.

    Missing classes are usually a sign of wrong ids or colours in the config.

    Args:
        wanted: indices of the classes.
        most: masks to look at.
    """
    places = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    missing, looked_at = set(wanted), 0
    for place in np.random.default_rng(0).permutation(len(places))[:most]:
        if not missing:
            return
        dataset, index = places[place]
        with suppress(UserError):  # a damaged file is reported when its sample is loaded
            missing -= set(np.unique(load_mask(dataset.mask_path(index), dataset.masks)).tolist())
        looked_at += 1
    if missing:
        names, masks = datasets[0].CLASSES, datasets[0].masks
        logger.warning('none of %d masks (of %d) contains a pixel of: %s. %s', looked_at, len(places),
                       first([names[index] for index in sorted(missing)]),
                       f'{masks.void} is void in them (ignore_index); do their ids stand for these classes?'
                       if isinstance(masks, MaskIds) else 'Do the colours of the palette stand for these classes?')
