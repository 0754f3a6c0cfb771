"""The order of samples and their augmentation depend on the seed alone.

`test_properties.py` has passes, shares of processes, draws by key and restored generators, for random cases.
"""
from functools import partial
from itertools import islice

import numpy as np
import torch
from mmcv import Config
from mmcv.parallel import collate
from mmseg.datasets import build_dataset
from torch.utils.data import DataLoader

from datasets import PassSampler, SeededSamples
from tools.engine.data import start_worker


def test_the_order_depends_on_seed_and_pass():
    first, again, other = ([index for _, index in islice(PassSampler(50, seed=seed), 100)] for seed in (1, 1, 2))
    assert first == again and first[:50] not in (first[50:], other[:50])


def batches(dataset, workers: int) -> list[dict]:
    np.random.seed(workers)  # must not matter
    loader = DataLoader(SeededSamples(dataset, 5), batch_size=2, sampler=PassSampler(len(dataset), seed=5),
                        num_workers=workers, collate_fn=partial(collate, samples_per_gpu=2), drop_last=True,
                        worker_init_fn=start_worker)
    return list(islice(loader, 4))


def test_the_same_images_with_any_number_of_workers(tiny_configs):
    dataset = build_dataset(Config.fromfile(str(tiny_configs['inductive'])).data.train)
    alone, one, three = (batches(dataset, workers) for workers in (0, 1, 3))
    for expected, *others in zip(alone, one, three, strict=True):
        for other in others:
            for name in ('img', 'gt_semantic_seg'):
                assert torch.equal(expected[name].data[0], other[name].data[0])


def test_a_sample_does_not_seed_gpus(monkeypatch):
    """Without loader workers the model draws from their generators, and must not repeat itself."""
    seeded = []
    monkeypatch.setattr(torch.cuda, 'manual_seed_all', seeded.append)
    torch.manual_seed(1)
    assert seeded == [1]
    SeededSamples([0, 1], 5)[0, 1]
    assert seeded == [1]
