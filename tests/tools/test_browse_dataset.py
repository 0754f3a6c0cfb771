"""tools/browse_dataset.py draws samples as the pipeline makes them."""
import shutil
from collections import Counter

import numpy as np
import pytest
from mmcv import Config
from mmseg.datasets import build_dataset
from PIL import Image

from datasets import SeededSamples
from tests.conftest import REPOSITORY
from tools.browse_dataset import MIN_HEIGHT
from tools.engine.panels import MARGIN, model_input

EXAMPLE = REPOSITORY / 'configs/custom/example.py'


def test_images_are_drawn(call, tmp_path):
    call('tools/browse_dataset.py', EXAMPLE, '--out', tmp_path / 'new/folder', '--count', 3)
    files = sorted((tmp_path / 'new/folder').iterdir())
    assert [file.name for file in files] == ['00.png', '06.png', '11.png']
    with Image.open(files[0]) as image:
        assert len(set(image.convert('RGB').getdata())) > 100
        assert image.width == 2 * MIN_HEIGHT + 3 * MARGIN, 'images of 128 and 64 pixels are shown in one size'


@pytest.mark.parametrize(('part', 'counts'), [('train', {'aug': 4, 'train': 4}), ('val', {'val': 3})])
def test_both_lists_of_voc_and_another_part(call, tiny_configs, tmp_path, part, counts):
    call('tools/browse_dataset.py', tiny_configs['inductive'], '--part', part, '--out', tmp_path, '--count', 100)
    assert Counter(file.name.split('_')[0] for file in tmp_path.iterdir()) == counts


def test_the_model_s_image_is_the_pipeline_s():
    """Normalisation is undone; image and mask are those of one crop."""
    config = Config.fromfile(str(EXAMPLE)).data.train
    config.data_root = str(REPOSITORY / config.data_root)
    steps = [step for step in config.pipeline if step.type not in ('Resize', 'RandomCrop', 'Pad')]
    config.pipeline = [*steps[:2], dict(type='Resize', img_scale=(128, 128)), dict(type='RandomFlip', prob=0.),
                       *steps[3:]]
    dataset = build_dataset(config)
    image, labels = model_input(SeededSamples(dataset, 0)[0, 4])
    with Image.open(dataset.image_path(4)) as stored:
        assert np.abs(image.astype(int) - np.asarray(stored)).max() <= 6  # two JPEG decoders
    assert np.array_equal(labels, dataset.true_labels(4))


@pytest.mark.parametrize(('config', 'options', 'words'), [
    (EXAMPLE, ['--cfg-options', 'data.train.ann_dir=nowhere'], 'no folder'),
    (EXAMPLE, ['--opacity', '2'], '--opacity 2.0 is not in (0, 1]'),
    (EXAMPLE, ['--out', EXAMPLE], 'it is a file'),
    (REPOSITORY / 'configs/cross_dataset/coco_to_ade20k150.py', [], 'has no data.train; it has'),
])
def test_bad_input(fails, tmp_path, config, options, words):
    assert words in fails('tools/browse_dataset.py', config, '--out', tmp_path / 'out', *options)


def test_a_broken_image_is_named(fails, tmp_path):
    root = shutil.copytree(REPOSITORY / 'tests/data/custom', tmp_path / 'custom')
    image = root / 'train/images/00.jpg'
    image.write_bytes(image.read_bytes()[:2000])
    message = fails('tools/browse_dataset.py', EXAMPLE, '--data-root', root, '--out', tmp_path / 'out')
    assert '00.jpg: broken image' in message
