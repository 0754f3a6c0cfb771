"""The commands end to end: train, test and count, on one and on two processes."""
import argparse
import hashlib
import json
import math
import pickle
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import REPOSITORY, logged
from tests.tools.one_process import torchrun
from tools.engine.panels import MARGIN, TITLE
from tools.results.runs import FACTS
from tools.testing import run as testing

NO_CLIP = ['--cfg-options', 'model.pretrained=nowhere.pt', 'model.pretrained_text=nowhere.pt']
SCORES = ['aAcc', 'mIoU', 'mAcc', 'mIoU_seen', 'mIoU_unseen', 'hIoU']


def losses(folder: Path) -> dict[int, dict[str, float]]:
    """Iteration -> losses."""
    return {entry['iter']: {key: value for key, value in entry.items() if 'loss' in key} for entry in logged(folder)}


def log(folder: Path) -> str:
    return max(folder.glob('*.log')).read_text()


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def scores_of(folder: Path, name: str = 'single') -> dict:
    [file] = folder.glob(f'eval_{name}_scale_*.json')
    return json.loads(file.read_text())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.fixture(scope='session')
def decoys(tmp_path_factory) -> dict[str, str]:
    """An environment in which packages named like ours are installed."""
    folder = tmp_path_factory.mktemp('decoys')
    for name in ('datasets', 'models', 'tools', 'configs'):
        (folder / name).mkdir()
        (folder / name / '__init__.py').write_text(f'raise ImportError("the decoy of {name}")\n')
    return {'PYTHONPATH': str(folder)}


@pytest.fixture(scope='module')
def opinionated(trained, tmp_path_factory) -> Path:
    """A checkpoint that predicts several classes in an image; a real one of four iterations does not."""
    checkpoint = load(trained / 'iter_4.pth')
    generator = torch.Generator().manual_seed(0)
    for name, tensor in checkpoint['state_dict'].items():
        if name.startswith('decode_head') and tensor.ndim == 2:
            tensor += torch.randn(tensor.shape, generator=generator)
    path = tmp_path_factory.mktemp('opinionated') / 'it.pth'
    torch.save(checkpoint, path)
    return path


# ---- training

def test_what_a_run_leaves(trained, tiny_configs):
    names = {path.name for path in trained.iterdir()}
    assert {'iter_2.pth', 'iter_4.pth', 'latest.pth', 'tf_logs', tiny_configs['inductive'].name} <= names
    assert (trained / 'latest.pth').resolve().name == 'iter_4.pth'
    assert [path for path in (trained / 'tf_logs').iterdir() if 'tfevents' in path.name]
    text = log(trained)
    assert 'total batch: 2 images' in text and "the config's: 16 (published)" in text
    assert 'eta: ' in text and 'Iter [4/4]' in text and 'before_train_epoch' not in text, "mmcv's table of hooks"
    assert 'setting: inductive; 15 of 20 classes seen' in text
    by_iteration = losses(trained)
    assert list(by_iteration) == [1, 2, 3, 4]
    assert set(by_iteration[1]) == {'loss', *(f'decode.{name}' for name in (
        'loss_mask', 'loss_dice', 'recovery_loss_q', 'recovery_loss_k'))}
    assert all(math.isfinite(value) for values in by_iteration.values() for value in values.values())


def test_what_a_checkpoint_holds(trained):
    checkpoint = load(trained / 'iter_2.pth')
    assert {name.split('.')[0] for name in checkpoint['state_dict']} == {'backbone', 'decode_head'}
    assert not [name for name in checkpoint['state_dict'] if 'self_attn' in name or 'norm1' in name]
    meta = checkpoint['meta']
    assert (meta['seed'], meta['clip_rc']['format']) == (3, 1)
    assert meta['clip_rc']['split']['unseen'] == ['pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor']
    assert meta['clip_rc']['config']['seed'] == 3
    json.dumps(meta['clip_rc'], allow_nan=False)


def test_the_same_seed_gives_the_same_losses_with_other_workers(call, trained, tiny_configs, tmp_path):
    call('tools/train.py', tiny_configs['inductive'], '--work-dir', tmp_path, '--seed', 3, '--cfg-options',
        'data.workers_per_gpu=2', 'evaluation.interval=2', 'evaluation.save_best=hIoU', 'evaluation.metric=mIoU')
    again, first = losses(tmp_path), losses(trained)
    for iteration in (1, 2):
        assert again[iteration] == pytest.approx(first[iteration], rel=1e-5)
    evaluations = logged(tmp_path, 'val')
    assert len(evaluations) == 2 and set(SCORES) <= set(evaluations[0])


def test_transductive_from_an_inductive_checkpoint(call, trained, tiny_configs, tmp_path):
    call('tools/train.py', tiny_configs['transductive'], '--work-dir', tmp_path, '--load-from', trained / 'iter_2.pth',
        '--no-validate', '--seed', 1, *NO_CLIP)
    text = log(tmp_path)
    assert 'setting: transductive; 15 of 20 classes seen' in text
    assert f'weights: {trained / "iter_2.pth"}' in text
    assert list(losses(tmp_path)) == [1, 2, 3, 4], 'only the weights are taken'
    assert load(tmp_path / 'iter_4.pth')['meta']['clip_rc']['setting'] == 'transductive'


def test_fully_supervised_among_decoys(run, tiny_configs, tmp_path, decoys):
    """With --auto-resume and nothing to resume, in an environment with packages named like ours."""
    run('tools/train.py', tiny_configs['fully'], '--work-dir', tmp_path, '--auto-resume', env=decoys)
    assert 'setting: fully_supervised; 20 of 20 classes seen' in log(tmp_path)
    assert set(losses(tmp_path)[4]) == {'loss', 'decode.loss_mask', 'decode.loss_dice'}
    assert not [name for name in load(tmp_path / 'iter_4.pth')['state_dict'] if 'recovery' in name]


# ---- testing

def test_a_checkpoint_is_tested_alone(call, tiny_configs, trained, tmp_path, voc_root):
    (tmp_path / 'copied').mkdir()
    shutil.copy(trained / 'iter_4.pth', tmp_path / 'copied')
    done = call('test.py', tiny_configs['inductive'], tmp_path / 'copied' / 'iter_4.pth', '--eval', 'mIoU',
                '--show-dir', tmp_path / 'show', '--out', tmp_path / 'maps.pkl', *NO_CLIP)
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in (done.stdout + done.stderr).splitlines()
            if line.startswith('|')]
    assert [row[0] for row in rows[-6:]] == [name.replace('_', ' ') for name in SCORES], 'the table comes last'
    assert [row[1] for row in rows[1:21]] == ['seen'] * 15 + ['unseen'] * 5
    assert re.search(r' 3 images, [\d.]+ (images/s|s/image)', done.stderr) and '\r' not in done.stderr, 'no bar'

    written = scores_of(tmp_path / 'copied' / 'eval_results')
    identity = written.pop('identity')
    assert identity['checkpoint'] == hashlib.sha256((trained / 'iter_4.pth').read_bytes()).hexdigest()
    assert {*identity} == {'checkpoint', 'settings', 'data'}
    assert {key: value for key, value in written.items() if key != 'metric'} == {
        'config': str(tiny_configs['inductive']), 'checkpoint': str(tmp_path / 'copied' / 'iter_4.pth'), 'iteration': 4,
        'data_root': str(voc_root), 'images': 3, 'protocol': 'voc12', 'setting': 'inductive', 'own_modules': [],
        'unseen_names': ['pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor'], 'trained_parameters': 116960,
        'prompt_set': 'single', 'text_embeddings': None, 'background': []}
    assert FACTS <= written.keys(), 'summarize.py needs more'
    assert list(written['metric'])[:6] == SCORES and len(written['metric']) == 6 + 2 * 20
    for row in rows[-6:]:
        assert float(row[2]) == written['metric'][row[0].replace(' ', '_')]

    maps = pickle.loads((tmp_path / 'maps.pkl').read_bytes())
    assert [labels.shape for labels in maps] == [(72, 96)] * 3 and maps[0].dtype == np.uint8
    assert sorted(path.name for path in (tmp_path / 'show').iterdir()) == [f'val_00{i}.png' for i in range(3)]
    for path in (tmp_path / 'show').iterdir():
        with Image.open(path) as drawn:
            drawn.load()
            assert drawn.mode == 'RGB' and drawn.width == 3 * (96 + MARGIN) + MARGIN, 'three panels'
            assert drawn.height > TITLE * 1.5 + 72 + 2 * MARGIN, 'a title and a legend'


def test_label_files_for_a_test_server(call, tiny_configs, opinionated, tmp_path):
    call('test.py', tiny_configs['transductive'], opinionated, '--format-only', '--out', tmp_path / 'maps.pkl',
        '--work-dir', tmp_path)
    maps = pickle.loads((tmp_path / 'maps.pkl').read_bytes())
    assert len({int(label) for labels in maps for label in np.unique(labels)}) > 3, 'the case is too easy'
    for index, labels in enumerate(maps):
        written = np.asarray(Image.open(tmp_path / f'format_results/val_00{index}.png'))
        np.testing.assert_array_equal(written, labels + 1)


def test_several_scales_and_several_metrics(call, tiny_configs, opinionated, tmp_path):
    call('test.py', tiny_configs['transductive'], opinionated, '--aug-test', '--eval', 'mIoU', 'mDice', '--work-dir',
        tmp_path)
    metric = scores_of(tmp_path, 'multi')['metric']
    assert {'mIoU', 'mDice', 'hIoU', 'Dice.cat', 'IoU.cat'} <= set(metric)


@pytest.mark.parametrize('settings', [
    ['amp.dtype=bfloat16'], ['amp.dtype=float16'], ['model.test_cfg.mode=slide', 'model.test_cfg.windows_per_batch=3'],
    ['model.test_cfg.mode=whole', 'model.test_cfg.windows_per_batch=3']])
def test_settings_of_a_test(call, tiny_configs, trained, tmp_path, settings):
    call('test.py', tiny_configs['inductive'], trained / 'latest.pth', '--eval', 'mIoU', '--work-dir', tmp_path,
         '--cfg-options', *settings)
    assert scores_of(tmp_path)['metric'].keys() >= {*SCORES}


def test_flops_among_decoys(run, tiny_configs, decoys):
    assert '| total' in run('get_flops.py', tiny_configs['inductive'], '--shape', 64, 64, '--fvcore', env=decoys).stdout


def test_another_dataset_without_training(call, tiny_configs, opinionated, tmp_path, voc_root):
    """Other names for the same images, every class counts as seen; the table has no sides."""
    config = tmp_path / 'cross.py'
    names = [f'thing {index}' for index in range(20)]
    config.write_text(f"_base_ = '{tiny_configs['inductive']}'\ncross_dataset = True\n"
                      f"data = dict(test=dict(type='ZeroShotDataset', classes={names}, unseen=[], prompt_set='coco15', "
                      "reduce_zero_label=True))\n")
    done = call('test.py', config, opinionated, '--eval', 'mIoU', '--work-dir', tmp_path)
    tested = scores_of(tmp_path)
    assert (tested['prompt_set'], tested['text_embeddings']) == ('coco15', None)
    scores = tested['metric']
    assert tested['overlap'] == {'known': {}, 'new': names, 'training': {
        'setting': 'inductive', 'dataset': 'PascalVOC20', 'classes': 20, 'classes_used': 15}}
    assert scores['mIoU_known'] is None and scores['mIoU_new'] == scores['mIoU']
    assert scores['mIoU_unseen'] is scores['hIoU'] is None and scores['mIoU_seen'] == scores['mIoU']
    assert "20 classes with the prompt set 'coco15'" in done.stderr, 'the embeddings of the training were used'
    assert 'setting' not in done.stderr and 'unseen ' not in done.stderr.split('| class')[1]
    rows, own = tmp_path / 'rows.npy', tmp_path / 'own'
    np.save(rows, np.eye(20, 32, dtype=np.float32))
    call('test.py', config, opinionated, '--eval', 'mIoU', '--work-dir', own, '--cfg-options',
         f'model.load_text_embedding={rows}')
    assert (scores_of(own)['prompt_set'], scores_of(own)['text_embeddings']) == (None, str(rows))
    refused = call('tools/train.py', config, '--work-dir', tmp_path / 'work', check=False)
    assert refused.returncode == 1 and 'train with a config of configs/coco' in refused.stderr


@pytest.mark.parametrize('script', [
    'dist_train.sh', 'tools/reproduce.sh', 'tools/open_vocabulary.sh', 'tools/quickstart.sh', 'tools/setup_env.sh',
    'tests/gpu.sh'])
def test_help_of_shell_scripts(run, script):
    said = run(script, '--help').stdout
    assert said.startswith(('bash ', 'Makes')) and 'pipefail' not in said


def test_the_measurement_of_gpus_in_small(run, tmp_path):
    done = run('tests/gpu.py', '--dry-run', '--out', tmp_path)
    report = json.loads((tmp_path / 'gpu.json').read_text())
    assert [(row['config'], row['job'], row['batch']) for row in report['rows']] == [
        (config, job, batch) for config in ('VOC', 'COCO-Stuff') for batch in (1, 2) for job in ('training', 'testing')]
    assert all(row['images_per_second'] > 0 and row['speed_ratio'] > 0 for row in report['rows'])
    assert done.stdout.count('| VOC, training |') == 2


# ---- several processes

def test_two_processes_score_as_one(call, tiny_configs, opinionated, tmp_path):
    """Three images: one of the processes sees an image too many."""
    arguments = [tiny_configs['transductive'], opinionated, '--eval', 'mIoU']
    two = ['--out', tmp_path / 'two.pkl', '--work-dir', tmp_path / 'two']
    torchrun(2, REPOSITORY / 'test.py', *arguments, *two, '--launcher', 'pytorch')
    call('test.py', *arguments, '--out', tmp_path / 'one.pkl', '--work-dir', tmp_path / 'one')
    one, two = (scores_of(tmp_path / name) for name in ('one', 'two'))
    assert one['metric']['mIoU'] > 0, 'the case is too easy'
    assert one == two
    maps = [pickle.loads((tmp_path / f'{name}.pkl').read_bytes()) for name in ('one', 'two')]
    for alone, shared in zip(*maps, strict=True):
        np.testing.assert_array_equal(alone, shared)


def test_scores_of_one_second_have_files_of_their_own(tmp_path, monkeypatch):
    """Of tests in one folder that end together."""
    monkeypatch.setattr(testing.time, 'strftime', lambda form: '20260101_000000')
    files = [testing.write_scores({'mIoU': score}, {}, argparse.Namespace(aug_test=False), tmp_path)
             for score in (0.1, 0.2, float('nan'))]
    assert [json.loads(file.read_text())['metric']['mIoU'] for file in files] == [0.1, 0.2, None]
    assert [file.stem.removeprefix('eval_single_scale_20260101_000000') for file in files] == ['', '_2', '_3']
