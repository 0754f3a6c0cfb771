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


def warn_of_missing_classes(datasets: Sequence[ZeroShotDataset], wanted: Sequence[int], logger: logging.Logger,
                            most: int = 2000) -> None:
    """Look through masks in random order until every wanted class has been seen; warn of those that were not.

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
        names, masks = datasets[0].facts.split.names, datasets[0].masks
        logger.warning('none of %d masks (of %d) contains a pixel of: %s. %s', looked_at, len(places),
                       first([names[index] for index in sorted(missing)]),
                       f'{masks.void} is void in them (ignore_index); do their ids stand for these classes?'
                       if isinstance(masks, MaskIds) else 'Do the colours of the palette stand for these classes?')
