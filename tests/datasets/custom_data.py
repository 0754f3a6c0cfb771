"""Copies of the data of configs/custom/example.py, with masks of colours or of ids, for tests to change."""
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmcv import Config
from mmseg.datasets import build_dataset
from PIL import Image

from datasets import ZeroShotDataset
from tests.conftest import REPOSITORY

EXAMPLE = REPOSITORY / 'tests/data/custom'
NAMES = ['red', 'yellow', 'green', 'blue', 'purple']
PALETTE = [[230, 25, 25], [235, 225, 25], [25, 170, 25], [25, 75, 230], [145, 30, 180]]
LOADING = [dict(type='LoadImage'), dict(type='LoadLabels')]


def colour_masks(root: Path) -> Path:
    return shutil.copytree(EXAMPLE, root)


def id_masks(root: Path, values: Callable[[np.ndarray], np.ndarray] = lambda labels: labels, suffix: str = '.png'
             ) -> Path:
    """Make masks of ids: `values` of the class indices, in which 255 is void."""
    shutil.copytree(EXAMPLE, root)
    for path in root.rglob('masks/*.png'):
        labels = labels_in(path)
        path.unlink()
        Image.fromarray(values(labels)).save(path.with_suffix(suffix))
    return root


def labels_in(path: Path) -> np.ndarray:
    """Read a mask of colours as class indices, colour by colour."""
    with Image.open(path) as image:
        assert image.mode == 'RGB'
        colours = np.asarray(image)
    labels = np.full(colours.shape[:2], 99, np.uint8)
    for index, colour in [*enumerate(PALETTE), (255, [0, 0, 0])]:
        labels[(colours == colour).all(axis=2)] = index
    assert 99 not in labels
    return labels


def settings(root: Path, part: str = 'val', *, colours: bool = False, **changes) -> Config:
    config = Config.fromfile(str(REPOSITORY / 'configs/custom/example.py')).data[part]
    if not colours:
        for name in ('colour_masks', 'palette', 'ignored_colours'):
            config.pop(name)
    config.update(data_root=str(root), **changes)
    return config


def dataset_of(root: Path, part: str = 'val', **changes) -> ZeroShotDataset:
    return build_dataset(settings(root, part, **changes), {'test_mode': part != 'train'})
