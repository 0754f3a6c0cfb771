"""Loader workers that die are reported with what they were at, wherever the main thread then is."""
import gc
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from mmcv import Config
from mmseg.datasets import build_dataset

from datasets import whereabouts
from tools.engine.data import evaluation_loader, training_loader
from tools.engine.process import Place
from tools.engine.workers import WorkerDied

CPU = Place(torch.device('cpu'))


def config_of(tiny_configs, workers: int = 1) -> Config:
    config = Config.fromfile(str(tiny_configs['inductive']))
    config.data.workers_per_gpu = workers
    return config


@pytest.mark.parametrize('where', ['in the loader', 'elsewhere'])
def test_a_worker_that_is_killed(tiny_configs, where):
    loader = training_loader(config_of(tiny_configs), CPU, seed=0, start=0)
    batches = iter(loader)
    next(batches)
    there = loader.board.rows[0].read()
    with pytest.raises(WorkerDied) as caught:
        if where == 'in the loader':
            os.kill(there.process, signal.SIGSTOP)  # it delivers no more than what is there
            threading.Timer(1, os.kill, (there.process, signal.SIGKILL)).start()
            while True:
                next(batches)
        else:
            os.kill(there.process, signal.SIGKILL)
            time.sleep(5)
    message = str(caught.value)
    assert message.startswith(f'loader worker 0 (process {there.process}) was killed by a signal (Killed)')
    assert '/JPEGImages/' in message and '.jpg, ' in message and '/SegmentationClass' in message
    assert 'out of memory' in message and 'data.workers_per_gpu=N' in message


def test_an_error_of_a_worker_is_what_it_was(tiny_configs):
    loader = training_loader(config_of(tiny_configs), CPU, seed=0, start=0)
    part = loader.dataset.dataset
    for dataset in getattr(part, 'datasets', [part]):
        dataset.pre_pipeline = fail
    with pytest.raises(RuntimeError, match='mine') as caught:
        next(iter(loader))
    assert caught.value.__cause__ is None


def fail(results):
    raise RuntimeError('mine')


def test_workers_stay_from_one_pass_to_the_next(tiny_configs):
    config = config_of(tiny_configs)
    loader = evaluation_loader(config, build_dataset(config.data.test, {'test_mode': True}), CPU)
    passes = []
    for _ in range(2):
        assert len(list(loader)) == 3
        passes.append(loader.board.rows[0].read())
    assert passes[0].process == passes[1].process != os.getpid()
    assert not passes[1].loading and passes[1].files.endswith('JPEGImages/val_002.jpg'), 'a test needs no mask'


@pytest.mark.parametrize(('way', 'words'), [('is_killed', 'was killed by a signal (Killed)'),
                                            ('crashes', 'was killed by a signal (Segmentation fault)'),
                                            ('leaves', 'exited unexpectedly with exit code 7')])
def test_training(run, troubled, tmp_path, way, words):
    done = run('tools/train.py', troubled(way, workers=1), '--work-dir', tmp_path / 'work', '--no-validate',
               check=False)
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    error, *stack = done.stderr.partition('error: ')[2].splitlines()
    assert error.startswith('loader worker 0 (process ') and words in error
    assert ' while it loaded ' in error and '.jpg, ' in error and '.png. ' in error
    assert any('in crashes' in line for line in stack) == bool(stack) == (way == 'crashes')


def test_testing(run, troubled, trained, tmp_path):
    done = run('test.py', troubled('is_killed', part='test', after=1, workers=1), trained / 'latest.pth', '--eval',
               'mIoU', '--work-dir', tmp_path, check=False)
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    assert error.startswith('error: loader worker 0 (process ') and 'while it loaded ' in error
    assert 'JPEGImages/val_001.jpg. Most likely the machine, or the job, was out of memory' in error


def test_stacks_of_a_worker_that_lives(tiny_configs):
    loader = training_loader(config_of(tiny_configs), CPU, seed=0, start=0)
    batches = iter(loader)
    next(batches)
    time.sleep(1)
    assert 'worker.py' in loader.board.stack_of(0, patience=0.5)
    next(batches)  # it lives on


def test_what_a_process_is_at():
    with pytest.raises(ValueError), whereabouts.at('a.jpg', 'ä.png'):
        there = whereabouts.own()
        assert there[:2] == (os.getpid(), True) and there.files == 'a.jpg, ä.png'
        raise ValueError
    assert not whereabouts.own().loading and whereabouts.own().files == 'a.jpg, ä.png'
    with whereabouts.at('x' * 100_000):
        assert set(whereabouts.own().files) == {'x'}


def test_boards_go_with_their_loaders(tiny_configs):
    def opened() -> int:
        return len(list(Path('/proc/self/fd').iterdir()))

    counts = []
    for _ in range(3):
        batches = iter(training_loader(config_of(tiny_configs), CPU, seed=0, start=0))
        next(batches)
        del batches
        gc.collect()
        counts.append((opened(), len(whereabouts.BOARDS)))
    assert counts[0] == counts[1] == counts[2]
