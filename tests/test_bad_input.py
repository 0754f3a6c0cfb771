"""Bad input: the script ends with one error that names the thing and the remedy, and nothing is lost."""
import shutil
import socket
import sys

import pytest
import torch
from mmcv.runner import HOOKS, Hook
from PIL import Image

from tests.clip_files import clip_weights
from tests.conftest import make_voc

TRAIN, TEST, FLOPS = 'tools/train.py', 'test.py', 'get_flops.py'


@pytest.fixture
def root(tmp_path):
    return make_voc(tmp_path / 'VOC2012', train=2, aug=1, val=2)


# ---- the CLIP file, embeddings, checkpoints

@pytest.mark.parametrize(('write', 'parts'), [
    (lambda path: None, ['no CLIP file', 'python tools/download.py']),
    (lambda path: path.write_bytes(bytes(5000)), ['truncated', 'again']),
    (lambda path: torch.save(clip_weights(width=32), path),
     ['another shape', 'class_embedding (32,) instead of (64,)', 'configs/other_clips']),
], ids=['missing', 'damaged', 'another width'])
def test_clip_file(fails, tiny_configs, tmp_path, write, parts):
    path = tmp_path / 'clip.pt'
    write(path)
    error = fails(TRAIN, tiny_configs['inductive'], '--work-dir', tmp_path / 'work', '--cfg-options',
                  f'model.pretrained={path}', f'model.pretrained_text={path}')
    for part in [str(path), *parts]:
        assert part in error


WEIGHT = 'decode_head.q_proj.weight'


@pytest.mark.parametrize(('change', 'parts'), [
    (lambda file: file['state_dict'].pop(WEIGHT), ['missing', WEIGHT]),
    (lambda file: file.update(state_dict={'layer1.0.conv1.weight': torch.ones(1)}), ['layer1.0.conv1']),
], ids=['missing tensor', 'another model'])
def test_checkpoint(fails, tiny_configs, trained, tmp_path, change, parts):
    checkpoint = torch.load(trained / 'iter_2.pth', weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, tmp_path / 'it.pth')
    for error in (fails(TEST, tiny_configs['inductive'], tmp_path / 'it.pth', '--eval', 'mIoU'),
                  fails(TRAIN, tiny_configs['inductive'], '--load-from', tmp_path / 'it.pth', '--work-dir', tmp_path)):
        for part in [str(tmp_path / 'it.pth'), *parts]:
            assert part in error


def test_resuming_an_official_checkpoint(fails, tiny_configs, trained, tmp_path):
    checkpoint = torch.load(trained / 'iter_2.pth', weights_only=True)
    del checkpoint['meta']['clip_rc']
    torch.save(checkpoint, tmp_path / 'official.pth')
    error = fails(TRAIN, tiny_configs['inductive'], '--resume-from', tmp_path / 'official.pth', '--work-dir', tmp_path)
    assert f'--load-from {tmp_path / "official.pth"}' in error


def test_a_missing_checkpoint_leaves_no_folder(fails, tiny_configs, tmp_path):
    error = fails(TEST, tiny_configs['inductive'], tmp_path / 'no' / 'it.pth', '--eval', 'mIoU')
    assert f'no file {tmp_path / "no" / "it.pth"}' in error
    assert not (tmp_path / 'no').exists()


def test_resuming_in_another_setting(fails, tiny_configs, trained, tmp_path):
    error = fails(TRAIN, tiny_configs['transductive'], '--resume-from', trained / 'iter_2.pth', '--work-dir', tmp_path)
    assert 'inductive' in error and 'transductive' in error and '--load-from' in error


# ---- hooks

@HOOKS.register_module(force=True)
class GivesBuffers(Hook):
    def before_run(self, runner):
        runner.model.module.backbone.register_buffer('mean_of_mine', torch.zeros(3))


@pytest.mark.parametrize(('lines', 'parts'), [
    ("custom_hooks = [dict(type='GivesBuffers')]", ['GivesBuffers', 'backbone.mean_of_mine', 'could not be loaded']),
    ("log_config = dict(hooks=[dict(type='WandbLoggerHook')])", ['log_config: WandbLoggerHook: ', 'pip install wandb']),
])
def test_hooks(fails, tiny_configs, trained, tmp_path, monkeypatch, lines, parts):
    """They are tried before a file of an earlier run is touched."""
    monkeypatch.setitem(sys.modules, 'wandb', None)  # as where it is not installed
    (tmp_path / 'hooks.py').write_text(f"_base_ = {str(tiny_configs['inductive'])!r}\n{lines}\n")
    folder = shutil.copytree(trained, tmp_path / 'work')
    before = sorted(file.name for file in folder.glob('*.pth'))
    error = fails(TRAIN, tmp_path / 'hooks.py', '--work-dir', folder)
    for part in parts:
        assert part in error
    assert sorted(file.name for file in folder.glob('*.pth')) == before and not list(folder.glob('earlier_*'))


# ---- options

OPTIONS = [
    (FLOPS, ['--shape', 60, 64], ['60x64', 'whole patches of 16x16']),
    (TEST, ['--eval', 'mBoundary'], ['mBoundary', 'mIoU']), (TEST, [], ['--eval mIoU']),
    (TEST, ['--out', 'maps.txt'], ['.pkl']), (TEST, ['--eval', 'mIoU', '--format-only'], ['--eval', '--format-only']),
    (TRAIN, ['--total-batch-size', 3], ['3', 'not a multiple of 2', 'data.samples_per_gpu']),
    (TRAIN, ['--gpu-id', 0], ['a GPU was asked for', '--device cpu']),
    (TRAIN, ['--resume-from', 'nowhere.pth'], ['nowhere.pth']),
    (TRAIN, ['--launcher', 'pytorch'], ['dist_train.sh']),
    *((TRAIN, ['--cfg-options', *options.split()], parts) for options, parts in [
        ('evaluation.metric=mBoundary', ['mBoundary', 'mIoU']),
        ('evaluation.save_best=hiou', ['hiou', 'hIoU']),
        ('evaluation.intervall=5', ['evaluation has no intervall', 'save_best']),
        ('evaluation=3', ['evaluation=3: a dict is needed']),
        ('modle.decode_head.num_layers=2', ["no 'modle'", 'model']),
        ('model.type=CLIPCR', ['CLIPCR']),
        ('data.samples_per_gpu=two', ["data.samples_per_gpu='two'", 'integer of at least 1']),
        ('runner.max_iter=3', ['runner has no max_iter;', 'max_iters']),
        ('runner.max_iters=-5', ['runner.max_iters=-5']),
        ('optimizer.type=AdamX', ['optimizer', 'AdamX']),
        ('lr_config.policy=polly', ['lr_config', 'Polly']),
        ('optimizer_config.grad_clp.max_norm=1', ['optimizer_config', 'grad_clp']),
        ('optimizer.lr=-1', ['optimizer: AdamW: Invalid learning rate: -1']),
        ('lr_config.by_epoch=True', ['lr_config.by_epoch=True', 'no epochs']),
        ('data.train.pipeline.2.type=NoStep', ['data.train: ', 'NoStep is not in the pipeline']),
        ('optimizer_config.type=Fp16OptimizerHook', ['Fp16OptimizerHook', "use amp=dict(dtype='float16')"]),
        ('amp.dtype=float16 optimizer_config.loss_scale=-1', ['loss_scale=-1', 'dynamic']),
        ('amp.dtype=float16 optimizer_config.type=MyHook', ['MyHook', 'ScaledOptimizerHook']),
        ('amp.dtype=bfloat8', ["amp=dict(dtype='bfloat16')"]),
        ('amp=bfloat16', ["amp=dict(dtype='bfloat16')"]),
        ('seed=a', ["seed='a'"]),
        ('crop=(96,96)', ["'crop' is a helper variable", 'data, '])]),
]


@pytest.mark.parametrize(('script', 'options', 'parts'), OPTIONS)
def test_options(fails, tiny_configs, trained, tmp_path, script, options, parts):
    arguments = {TRAIN: ['--work-dir', tmp_path / 'work'], TEST: [trained / 'iter_2.pth'], FLOPS: []}
    error = fails(script, tiny_configs['inductive'], *arguments[script], *options)
    for part in parts:
        assert part in error
    assert not list(tmp_path.glob('work/iter_*.pth')), 'it trained before it looked'


# ---- data

DATA = [
    ('JPEGImages', shutil.rmtree, 'no folder'),
    ('ImageSets/Segmentation/{}.txt', lambda path: path.unlink(), 'no split file'),
    ('SegmentationClass/{}_000.png', lambda path: path.unlink(), 'mask missing'),
    ('JPEGImages/{}_000.jpg', lambda path: path.write_bytes(path.read_bytes()[:900]), 'broken image'),
    ('SegmentationClass/{}_000.png', lambda path: Image.new('L', (96, 72), 99).save(path), 'out of range'),
]


@pytest.mark.parametrize(('name', 'spoil', 'parts'), DATA, ids=[f'{row[0]}-{row[2]}' for row in DATA])
def test_data(fails, tiny_configs, trained, tmp_path, root, name, spoil, parts):
    for split in ('train', 'val'):
        if (root / name.format(split)).exists():
            spoil(root / name.format(split))
    places = ['--data-root', root, '--work-dir', tmp_path / 'work']
    errors = {'val': fails(TEST, tiny_configs['inductive'], trained / 'iter_2.pth', '--eval', 'mIoU', *places),
              'train': fails(TRAIN, tiny_configs['inductive'], *places)}
    for split, error in errors.items():
        assert parts in error
        assert all(part in error for part in str(root / name.format(split)).rsplit('/', 1))
    assert not list((tmp_path / 'work').rglob('eval_*.json')), 'scores in spite of the error'


# ---- nothing is lost

@pytest.mark.parametrize('options', [
    ['--cfg-options', 'data.train.pipeline.3.crop_size=(96,96)'], ['--data-root', 'nowhere']])
def test_a_run_that_fails_leaves_what_an_earlier_one_wrote(fails, tiny_configs, trained, tmp_path, options):
    shutil.copytree(trained, tmp_path / 'work', symlinks=True)
    before = {path: path.read_bytes() for path in (tmp_path / 'work').rglob('*') if path.is_file()}
    fails(TRAIN, tiny_configs['inductive'], '--work-dir', tmp_path / 'work', *options)
    changed = [path.name for path, content in before.items() if path.read_bytes() != content]
    assert changed == []


def test_where_results_go_is_tried_first(fails, tiny_configs, trained, tmp_path):
    """Not after an hour of testing."""
    (tmp_path / 'file').touch()
    error = fails(TEST, tiny_configs['inductive'], trained / 'iter_2.pth', '--eval', 'mIoU', '--work-dir',
                  tmp_path / 'work', '--out', tmp_path / 'file' / 'maps.pkl', '--show-dir', tmp_path / 'show')
    assert str(tmp_path / 'file') in error
    assert not list(tmp_path.glob('show/*')), 'it tested before it looked'


# ---- as processes of their own

def test_an_error_of_a_loader_worker(run, tiny_configs, tmp_path, root):
    for image in (root / 'JPEGImages').glob('train_*.jpg'):
        image.write_bytes(image.read_bytes()[:900])
    done = run(TRAIN, tiny_configs['inductive'], '--work-dir', tmp_path, '--data-root', root, '--cfg-options',
               'data.workers_per_gpu=2', check=False)
    assert done.returncode == 1 and 'Traceback' not in done.stdout + done.stderr
    error = done.stderr.split('error: ', 1)[1]
    assert error.startswith(f'{root}/JPEGImages/train_00') and 'broken image' in error and 'error: ' not in error


def test_an_error_among_several_processes(run, tiny_configs, tmp_path):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    done = run('dist_train.sh', tiny_configs['inductive'], tmp_path, 2, '--data-root', tmp_path / 'nowhere',
               check=False, env={'PORT': port}, timeout=100)
    assert done.returncode != 0
    lines = done.stderr.splitlines()
    errors = [line for line in lines if line.startswith('error: ')]
    assert errors and all('no folder' in line and str(tmp_path / 'nowhere') in line for line in errors)
    assert lines.index(errors[0]) < len(lines) - 1 and 'ChildFailedError' in done.stderr, "torchrun's summary follows"
