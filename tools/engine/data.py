"""Loaders of training batches and of test images."""
import os
import signal
from functools import partial

import cv2
import torch
from mmcv import Config
from mmcv.parallel import collate
from mmseg.datasets import ConcatDataset, RepeatDataset, build_dataset
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SequentialSampler

from datasets import PassSampler, SeededSamples, SeveralDatasets, ZeroShotDataset
from datasets.several import parts_of
from models.errors import UserError, building
from tools.engine.config import dataset_configs
from tools.engine.process import Place, end_with_parent

GRACE = 300  # seconds that a loader worker lives on after SIGTERM, at most


def training_dataset(config: Config) -> Dataset:
    """Build `data.train`; an unknown type or missing masks are a UserError."""
    dataset = _build(config, 'train')
    check_masks(dataset, 'data.train: training')
    return dataset


def use_several_scales(config: Config) -> None:
    """Make the test pipelines give six scales of an image and their mirror images, whose scores are averaged."""
    for settings in dataset_configs(config.data.test):
        settings.pipeline[1].update(img_ratios=[0.5, 0.75, 1.0, 1.25, 1.5, 1.75], flip=True)


def evaluation_dataset(config: Config, part: str, *, scored: bool) -> ZeroShotDataset | SeveralDatasets:
    """Build `data.val` or `data.test`, one dataset or several; `scored` ones must have masks.

    Raises:
        UserError: its type is unknown, it repeats images, masks are missing, or its parts have different classes.
    """
    dataset = _build(config, part)
    if scored:
        check_masks(dataset, f'data.{part}: scoring')
    if isinstance(dataset, RepeatDataset):
        raise UserError(f'data.{part} is a RepeatDataset: an image is scored once.')
    if not isinstance(dataset, ConcatDataset):
        return next(parts_of(dataset))
    settings = config.data[part]
    separate = settings.get('separate_eval', dataset.separate_eval) if isinstance(settings, dict) else True
    return SeveralDatasets(list(parts_of(dataset)), separate=separate)


def _build(config: Config, part: str) -> Dataset:
    """Build the dataset `data.<part>`; for mmseg's builder a `ConcatDataset` is the list of its datasets."""
    if part not in config.data:
        raise UserError(f'the config has no data.{part}; it has {", ".join(config.data)}.')
    settings = config.data[part]
    if isinstance(settings, dict) and settings.get('type') == 'ConcatDataset':
        settings = settings['datasets']
    if isinstance(settings, dict) and settings.get('type') == 'RepeatDataset' and not (
            type(settings.get('times')) is int and settings['times'] > 0):
        raise UserError(f'data.{part}.times={settings.get("times")!r}: a positive integer is needed.')
    with building(f'data.{part}'):
        return build_dataset(settings, {'test_mode': part != 'train'})


def few(dataset: ZeroShotDataset | SeveralDatasets, most: int) -> ZeroShotDataset | SeveralDatasets:
    """Keep `most` images of an evaluation dataset, spread evenly over it; of each part at least one."""
    parts = list(parts_of(dataset))
    for part in parts:
        kept = min(len(part), max(1, most // len(parts)))
        part.img_infos = [part.img_infos[number * len(part) // kept] for number in range(kept)]
    return SeveralDatasets(parts, separate=dataset.separate_eval) if isinstance(dataset, SeveralDatasets) else dataset


def check_masks(dataset: Dataset, purpose: str) -> None:
    """Raise a UserError if a part of the dataset has no masks."""
    for part in parts_of(dataset):
        if part.ann_dir is None:
            raise UserError(f'{purpose} needs masks, and the config names none for {part.img_dir}: ann_dir=FOLDER.')


def training_loader(config: Config, place: Place, seed: int, start: int) -> DataLoader:
    """Load batches without end, after the first `start` images (of all processes)."""
    dataset = training_dataset(config)
    sampler = PassSampler(len(dataset), seed=seed, rank=place.rank, world_size=place.world_size, start=start)
    return _loader(SeededSamples(dataset, seed), config, place, config.data.samples_per_gpu, sampler=sampler,
                   drop_last=True)


def evaluation_loader(config: Config, dataset: Dataset, place: Place) -> DataLoader:
    """Load images one by one, in order; each process loads every world_size-th."""
    sampler = SequentialSampler(dataset) if place.world_size == 1 else \
        DistributedSampler(dataset, place.world_size, place.rank, shuffle=False)
    return _loader(dataset, config, place, 1, sampler=sampler,
                   generator=torch.Generator())  # so that it draws nothing from the training's


def _loader(dataset: Dataset, config: Config, place: Place, batch: int, **options) -> DataLoader:
    workers = worker_count(config)
    return DataLoader(dataset, batch_size=batch, num_workers=workers, persistent_workers=workers > 0,
                      collate_fn=partial(collate, samples_per_gpu=batch), pin_memory=place.device.type == 'cuda',
                      worker_init_fn=start_worker, **options)


def worker_count(config: Config) -> int:
    """Return the config's number of workers, at most one per CPU core of this process."""
    return min(config.data.workers_per_gpu, len(os.sched_getaffinity(0)))


def start_worker(worker: int) -> None:
    """Prepare a loader worker: one thread, and no end by signals, as the training still needs batches then."""
    end_with_parent()
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))
