"""Recognise a test that was done before: the same settings and data."""
import hashlib
import json
import os

from mmcv import Config

from datasets import SeveralDatasets, ZeroShotDataset
from datasets.several import parts_of
from tools.engine.config import FILES, as_data


def identity(config: Config, dataset: ZeroShotDataset | SeveralDatasets) -> dict[str, str]:
    """Return SHA-256 of what decides the scores of a checkpoint: a test with the same ones need not be repeated.

    Args:
        config: with the options of the command line, before a model is built with it.

    Returns:
        `settings` (the config, class names, prompts, and the CLIP and embedding files that it names) and `data` (images
        and masks). Files count by path, size and time of the last change.
    """
    facts, named = dataset.facts, [config.model.get(name) for name in FILES]
    settings = [as_data(config), facts.split.names, facts.background, facts.templates,
                [_stamp(path) for path in named if path and os.path.isfile(path)]]
    data = [_stamp(path) for part in parts_of(dataset) for index in range(len(part))
            for path in (part.image_path(index), *([] if part.ann_dir is None else [part.mask_path(index)]))]
    return {'settings': _hash(settings), 'data': _hash(data)}


def _stamp(path: str) -> list[str | int]:
    status = os.stat(path)
    return [os.path.realpath(path), status.st_size, status.st_mtime_ns]


def _hash(value: list) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
