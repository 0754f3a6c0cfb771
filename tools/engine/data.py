"""Loaders of training batches and of test images."""
import os
import signal
from functools import partial

import cv2
import torch
from mmcv import Config
from mmcv.parallel import collate
from mmseg.datasets import ConcatDataset, RepeatDataset, build_dataset
from torch.utils.data import Dataset, DistributedSampler, SequentialSampler

from datasets import PassSampler, SeededSamples, SeveralDatasets, ZeroShotDataset
from datasets.several import parts_of
from models.errors import UserError, building
from tools.engine.process import Place
from tools.engine.workers import Loader


def training_dataset(config: Config) -> Dataset:
    """Build `data.train`.

    Raises:
        UserError: it is of an unknown kind, or a part of it has no masks.
    """
    dataset = _built(config, 'train')
    check_masks(dataset, 'data.train: a model is trained')
    return dataset


def evaluation_dataset(config: Config, part: str, *, scored: bool) -> ZeroShotDataset | SeveralDatasets:
    """Build `data.val` or `data.test`, one dataset or several.

    Args:
        scored: it must have masks.

    Raises:
        UserError: it is of an unknown kind, repeats images, lacks masks, or has parts of other classes.
    """
    dataset = _built(config, part)
    if scored:
        check_masks(dataset, f'data.{part}: scores are made')
    if isinstance(dataset, RepeatDataset):
        raise UserError(f'data.{part} is a RepeatDataset: an image is scored once.')
    if not isinstance(dataset, ConcatDataset):
        return next(parts_of(dataset))
    settings = config.data[part]
    separate = settings.get('separate_eval', dataset.separate_eval) if isinstance(settings, dict) else True
    return SeveralDatasets(list(parts_of(dataset)), separate=separate)


def _built(config: Config, part: str) -> Dataset:
    """The dataset `data.<part>`; mmseg's `ConcatDataset` as its builder takes it, the list of its datasets."""
    if part not in config.data:
        raise UserError(f'the config has no data.{part}; it has {", ".join(config.data)}.')
    settings = config.data[part]
    if isinstance(settings, dict) and settings.get('type') == 'ConcatDataset':
        settings = settings['datasets']
    if isinstance(settings, dict) and settings.get('type') == 'RepeatDataset' and not (
            type(settings.get('times')) is int and settings['times'] > 0):
        raise UserError(f'data.{part}.times={settings.get("times")!r}: a whole number from 1 up is needed.')
    with building(f'data.{part}'):
        return build_dataset(settings, {'test_mode': part != 'train'})


def check_masks(dataset: Dataset, what: str) -> None:
    """Raises a UserError where a part of the dataset has no masks."""
    for part in parts_of(dataset):
        if part.ann_dir is None:
            raise UserError(f'{what} with masks, and none are named for {part.img_dir}: ann_dir=FOLDER.')


def training_loader(config: Config, place: Place, seed: int, start: int) -> Loader:
    """Endless batches, the first `start` images (over all processes) left out."""
    dataset = training_dataset(config)
    batch, workers = config.data.samples_per_gpu, worker_count(config)
    sampler = PassSampler(len(dataset), seed=seed, rank=place.rank, world_size=place.world_size, start=start)
    return Loader(SeededSamples(dataset, seed), batch_size=batch, sampler=sampler, num_workers=workers,
                  collate_fn=partial(collate, samples_per_gpu=batch), pin_memory=place.device.type == 'cuda',
                  worker_init_fn=start_worker, drop_last=True)


def evaluation_loader(config: Config, dataset: Dataset, place: Place) -> Loader:
    """Images one by one, in order; each process takes every world_size-th."""
    workers = worker_count(config)
    mine = SequentialSampler(dataset) if place.world_size == 1 else \
        DistributedSampler(dataset, place.world_size, place.rank, shuffle=False)
    return Loader(dataset, batch_size=1, sampler=mine, num_workers=workers, worker_init_fn=start_worker,
                  collate_fn=partial(collate, samples_per_gpu=1), pin_memory=place.device.type == 'cuda',
                  generator=torch.Generator())  # the training's own draws nothing


def worker_count(config: Config) -> int:
    """The config's number of workers, at most one per processor core of this process."""
    return min(config.data.workers_per_gpu, len(os.sched_getaffinity(0)))


def start_worker(worker: int) -> None:
    """The workers are the parallelism. What asks the training to end must not take them away before its last step."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))


GRACE = 300  # seconds that a loader worker lives on after SIGTERM; it ends sooner where the training ends
