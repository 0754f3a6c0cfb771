"""Which sample comes when, and its random draws: both functions of the seed alone.

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
    """An endless sequence of passes, each in an order that depends on (seed, pass); a process takes its share.

    Args:
        size: samples of the dataset.
        rank, world_size: this process and how many there are. With n samples a process, the processes' batches
            together are always the next n * world_size samples of the sequence.
        start: samples of the whole sequence to skip, to go on where a run stopped.
    """

    def __init__(self, size: int, *, seed: int, rank: int = 0, world_size: int = 1, start: int = 0):
        self.size, self.seed, self.rank, self.world_size, self.start = size, seed, rank, world_size, start

    def __len__(self) -> int:
        """As good as endless; mmcv's loggers ask whether a pass is over, which the runner's iterations do not have."""
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
    """A dataset whose random draws for a sample depend on (seed, pass, index) alone; indexed by such a `Key`."""

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
            torch.manual_seed(int(draws[1]))
            try:
                return self.dataset[index]
            finally:  # with no workers these generators are the training's own
                random.setstate(states[0])
                np.random.set_state(states[1])
