"""Training on a GPU, as a user starts it. `bash tests/gpu.sh` runs these tests and the other ones marked gpu.

With GPU_TESTS_ON=cpu they run on a CPU, which shows that the tests themselves work.
"""
import math
import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import GPU, REPOSITORY, logged

pytestmark = pytest.mark.gpu
ITERATIONS = 8


@pytest.fixture(scope='module')
def config(tiny_configs, tmp_path_factory) -> dict[str, Path]:
    """The tiny configs, with a log of text alone and an error for host reads."""
    folder = tmp_path_factory.mktemp('gpu')
    shutil.copy(REPOSITORY / 'tests/host_reads.py', folder / 'host_reads.py')
    for setting, base in tiny_configs.items():
        (folder / f'{setting}.py').write_text(
            f'_base_ = {str(base)!r}\n'
            "log_config = dict(interval=4, hooks=[dict(type='TextLoggerHook')])\n"
            f'runner = dict(max_iters={ITERATIONS})\ncheckpoint_config = dict(interval=4)\n'
            "custom_imports = dict(imports=['host_reads'])\n"
            "custom_hooks = [dict(type='NoHostReads', priority=45)]\n")
    return {setting: folder / f'{setting}.py' for setting in tiny_configs}


@pytest.fixture(scope='module')
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('work')


@pytest.fixture(scope='module')
def train(run, work):
    """Trains in a folder; returns the weights and the log."""
    def train(config: Path, name: str, *options, settings=(), script='tools/train.py') -> tuple[dict, list[dict]]:
        folder = work / name
        start = [config, '--work-dir', folder] if script.endswith('.py') else [config, folder]
        more = ['--cfg-options', *settings] if settings else []
        run(script, *start, *options, '--device', GPU, '--seed', 3, '--no-validate', *more)
        return torch.load(folder / 'latest.pth', map_location='cpu', weights_only=True)['state_dict'], logged(folder)

    return train


@pytest.fixture(scope='module')
def usual(train, config) -> list[dict]:
    """The log of a training in float32."""
    return train(config['inductive'], 'usual')[1]


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize('setting', ['inductive', 'transductive', 'fully'])
def test_training_without_a_wait_of_the_host(train, config, setting):
    """NoHostReads ends a run whose iteration waits for the GPU; each number of the log is finite."""
    _, log = train(config[setting], setting)
    assert len(log) == ITERATIONS // 4
    assert all(math.isfinite(value) for entry in log for key, value in entry.items() if 'loss' in key)


@pytest.mark.parametrize('settings', [
    ['amp.dtype=bfloat16'], ['amp.dtype=float16', 'optimizer_config.loss_scale=128'], ['tf32=True'],
    ['model.backbone.with_cp=True', 'model.decode_head.with_cp=True']], ids=' '.join)
def test_number_types_and_checkpointing(train, config, usual, settings):
    """Losses are near those of float32. (With its usual scale of losses, float16 skips the first steps.)"""
    _, log = train(config['inductive'], settings[0], settings=settings)
    assert log[-1]['loss'] == pytest.approx(usual[-1]['loss'], rel=0.1)


def test_deterministic_runs_are_equal_and_a_resumed_one_too(train, config, work):
    weights, _ = train(config['inductive'], 'one', '--deterministic')
    again, _ = train(config['inductive'], 'two', '--deterministic')
    assert same(weights, again)
    resumed, _ = train(config['inductive'], 'three', '--deterministic', '--resume-from', work / 'one/iter_4.pth')
    assert same(weights, resumed)


@pytest.mark.parametrize('processes', [1, 2])
def test_processes(train, config, processes):
    """With NCCL; with two processes each one has half of the images of a step."""
    if GPU == 'cuda' and torch.cuda.device_count() < processes:
        pytest.skip(f'fewer than {processes} GPUs')
    _, log = train(config['inductive'], f'many_{processes}', processes, script='dist_train.sh')
    assert len(log) == ITERATIONS // 4 and all(math.isfinite(entry['loss']) for entry in log)
