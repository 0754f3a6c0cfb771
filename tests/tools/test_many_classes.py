"""847 classes, whose label maps need 16 bits, from masks to scores, files, images, other processes and resumed runs."""
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from datasets import ADE20K847, Miniature, PascalContext459
from tests.conftest import REPOSITORY
from tests.tools.one_process import torchrun

MODEL = REPOSITORY / 'tools/miniature/model.safetensors'
OTHERS = [*dict.fromkeys(name.split(',')[0].lower() for name in (*ADE20K847.CLASSES, *PascalContext459.CLASSES))][:827]
FIRST = 800  # the miniature's classes are 800 to 819
NAMES = [*OTHERS[:FIRST], *Miniature.CLASSES, *OTHERS[FIRST:]]


@pytest.fixture(scope='module')
def config(run, tmp_path_factory):
    """A config of the drawn world with this vocabulary, and with TIFF masks of 16 bits, in which 65535 is void."""
    folder = tmp_path_factory.mktemp('many')
    run('tools/miniature/world.py', folder / 'world', '--train', 4, '--val', 3)
    for path in (folder / 'world/SegmentationClass').iterdir():
        ids = np.asarray(Image.open(path)).astype(np.uint16)
        Image.fromarray(np.where((ids == 0) | (ids == 255), 65535, ids + FIRST - 1).astype(np.uint16)).save(
            path.with_suffix('.tiff'))
        path.unlink()
    names = folder / 'names.txt'
    names.write_text(''.join(f'{name}\n' for name in NAMES))
    file = folder / 'many.py'
    file.write_text(f"""_base_ = '{REPOSITORY}/configs/miniature/inductive.py'
part = dict(type='ZeroShotDataset', data_root='{folder}/world', classes='{names}', seg_map_suffix='.tiff',
            unseen={[*Miniature.UNSEEN]!r})
data = dict(samples_per_gpu=2, workers_per_gpu=0, train=part, val=part, test=part)
runner = dict(max_iters=4)
checkpoint_config = dict(interval=2)
log_config = dict(interval=1)
evaluation = dict(interval=4)
""")
    return file


def masks(config) -> list[np.ndarray]:
    names = (config.parent / 'world/ImageSets/Segmentation/val.txt').read_text().split()
    return [np.asarray(Image.open(config.parent / f'world/SegmentationClass/{name}.tiff')).astype(int)
            for name in names]


def scores_of(maps: list[np.ndarray], truths: list[np.ndarray]) -> dict[str, float]:
    """Compute the scores class by class."""
    ious, accuracies = {}, {}
    for index, name in enumerate(NAMES):
        both = sum(((labels == index) & (truth == index)).sum() for labels, truth in zip(maps, truths, strict=True))
        either = sum((((labels == index) | (truth == index)) & (truth != 65535)).sum()
                     for labels, truth in zip(maps, truths, strict=True))
        there = sum((truth == index).sum() for truth in truths)
        ious |= {name: both / either} if either else {}
        accuracies |= {name: both / there} if there else {}
    pixels = sum((truth != 65535).sum() for truth in truths)
    right = sum(((labels == truth) & (truth != 65535)).sum() for labels, truth in zip(maps, truths, strict=True))
    return {'aAcc': right / pixels, 'mIoU': np.mean([*ious.values()]), 'mAcc': np.mean([*accuracies.values()]),
            'mIoU_unseen': np.mean([value for name, value in ious.items() if name in Miniature.UNSEEN])}


def test_scores_label_maps_files_and_images(call, config, tmp_path):
    other = '--cfg-options', 'cross_dataset=True'
    done = call('test.py', config, MODEL, '--eval', 'mIoU', '--out', tmp_path / 'maps.pkl', '--show-dir',
                tmp_path / 'shown', '--work-dir', tmp_path, *other)
    assert 'no mask contains a pixel of: wall, building, ' in done.stderr
    maps, truths = pickle.loads((tmp_path / 'maps.pkl').read_bytes()), masks(config)
    assert len(NAMES) == 847 and all(labels.dtype == np.uint16 for labels in maps)
    found = json.loads(next(tmp_path.glob('eval_single_scale_*.json')).read_text())['metric']
    for name, value in scores_of(maps, truths).items():
        assert found[name] == pytest.approx(round(value, 4), abs=1e-6), name  # they are rounded to four digits
    assert found['mIoU'] > 0.4 and found['IoU.wall'] in (None, 0)  # the model finds its classes among so many names
    with Image.open(next((tmp_path / 'shown').iterdir())) as drawn:
        assert drawn.width > 3 * 128

    call('test.py', config, MODEL, '--format-only', '--eval-options', f'imgfile_prefix={tmp_path}/files', *other)
    for file, labels in zip(sorted((tmp_path / 'files').iterdir()), maps, strict=True):
        with Image.open(file) as image:
            assert image.mode == 'I;16' and np.array_equal(np.asarray(image), labels)


def test_a_resumed_training_and_two_processes(config, tmp_path, cache, call):
    call('tools/train.py', config, '--work-dir', tmp_path, '--seed', 0, '--cfg-options', 'runner.max_iters=2')
    call('tools/train.py', config, '--work-dir', tmp_path, '--seed', 0, '--auto-resume')
    torchrun(2, REPOSITORY / 'test.py', config, tmp_path / 'iter_4.pth', '--launcher', 'pytorch', '--eval', 'mIoU',
             '--out', tmp_path / 'maps.pkl', '--work-dir', tmp_path, env={'CLIPRC_CACHE': str(cache)})
    maps = pickle.loads((tmp_path / 'maps.pkl').read_bytes())
    found = json.loads(next(tmp_path.glob('eval_single_scale_*.json')).read_text())['metric']
    for name, value in scores_of(maps, masks(config)).items():
        assert found[name] == pytest.approx(round(value, 4), abs=1e-6), name
    evaluated = [json.loads(line) for file in tmp_path.glob('*.log.json') for line in file.read_text().splitlines()
                 if '"mode": "val"' in line]
    assert evaluated[-1]['mIoU'] == found['mIoU']
