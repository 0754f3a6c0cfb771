"""Our augmentation gives mmseg's pixels, bit for bit, for the same draws."""
import mmseg.datasets.pipelines as published
import numpy as np
import pytest
import torch
from mmseg.datasets.pipelines.formatting import DefaultFormatBundle

from datasets import augmentation
from tests.datasets.custom_data import EXAMPLE, dataset_of

IGNORE = {np.uint8: 255, np.uint16: 65535, np.int64: 255}
STEPS = [('RandomCrop', dict(crop_size=(40, 56), cat_max_ratio=0.75)), ('RandomCrop', dict(crop_size=(40, 56))),
         ('RandomCrop', dict(crop_size=(40, 56), cat_max_ratio=0.75, ignore_index=None)),
         ('RandomFlip', dict(prob=0.5)), ('RandomFlip', dict(prob=0.5, direction='vertical')),
         ('PhotoMetricDistortion', {}), ('PhotoMetricDistortion', dict(brightness_delta=250, hue_delta=90)),
         ('Normalize', dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])),
         ('Normalize', dict(mean=[1., 2., 3.], std=[3., .2, 10.], to_rgb=False))]


def sample(seed: int, dtype: type) -> dict:
    """Draw an image and labels of few classes in large patches; a crop's view, and odd sizes, as in a pipeline."""
    random = np.random.default_rng(seed)
    height, width = random.integers(30, 90, 2)
    image = random.integers(0, 256, (height + 5, width + 3, 3), dtype=np.uint8)
    labels = random.choice(np.array([0, 3, IGNORE[dtype]], dtype), (4, 3), p=[0.6, 0.1, 0.3])
    labels = labels.repeat(24, 0).repeat(32, 1)
    return {'img': image[5:, 3:], 'gt_semantic_seg': labels[:height, :width], 'seg_fields': ['gt_semantic_seg']}


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if isinstance(value, np.ndarray):
            assert ours[key].dtype == value.dtype and np.array_equal(ours[key], value), key
        else:
            assert str(ours[key]) == str(value), key


@pytest.mark.parametrize('dtype', IGNORE)
@pytest.mark.parametrize(('name', 'options'), STEPS)
def test_each_step(name, options, dtype):
    options = {'ignore_index': IGNORE[dtype], **options} if name == 'RandomCrop' else options
    ours, theirs = getattr(augmentation, f'Quick{name}')(**options), getattr(published, name)(**options)
    for seed in range(40):
        results = []
        for step in (theirs, ours):
            np.random.seed(seed)
            results.append(step(sample(seed, dtype)))
            results[-1]['next draw'] = np.random.random()  # as many draws were made
        assert_same(*results)


@pytest.mark.parametrize('name', ['PhotoMetricDistortion', 'Normalize'])
def test_images_of_floats(name):
    """For all combinations of the draws; with some the hue alone is turned."""
    options = STEPS[-1][1] if name == 'Normalize' else {}
    for seed in range(40):
        results = []
        for step in (getattr(published, name)(**options), getattr(augmentation, f'Quick{name}')(**options)):
            np.random.seed(seed)
            results.append(step({'img': sample(0, np.uint8)['img'].astype(np.float32) / 256}))
        assert_same(*results)


def test_configs_that_name_mmsegs_steps_get_ours():
    """In the whole of a pipeline, and with the label of pixels without a class."""
    steps = [dict(type='LoadImage'), dict(type='LoadLabels'),
             *[dict(type=name, **options) for name, options in (STEPS[0], STEPS[3], STEPS[5], STEPS[7])]]
    dataset = dataset_of(EXAMPLE, 'train', pipeline=steps, colours=True)
    ours = dataset.pipeline.transforms[2:]
    assert [type(step).__name__ for step in ours] == [
        'QuickRandomCrop', 'QuickRandomFlip', 'QuickPhotoMetricDistortion', 'QuickNormalize']
    theirs = [getattr(published, step['type'])(**{key: value for key, value in step.items() if key != 'type'})
              for step in steps[2:]]
    for seed in range(8):
        results = []
        for augmenting in (theirs, ours):
            dataset.pipeline.transforms[2:] = augmenting
            np.random.seed(seed)
            results.append(dataset[seed])
        results[0].pop('masks'), results[1].pop('masks')
        assert_same(*results)


@pytest.mark.parametrize('dtype', IGNORE)
def test_bundles_have_the_same_values(dtype):
    """Labels of 8 bits stay small on their way to the device."""
    ours, theirs = (step(sample(0, dtype)) for step in (augmentation.QuickDefaultFormatBundle(),
                                                        DefaultFormatBundle()))
    for key in ('img', 'gt_semantic_seg'):
        assert torch.equal(ours[key].data.to(theirs[key].data.dtype), theirs[key].data) and ours[key].stack
    assert ours['gt_semantic_seg'].data.dtype == (torch.uint8 if dtype == np.uint8 else torch.int64)
