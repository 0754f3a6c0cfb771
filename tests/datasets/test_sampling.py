"""The order of samples and their augmentation depend on the seed alone.

`test_properties.py` has passes, shares of processes and restored generators, for random cases.
"""
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from mmcv import Config
from mmcv.parallel import collate
from mmseg.datasets import build_dataset
from torch.utils.data import DataLoader

from datasets import PassSampler, SeededSamples
from tools.engine.data import start_worker, training_loader
from tools.engine.process import Place


def keys(count: int, size: int = 7, **arguments) -> list[tuple[int, int]]:
    return list(islice(PassSampler(size, **{'seed': 1, **arguments}), count))


def test_the_order_depends_on_seed_and_pass():
    orders = [tuple(index for _, index in keys(14, size=50, seed=seed)) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    by_pass = [tuple(index for _, index in keys(150, size=50)[start:start + 50]) for start in (0, 50, 100)]
    assert len(set(by_pass)) == 3, 'a pass repeats the order of another'


# ---- random draws of a sample

@pytest.fixture(scope='module')
def dataset(tiny_configs):
    return build_dataset(Config.fromfile(str(tiny_configs['inductive'])).data.train)


def assert_equal(one: dict, other: dict) -> None:
    assert torch.equal(one['img'].data, other['img'].data)
    assert torch.equal(one['gt_semantic_seg'].data, other['gt_semantic_seg'].data)
    assert str(one['img_metas'].data) == str(other['img_metas'].data)


def test_a_sample_depends_on_seed_pass_and_index_alone(dataset):
    samples = SeededSamples(dataset, seed=5)
    first = samples[2, 3]
    np.random.seed(0)
    samples[0, 1]  # another sample before it
    assert_equal(first, samples[2, 3])
    assert_equal(first, SeededSamples(dataset, seed=5)[2, 3])
    for other in (samples[3, 3]['img'], SeededSamples(dataset, seed=6)[2, 3]['img']):
        assert not torch.equal(first['img'].data, other.data), 'other draws were to be expected'


def batches(dataset, workers: int, count: int = 4) -> list[dict]:
    np.random.seed(workers)  # must not matter
    loader = DataLoader(SeededSamples(dataset, 5), batch_size=2, sampler=PassSampler(len(dataset), seed=5),
                        num_workers=workers, collate_fn=partial(collate, samples_per_gpu=2), drop_last=True,
                        worker_init_fn=start_worker)
    return list(islice(loader, count))


def test_the_same_images_with_any_number_of_workers(dataset):
    alone, one, three = (batches(dataset, workers) for workers in (0, 1, 3))
    for expected, *others in zip(alone, one, three):
        for other in others:
            assert torch.equal(expected['img'].data[0], other['img'].data[0])
            assert torch.equal(expected['gt_semantic_seg'].data[0], other['gt_semantic_seg'].data[0])


def test_the_training_loader_skips_what_was_done(tiny_configs):
    config, place = Config.fromfile(str(tiny_configs['inductive'])), Place(torch.device('cpu'))
    whole = list(islice(training_loader(config, place, 9, 0), 5))
    rest = list(islice(training_loader(config, place, 9, 3 * config.data.samples_per_gpu), 2))
    for expected, actual in zip(whole[3:], rest, strict=True):
        assert torch.equal(expected['img'].data[0], actual['img'].data[0])
