"""Find classes that no mask of a dataset contains: usually a sign of wrong ids or colours in the config."""
import logging
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from models.errors import UserError

from .files import first
from .loading import load_mask
from .masks import MaskIds
from .zero_shot import ZeroShotDataset


def missing_classes(datasets: Sequence[ZeroShotDataset], wanted: Sequence[int], most: int = 2000
                    ) -> tuple[list[int], int]:
    """Look through masks in random order until every wanted class has been seen.

    Args:
        wanted: indices of the classes.
        most: masks to look at.

    Returns:
        the wanted classes that none of the masks contains, and how many masks were looked at.
    """
    places = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    missing, looked_at = set(wanted), 0
    for place in np.random.default_rng(0).permutation(len(places))[:most]:
        if not missing:
            break
        dataset, index = places[place]
        with suppress(UserError):  # a damaged file is reported when its sample is loaded
            missing -= set(np.unique(load_mask(dataset.mask_path(index), dataset.masks)).tolist())
        looked_at += 1
    return sorted(missing), looked_at


def warn_of_missing_classes(datasets: Sequence[ZeroShotDataset], wanted: Sequence[int], logger: logging.Logger
                            ) -> None:
    """Warn of the classes that the masks do not contain, see `missing_classes`."""
    missing, looked_at = missing_classes(datasets, wanted)
    if missing:
        names, masks = datasets[0].facts.split.names, datasets[0].masks
        count = sum(len(dataset) for dataset in datasets)
        of_all = f'none of the {count} masks' if looked_at == count else \
            f'none of {looked_at} random masks, of {count},'
        logger.warning('%s contains a pixel of: %s. %s', of_all, first([names[index] for index in missing]),
                       f'{masks.void} is no class in them (ignore_index); do their ids stand for these classes?'
                       if isinstance(masks, MaskIds) else 'Do the colours of the palette stand for these classes?')
