"""tools/browse_dataset.py draws what the pipeline sees."""
import shutil

import numpy as np
import pytest
from mmcv import Config
from mmseg.datasets import build_dataset
from PIL import Image

from datasets import SeededSamples
from tests.conftest import REPOSITORY
from tools.browse_dataset import seen_by_model

EXAMPLE = REPOSITORY / 'configs/custom/example.py'


def test_images_are_drawn(run, tmp_path):
    run('tools/browse_dataset.py', EXAMPLE, '--out', tmp_path / 'new/folder', '--count', 3)
    files = sorted((tmp_path / 'new/folder').iterdir())
    assert [file.name for file in files] == ['00.png', '06.png', '11.png']
    with Image.open(files[0]) as image:
        assert image.width > 128 + 64 and len(set(image.convert('RGB').getdata())) > 100


def test_both_lists_of_voc_and_a_part_without_training(run, tiny_configs, tmp_path):
    run('tools/browse_dataset.py', tiny_configs['inductive'], '--out', tmp_path / 'train', '--count', 100)
    assert len(list((tmp_path / 'train').iterdir())) == 8
    run('tools/browse_dataset.py', tiny_configs['inductive'], '--out', tmp_path / 'val', '--part', 'val')
    assert sorted(file.name for file in (tmp_path / 'val').iterdir()) == [f'val_00{i}.png' for i in range(3)]


def test_the_model_s_image_is_the_pipeline_s():
    """Normalisation is undone; image and mask are those of one crop."""
    config = Config.fromfile(str(EXAMPLE)).data.train
    config.data_root = str(REPOSITORY / config.data_root)
    steps = [step for step in config.pipeline if step.type not in ('Resize', 'RandomCrop', 'Pad')]
    config.pipeline = [*steps[:2], dict(type='Resize', img_scale=(128, 128)), dict(type='RandomFlip', prob=0.),
                       *steps[3:]]
    dataset = build_dataset(config)
    image, labels = seen_by_model(SeededSamples(dataset, 0)[0, 4])
    with Image.open(dataset.image_path(4)) as stored:
        assert np.abs(image.astype(int) - np.asarray(stored)).max() <= 6  # two JPEG decoders
    assert np.array_equal(labels, dataset.true_labels(4))


@pytest.mark.parametrize(('options', 'words'), [
    (['--part', 'train', '--cfg-options', 'data.train.ann_dir=nowhere'], 'no folder'),
    (['--opacity', '2'], '--opacity 2.0 is not in (0, 1]'),
    (['--out', EXAMPLE], 'it is a file'),
])
def test_bad_input(run, tmp_path, options, words):
    done = run('tools/browse_dataset.py', EXAMPLE, '--out', tmp_path / 'out', *options, check=False)
    assert done.returncode == 1 and words in done.stderr and 'Traceback' not in done.stderr


def test_a_config_without_training(run, tmp_path):
    done = run('tools/browse_dataset.py', REPOSITORY / 'configs/cross_dataset/coco_to_ade20k150.py', '--out', tmp_path,
               check=False)
    assert done.returncode == 1 and 'has no data.train; it has' in done.stderr


def test_a_broken_image_is_named(run, tmp_path):
    root = shutil.copytree(REPOSITORY / 'tests/data/custom', tmp_path / 'custom')
    image = root / 'train/images/00.jpg'
    image.write_bytes(image.read_bytes()[:2000])
    done = run('tools/browse_dataset.py', EXAMPLE, '--data-root', root, '--out', tmp_path / 'out', check=False)
    assert done.returncode == 1 and '00.jpg: broken image' in done.stderr and 'Traceback' not in done.stderr
