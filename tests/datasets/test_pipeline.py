"""A pipeline is fitted to its dataset: training sees the labels that are scored."""
import numpy as np
import pytest
from PIL import Image

from models.errors import UserError
from tests.datasets.custom_data import EXAMPLE, LOADING, dataset_of, id_masks
from tests.datasets.test_masks import MANY, sixteen_bits


@pytest.mark.parametrize('loading', [dict(type='LoadLabels'), dict(type='LoadAnnotations')])
@pytest.mark.parametrize('reduce', [False, True])
def test_training_sees_the_labels_that_are_scored(tmp_path, loading, reduce):
    root = id_masks(tmp_path / 'ids', lambda labels: labels + np.uint8(reduce) if reduce else labels)
    for step in (loading, {**loading, 'reduce_zero_label': reduce}):
        train = dataset_of(root, 'train', reduce_zero_label=reduce, pipeline=[dict(type='LoadImageFromFile'), step])
        assert [type(step).__name__ for step in train.pipeline.transforms] == ['LoadImage', 'LoadLabels']
        assert np.array_equal(train[0]['gt_semantic_seg'], train.true_labels(0))
    Image.fromarray(np.full((128, 128), 77, np.uint8)).save(root / 'train/masks/00.png')
    with pytest.raises(UserError, match=r'00\.png: label ids \[77\]'):
        train[0]


def test_training_pads_with_the_label_of_no_class(tmp_path):
    """With more than 255 classes that is not the 255 of the config."""
    root = id_masks(tmp_path / 'many', sixteen_bits)
    pipeline = [*LOADING, dict(type='RandomCrop', crop_size=(100, 100), cat_max_ratio=0.75),
                dict(type='Pad', size=(160, 160), pad_val=0, seg_pad_val=255), dict(type='DefaultFormatBundle')]
    dataset = dataset_of(root, 'train', classes=MANY, pipeline=pipeline)
    labels = dataset[0]['gt_semantic_seg'].data
    assert set(labels.unique().tolist()) <= {*range(256, 261), 65535} and (labels[0, 100:] == 65535).all()


@pytest.mark.parametrize(('step', 'words'), [
    (dict(type='Pad', size=(80, 80), seg_pad_val=0), 'Pad of the pipeline has seg_pad_val=0, .* have 255'),
    (dict(type='RandomCrop', crop_size=(80, 80), ignore_index=3), 'RandomCrop of the pipeline has ignore_index=3'),
    (dict(type='LoadAnnotations', imdecode_backend='cv2'),
     "LoadAnnotations of the pipeline: imdecode_backend='cv2' is not supported"),
    *[(dict(type=kind, reduce_zero_label=True),
       f'{kind} of the pipeline has reduce_zero_label=True, its dataset ZeroShotDataset has False')
      for kind in ('LoadLabels', 'LoadAnnotations')]])
def test_steps_that_contradict_the_dataset(step, words):
    with pytest.raises(UserError, match=words):
        dataset_of(EXAMPLE, 'train', pipeline=[*LOADING, step])


@pytest.mark.parametrize('wrapped', [True, False])
def test_test_pipelines_without_a_flip(wrapped):
    """Whether in `MultiScaleFlipAug` or not: a list of one view."""
    steps = [dict(type='Resize', img_scale=(64, 64)),
             dict(type='Normalize', mean=[0., 0., 0.], std=[1., 1., 1.], to_rgb=True),
             dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])]
    if wrapped:
        steps = [dict(type='MultiScaleFlipAug', img_scale=(64, 64), transforms=steps)]
    sample = dataset_of(EXAMPLE, pipeline=[LOADING[0], *steps])[0]
    assert sample['img'][0].shape == (3, 64, 64) and len(sample['img']) == len(sample['img_metas']) == 1


def test_a_test_pipeline_may_load_masks():
    pipeline = [*LOADING, dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])]
    assert dataset_of(EXAMPLE, pipeline=pipeline)[0]['img'][0].shape == (3, 128, 128)
