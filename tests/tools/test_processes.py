"""Several processes train and test as one with all the images."""
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv import Config
from mmcv.parallel import DataContainer
from PIL import Image

from tests.conftest import LEAVES, REPOSITORY, TINY, make_voc
from tests.tools.one_process import BATCHES, SETTINGS, Step, images, one_step, scored, torchrun
from tools.engine import process

ALONE = process.Place(torch.device('cpu'))


def joined(*batches: dict[str, DataContainer]) -> dict[str, DataContainer]:
    """Join the images of all batches in one."""
    return {'img': DataContainer([torch.cat([batch['img'].data[0] for batch in batches])], stack=True),
            'img_metas': DataContainer([sum((batch['img_metas'].data[0] for batch in batches), [])], cpu_only=True),
            'gt_semantic_seg': DataContainer([torch.cat([batch['gt_semantic_seg'].data[0] for batch in batches])],
                                             stack=True)}


@pytest.fixture(scope='module')
def folder(tmp_path_factory, clip_file) -> Path:
    folder = tmp_path_factory.mktemp('processes')
    voc = make_voc(folder / 'VOC2012', val=5)
    for file in (voc / 'SegmentationClass').glob('val_*.png'):  # unseen classes, on which untrained models settle
        stripes = np.repeat(np.arange(16, 21, dtype=np.uint8), (20, 19, 19, 19, 19))  # (96,)
        Image.fromarray(np.tile(stripes, (72, 1))).save(file)
    for setting in SETTINGS:
        (folder / f'{setting}.py').write_text(TINY.format(
            repository=REPOSITORY, leaf=LEAVES[setting], clip=clip_file, data=voc))
    return folder


@pytest.fixture(scope='module')
def together(folder, cache):
    """The results of 2 and of 3 processes."""
    results = {}
    for count in (2, 3):
        torchrun(count, REPOSITORY / 'tests/tools/one_process.py', folder, env={'CLIPRC_CACHE': str(cache)})
        results[count] = torch.load(folder / f'{count}.pt', weights_only=False)
    return results


@pytest.fixture(autouse=True, scope='module')
def same_cache(cache):
    os.environ['CLIPRC_CACHE'] = str(cache)
    yield
    del os.environ['CLIPRC_CACHE']


def distance(one: Step, other: Step) -> float:
    """Give the largest difference of a gradient, relative to its parameter's largest one.

    Biases of attention keys have only rounding errors, as softmax ignores a constant.
    """
    assert one[1].keys() == other[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in one[1].values())
    return max(float((gradient - other[1][name]).abs().max() / max(float(gradient.abs().max()), 1e-8 * largest))
               for name, gradient in one[1].items())


@pytest.mark.parametrize('name', BATCHES)
@pytest.mark.parametrize('setting', SETTINGS)
def test_two_processes_train_as_one(together, folder, setting, name):
    config = Config.fromfile(folder / f'{setting}.py')
    batches = [images(classes, rank) for rank, classes in enumerate(BATCHES[name])]
    alone, shared = one_step(config, joined(*batches), ALONE), together[2][setting, name]
    for part in ('loss', *(f'decode.{loss}' for loss in ('loss_mask', 'loss_dice', 'recovery_loss_q',
                                                         'recovery_loss_k'))):
        assert shared[0][part] == pytest.approx(alone[0][part], rel=1e-9), part
    assert distance(alone, shared) < 1e-5


@pytest.mark.parametrize('setting', SETTINGS)
def test_it_would_show_if_each_counted_its_own_pairs(together, folder, setting):
    right, wrong = together[2][setting, 'other numbers'], together[2][setting, 'uneven']
    assert distance(right, wrong) > 0.01
    assert wrong[0]['decode.loss_dice'] != pytest.approx(right[0]['decode.loss_dice'], rel=1e-4)


@pytest.fixture(scope='module')
def alone(folder, together) -> dict[int, tuple]:
    return scored(Config.fromfile(folder / 'inductive.py'), ALONE, folder)


@pytest.mark.parametrize('count', range(1, 6))
@pytest.mark.parametrize('processes', [2, 3])
def test_scores_whatever_the_remainder(together, alone, processes, count):
    shared, single = together[processes]['scored'][count], alone[count]
    assert len(shared[0]) == count
    for one, other in zip(shared[0], single[0], strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(shared[1:], single[1:], strict=True):
        np.testing.assert_equal(one, other)  # nan equals nan
    assert single[2]['mIoU'] == single[1]['mIoU'] > 0
    scores = {float(results[1]['mIoU']) for results in alone.values()}
    assert len(scores) > 3, 'the case is too easy: the images are alike'

