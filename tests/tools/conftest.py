"""Runs commands in this process: quicker than a process of their own by the seconds of the imports."""
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.conftest import forget_loggers
from tests.tools.training import TWO_PROCESSES, Run


@pytest.fixture
def output(call):
    """Calls a command, see `call`; returns its stdout and stderr together."""
    def output(script: str, *arguments) -> str:
        done = call(script, *arguments)
        return done.stdout + done.stderr
    return output


@pytest.fixture
def train_here(monkeypatch, tiny_configs, cache):
    monkeypatch.setenv('CLIPRC_CACHE', str(cache))
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)
    forget_loggers()
    return Run(monkeypatch, tiny_configs['inductive'])


@pytest.fixture
def in_one_of_two(train_here, monkeypatch) -> Iterator[Path]:
    """The folder of two processes, in each of which pytest runs; `train_here` trains in both together."""
    config, folder = map(Path, os.environ[TWO_PROCESSES].split(os.pathsep))
    initialise = dist.init_process_group
    monkeypatch.setattr(dist, 'init_process_group',
                        lambda *args, **kwargs: dist.is_initialized() or initialise(*args, **kwargs))
    train_here.config, train_here.options = config, ['--launcher', 'pytorch']
    yield folder
