"""Fixtures: a small dataset in VOC's layout, random CLIP files, small configs, scripts run as users run them."""
import json
import logging
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = REPOSITORY / 'tests' / 'data' / 'golden'
GPU = os.environ.get('GPU_TESTS_ON', 'cuda')  # the device of tests marked gpu; 'cpu' to try the tests themselves
sys.path[:0] = [str(REPOSITORY), str(GOLDEN)]

from tests.clip_files import clip_weights  # noqa: E402


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        os.environ.pop('CUDA_HOME', None)
        os.environ['CUDA_PATH'] = ''  # else torch 2.7 says on stderr that there is a compiler for CUDA, and no GPU
        for item in items:
            if 'gpu' in item.keywords and GPU == 'cuda':
                item.add_marker(pytest.mark.skip(reason='no CUDA device'))


def make_voc(root: Path, *, train: int = 4, aug: int = 4, val: int = 3, size: tuple[int, int] = (72, 96)) -> Path:
    """A dataset in VOC's layout: coloured rectangles of random classes on noise; void (255) around them."""
    random = np.random.default_rng(0)
    for folder in ('JPEGImages', 'SegmentationClass', 'SegmentationClassAug', 'ImageSets/Segmentation'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, count, masks in (('train', train, 'SegmentationClass'), ('aug', aug, 'SegmentationClassAug'),
                                ('val', val, 'SegmentationClass')):
        names = [f'{split}_{i:03d}' for i in range(count)]
        (root / f'ImageSets/Segmentation/{split}.txt').write_text(''.join(f'{name}\n' for name in names))
        for name in names:
            image = random.integers(0, 60, (*size, 3), dtype=np.uint8)
            mask = np.zeros(size, dtype=np.uint8)
            for label in random.choice(np.arange(1, 21), 3, replace=False):
                top, left = random.integers(0, size[0] - 30), random.integers(0, size[1] - 30)
                mask[top:top + 28, left:left + 28] = 255
                mask[top + 2:top + 26, left + 2:left + 26] = label
                image[top:top + 28, left:left + 28] = (37 * label % 256, 91 * label % 256, 53 * label % 256)
            Image.fromarray(image).save(root / f'JPEGImages/{name}.jpg', quality=90)
            Image.fromarray(mask).save(root / f'{masks}/{name}.png')
    return root


@pytest.fixture(scope='session')
def voc_root(tmp_path_factory) -> Path:
    """Read-only: tests that damage files make their own with `make_voc`."""
    return make_voc(tmp_path_factory.mktemp('voc') / 'VOC2012')


@pytest.fixture(scope='session')
def clip_file(tmp_path_factory) -> Path:
    """A CLIP of width 64 with 3 layers and patches of 16, in OpenAI's format."""
    path = tmp_path_factory.mktemp('clip') / 'tiny.pt'
    torch.save(clip_weights(), path)
    return path


TINY = '''
_base_ = '{repository}/configs/voc12/{leaf}.py'
crop = (64, 64)
model = dict(
    pretrained='{clip}', pretrained_text='{clip}',
    backbone=dict(input_resolution=64, width=64, layers=3, heads=4, output_dim=32, num_tokens=3,
                  region_level_bridge_size=4),
    text_encoder=dict(transformer_width=32, transformer_heads=4, transformer_layers=2, embed_dim=32),
    decode_head=dict(img_size=64, in_channels=32, num_heads=4),
    test_cfg=dict(crop_size=crop, stride=(48, 48)))
norm = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train = [dict(type='LoadImage'), dict(type='LoadLabels'),
         dict(type='Resize', img_scale=(256, 64), ratio_range=(0.5, 2.0)),
         dict(type='RandomCrop', crop_size=crop, cat_max_ratio=0.75), dict(type='RandomFlip', prob=0.5),
         dict(type='PhotoMetricDistortion'), dict(type='Normalize', **norm),
         dict(type='Pad', size=crop, pad_val=0, seg_pad_val=255), dict(type='DefaultFormatBundle'),
         dict(type='Collect', keys=['img', 'gt_semantic_seg'])]
test = [dict(type='LoadImage'), dict(type='MultiScaleFlipAug', img_scale=(256, 64), flip=False, transforms=[
    dict(type='Resize', keep_ratio=True, min_size=64), dict(type='RandomFlip'), dict(type='Normalize', **norm),
    dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])])]
data = dict(samples_per_gpu=2, workers_per_gpu=0, train=dict(data_root='{data}', pipeline=train),
            val=dict(data_root='{data}', pipeline=test), test=dict(data_root='{data}', pipeline=test))
runner = dict(max_iters=4)
lr_config = dict(warmup_iters=2)
log_config = dict(interval=1)
checkpoint_config = dict(interval=2)
evaluation = dict(interval=100)
'''
LEAVES = {'inductive': 'clip_rc_zero_vit-b_512x512_40k_voc_10_16',
          'transductive': 'clip_rc_zero_vit-b_512x512_20k_voc_10_16_st',
          'fully': 'clip_rc_fully_vit-b_512x512_40k_voc_10_16'}


@pytest.fixture(scope='session')
def tiny_configs(tmp_path_factory, voc_root, clip_file) -> dict[str, Path]:
    """The three VOC configs at 64 pixels with a width of 64: 'inductive', 'transductive', 'fully'."""
    folder = tmp_path_factory.mktemp('configs')
    files = {}
    for setting, leaf in LEAVES.items():
        files[setting] = folder / f'{setting}.py'
        files[setting].write_text(TINY.format(repository=REPOSITORY, leaf=leaf, clip=clip_file, data=voc_root))
    return files


@pytest.fixture
def troubled(tiny_configs, tmp_path):
    """Makes a config whose dataset gets one process, or its loader workers, into trouble; see troubled_data.py."""
    shutil.copy(REPOSITORY / 'tests/troubled_data.py', tmp_path / 'my_troubled_data.py')

    def make(way: str, *, rank: int = 0, part: str = 'train', after: int = 3, workers: int = 0) -> Path:
        config = tmp_path / 'troubled.py'
        config.write_text(f"_base_ = {str(tiny_configs['inductive'])!r}\n"
                          "custom_imports = dict(imports=['my_troubled_data'])\n"
                          f"data = dict(workers_per_gpu={workers}, "
                          f"{part}=dict(type='Troubled', rank={rank}, way={way!r}, after={after}))\n"
                          'runner = dict(max_iters=6)\ncheckpoint_config = dict(interval=3)\n')
        return config

    return make


@pytest.fixture(scope='session')
def cache(tmp_path_factory) -> Path:
    """Where scripts under test keep what they compute."""
    return tmp_path_factory.mktemp('cache')


@pytest.fixture(scope='session')
def run(tmp_path_factory, cache):
    """Runs a command as a user does, from a folder outside the repository; `script` relative to the repository."""
    elsewhere = tmp_path_factory.mktemp('elsewhere')

    def run(script: str, *arguments, check: bool = True, env: dict[str, str] | None = None, timeout: int = 300,
            cwd: Path = elsewhere) -> subprocess.CompletedProcess:
        launcher = ['bash'] if script.endswith('.sh') else [sys.executable]
        done = subprocess.run([*launcher, str(REPOSITORY / script), *map(str, arguments)], cwd=cwd, text=True,
                              capture_output=True, timeout=timeout,
                              env={**os.environ, 'CLIPRC_CACHE': str(cache), 'PYTHON': sys.executable, **(env or {})})
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope='session')
def trained(run, tiny_configs, tmp_path_factory) -> Path:
    """Work folder of a tiny inductive run of 4 iterations."""
    folder = tmp_path_factory.mktemp('work') / 'inductive'
    run('tools/train.py', tiny_configs['inductive'], '--work-dir', folder, '--seed', 3, '--no-validate')
    return folder


def logged(folder: Path, mode: str = 'train') -> list[dict]:
    """Read all entries of the logs of a run, in order of time."""
    lines = [line for file in sorted(folder.glob('*.log.json')) for line in file.read_text().splitlines()]
    return [entry for entry in map(json.loads, lines) if entry.get('mode') == mode]


def forget_loggers() -> None:
    """mmcv's loggers keep the stderr and the file that they were made with."""
    from mmcv.utils.logging import logger_initialized
    logger_initialized.clear()
    logging.getLogger('mmseg').handlers.clear()


@pytest.fixture
def tf32():
    """Tells whether matrix products and convolutions may use TF32; puts it back at the end."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    yield lambda: tuple(backend.allow_tf32 for backend in backends)
    for backend, value in zip(backends, before, strict=True):
        backend.allow_tf32 = value


@pytest.fixture
def call(monkeypatch, capfd, cache):
    """Runs a Python command in this process, which is quicker than `run`, and gives the same."""
    def call(script: str, *arguments, check: bool = True) -> subprocess.CompletedProcess:
        forget_loggers()
        monkeypatch.setattr(sys, 'argv', [script, *map(str, arguments)])
        capfd.readouterr()
        error = ''
        try:
            runpy.run_path(str(REPOSITORY / script), run_name='__main__')
        except SystemExit as end:
            error = end.code or ''
        output = capfd.readouterr()
        message = f'{error}\n' if isinstance(error, str) and error else ''
        done = subprocess.CompletedProcess(sys.argv, error if isinstance(error, int) else int(bool(error)), output.out,
                                           output.err + message)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    monkeypatch.setenv('CLIPRC_CACHE', str(cache))
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.delenv('CLIPRC_TRACEBACK', raising=False)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    yield call
    forget_loggers()


@pytest.fixture
def fails(call):
    """Runs a command in this process; returns the one error that it ends with."""
    def fails(script: str, *arguments) -> str:
        done = call(script, *arguments, check=False)
        assert done.returncode == 1 and 'Traceback' not in done.stdout + done.stderr
        assert done.stderr.count('error: ') == 1, 'no error, or one of the command line'
        return done.stderr[done.stderr.index('error: '):].removesuffix('\n')

    return fails


def golden_config(case: str) -> dict:
    """The `model` of a recorded case: 'inductive', 'transductive', 'fully', 'text' (tiny), or 'voc_inductive'."""
    tiny = json.loads((GOLDEN / 'tiny_configs.json').read_text())
    config = tiny['inductive' if case == 'voc_inductive' else case]
    if case == 'voc_inductive':  # ViT-B/16, 20 classes, the last five unseen
        config['backbone'].update(width=768, output_dim=512, layers=12, heads=12, input_resolution=512,
                                  out_indices=[11], num_tokens=10, prompt_dim=768, total_d_layer=11,
                                  region_level_bridge_size=16)
        seen, both = list(range(15)), list(range(20))
        config['decode_head'].update(img_size=512, in_channels=512, channels=512, embed_dims=512, num_heads=8,
                                     seen_idx=seen, all_idx=both, num_classes=15)
        config['test_cfg'].update(crop_size=[512, 512], stride=[426, 426])
        config.update(base_class=seen, novel_class=list(range(15, 20)), both_class=both,
                      load_text_embedding='voc_text.npy')
        del config['text_encoder'], config['class_names']
    if config['load_text_embedding'] is not None:
        config['load_text_embedding'] = str(GOLDEN / config['load_text_embedding'])
    return config
