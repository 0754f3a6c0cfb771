"""Several datasets are scored one by one or as one; classes without a pixel are named."""
import logging

import numpy as np
import pytest
from mmcv import Config

from datasets import several
from datasets.several import warn_of_missing_classes
from models.errors import UserError
from tests.datasets.custom_data import EXAMPLE, NAMES, dataset_of, id_masks, settings
from tools.engine.data import evaluation_dataset, training_dataset


def config_of(**data):
    return Config({'data': data})


def test_datasets_of_a_list_are_scored_one_by_one(tmp_path):
    root = id_masks(tmp_path / 'ids')
    first, second = settings(root), settings(root, img_dir='train/images', ann_dir='train/masks')
    both = evaluation_dataset(config_of(test=[first, second]), 'test', scored=True)
    assert both.names == ['val_images', 'train_images'] and len(both) == 18
    label_maps = [np.zeros((128, 128), np.uint8)] * 18
    parts = [areas for index, labels in enumerate(label_maps) for areas in both.pre_eval(labels, index)]
    groups = {'known': [0], 'new': [1, 2]}
    scores = both.evaluate(parts, groups=groups)
    each = [dataset_of(root).evaluate(label_maps[:6], groups=groups), evaluation_dataset(
        config_of(test=second), 'test', scored=True).evaluate(label_maps[6:], groups=groups)]
    assert scores['val_images.mIoU_known'] == scores[f'val_images.IoU.{NAMES[0]}'] > 0
    for name, alone in zip(both.names, each, strict=True):
        for key, value in alone.items():
            assert scores[f'{name}.{key}'] == pytest.approx(value, nan_ok=True)
    assert scores['hIoU'] == pytest.approx(np.mean([alone['hIoU'] for alone in each]), abs=1e-4)
    assert both.locate(6)[::2] == ('train_images', 0)
    files = both.format_results(label_maps, str(tmp_path / 'out'))
    assert len({*files}) == 18


@pytest.mark.parametrize('way', ['lists', 'ConcatDataset'])
def test_several_folders_as_one_dataset(tmp_path, way):
    root = id_masks(tmp_path / 'ids')
    folders = [{'img_dir': f'{part}/images', 'ann_dir': f'{part}/masks'} for part in ('val', 'train')]
    data = settings(root, **{key: [folder[key] for folder in folders] for key in folders[0]}) if way == 'lists' else \
        {'type': 'ConcatDataset', 'datasets': [settings(root, **folder) for folder in folders]}
    label_maps = [np.zeros((128, 128), np.uint8)] * 18
    apart, joint = (evaluation_dataset(config_of(test={**data, **pooled}), 'test', scored=True)
                    for pooled in ({}, {'separate_eval': False}))
    parts = [areas for index, labels in enumerate(label_maps) for areas in joint.pre_eval(labels, index)]
    assert joint.evaluate(parts)['IoU.red'] == pytest.approx(
        sum(int(area[0][0]) for area in parts) / sum(int(area[1][0]) for area in parts), abs=1e-4)
    assert 'val_images.IoU.red' in apart.evaluate(parts)


@pytest.mark.parametrize(('data', 'words'), [
    (lambda one: one | {'ann_dir': None}, r'data\.val: scoring needs masks.*ann_dir=FOLDER'),
    (lambda one: {'type': 'RepeatDataset', 'times': 2, 'dataset': one}, 'an image is scored once'),
    (lambda one: [one, one | {'classes': [*NAMES[:4], 'pink']}], 'classes, split, prompt set or background'),
])
def test_data_that_cannot_be_scored(data, words):
    with pytest.raises(UserError, match=words):
        evaluation_dataset(config_of(val=data(dict(settings(EXAMPLE)))), 'val', scored=True)


@pytest.mark.parametrize('times', [0, 1.5, None])
def test_repeats_that_are_refused(times):
    with pytest.raises(UserError, match=rf'data\.train\.times={times}: a positive integer'):
        training_dataset(config_of(train={'type': 'RepeatDataset', 'times': times, 'dataset': settings(
            EXAMPLE, 'train')}))


def binary(root):
    return id_masks(root / 'binary', lambda labels: np.where(labels == 255, 0, 255).astype(np.uint8))


def test_a_class_that_no_mask_contains(tmp_path, caplog):
    train = dataset_of(binary(tmp_path), 'train', classes=['background', 'blob'], unseen=[])
    logging.getLogger('mmseg').propagate = True
    with caplog.at_level(logging.WARNING):
        warn_of_missing_classes([train], [0, 1], logging.getLogger('mmseg'))
    assert 'none of 12 masks (of 12) contains a pixel of: blob. 255 is void in them' in caplog.text
    caplog.clear()
    val = dataset_of(tmp_path / 'binary', classes=['background', 'blob'], unseen=[])
    with caplog.at_level(logging.WARNING):
        val.evaluate([np.zeros((128, 128), np.uint8)] * 6, logger='mmseg')
    assert 'no mask contains a pixel of: blob' in caplog.text


def test_no_more_masks_are_read_than_needed(tmp_path, monkeypatch, caplog):
    reads = []
    load = several.load_mask
    monkeypatch.setattr(several, 'load_mask', lambda *task: reads.append(task) or load(*task))
    logger = logging.getLogger('mmseg')
    logger.propagate = True
    warn_of_missing_classes([dataset_of(id_masks(tmp_path / 'ids'), 'train')], range(5), logger)
    assert len(reads) < 12 and 'none of' not in caplog.text
    warn_of_missing_classes([dataset_of(binary(tmp_path), 'train')], range(5), logger, most=5)
    assert 'none of 5 masks (of 12) contains a pixel of: yellow, green, blue and 1 more' in caplog.text
