"""The order of samples and their random augmentation, both determined by the seed alone.

The same seed gives the same images with any number of loader workers, and the same sequence of images with any
number of processes.
"""
import random
import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

Key = tuple[int, int]  # (pass over the data, index of the sample)


class PassSampler(Sampler):
    """An endless sequence of passes, each in an order that depends on (seed, pass), shared among the processes.

    Args:
        size: samples of the dataset.
        rank, world_size: this process and the number of processes. With n samples per process, their batches together
            are always the next n * world_size samples of the sequence.
        start: samples of the whole sequence to skip, to resume a run.
    """

    def __init__(self, size: int, *, seed: int, rank: int = 0, world_size: int = 1, start: int = 0):
        self.size, self.seed, self.rank, self.world_size, self.start = size, seed, rank, world_size, start

    def __len__(self) -> int:
        """Return a number so large that mmcv's loggers never see the end of a pass."""
        return sys.maxsize

    def __iter__(self) -> Iterator[Key]:
        position = self.start + self.rank
        known_pass, order = None, None
        while True:
            pass_number, place = divmod(position, self.size)
            if pass_number != known_pass:
                generator = np.random.default_rng([self.seed, pass_number])
                known_pass, order = pass_number, generator.permutation(self.size)
            yield pass_number, int(order[place])
            position += self.world_size


class SeededSamples(Dataset):
    """A dataset, indexed by a `Key`, whose augmentation of a sample depends on (seed, pass, index) alone."""

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key):
        pass_number, index = key
        draws = np.random.SeedSequence([self.seed, pass_number, index]).generate_state(2)
        states = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            random.seed(int(draws[0]))
            np.random.seed(draws)
            torch.default_generator.manual_seed(int(draws[1]))  # the CPU's: torch.manual_seed seeds GPUs too
            try:
                return self.dataset[index]
            finally:  # without workers the training uses the same generators
                random.setstate(states[0])
                np.random.set_state(states[1])
