"""Loaders of training batches and of test pictures."""
import os
import signal
from functools import partial

import cv2
import torch
from mmcv import Config
from mmcv.parallel import collate
from mmseg.datasets import build_dataset
from torch.utils.data import Dataset, DistributedSampler, SequentialSampler

from datasets import PassSampler, SeededSamples
from models.errors import UserError, building
from tools.launch import Place
from tools.workers import Loader


def build_data(config: Config, part: str) -> Dataset:
    """Builds the dataset `data.train`, `data.val` or `data.test` of a config.

    Raises:
        UserError: there is none, or it cannot be built so.
    """
    if part not in config.data:
        raise UserError(f'the config has no data.{part}; it has {", ".join(config.data)}.')
    with building(f'data.{part}'):
        return build_dataset(config.data[part], {'test_mode': part != 'train'})


def training_loader(config: Config, place: Place, seed: int, start: int) -> Loader:
    """Endless batches, the first `start` pictures (over all processes) left out."""
    dataset = build_data(config, 'train')
    batch, workers = config.data.samples_per_gpu, worker_count(config)
    sampler = PassSampler(len(dataset), seed=seed, rank=place.rank, world_size=place.world_size, start=start)
    return Loader(SeededSamples(dataset, seed), batch_size=batch, sampler=sampler, num_workers=workers,
                  collate_fn=partial(collate, samples_per_gpu=batch), pin_memory=place.device.type == 'cuda',
                  worker_init_fn=start_worker, drop_last=True)


def evaluation_loader(config: Config, dataset: Dataset, place: Place) -> Loader:
    """Pictures one by one, in order; each process takes every world_size-th."""
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
