"""Training in this process: quicker than a process of its own by the seconds of the imports."""
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from tests.tools.one_process import torchrun
from tools import train
from tools.engine import errors, runner

ITERATIONS = 11
TWO_PROCESSES = 'TWO_PROCESSES'  # environment variable of each of two processes: config and folder


class Run:
    """Train in this process, with evaluations if a setting is about them.

    `at` maps iterations (from 1) to functions that are called just before them.
    """

    def __init__(self, monkeypatch, config: Path):
        self.monkeypatch, self.config, self.options = monkeypatch, config, []

    def __call__(self, folder: Path, *options, at=None, settings=()) -> dict[int, dict[str, float]]:
        """Give the losses by iteration; a signal that stopped the run is in `ended`."""
        losses, at, train_once = {}, at or {}, runner.TrainingRunner.train

        def spied(this, *args, **kwargs):
            number = this.iter + 1
            at.get(number, lambda: None)()
            try:
                train_once(this, *args, **kwargs)
            finally:
                if hasattr(this, 'outputs'):
                    losses[number] = {
                        name: value.numpy().item() for name, value in this.outputs['log_vars'].items()}

        self.ended = None
        if not any(setting.startswith('evaluation.') for setting in settings):
            options = *options, '--no-validate'
        options = *options, *self.options
        settings = [f'runner.max_iters={ITERATIONS}', 'checkpoint_config.interval=100', *settings]
        with self.monkeypatch.context() as patch:
            patch.setattr(runner.TrainingRunner, 'train', spied)
            patch.setattr(sys, 'argv', ['train.py', *map(str, (
                self.config, '--work-dir', folder, '--seed', 3, '--hang-timeout', 0, *options,
                '--cfg-options', *settings))])
            try:
                train.main()
            except errors.Stopped as stopped:
                self.ended = stopped
            finally:
                errors.AT_END.close()
        return losses


def ask(number: int = signal.SIGTERM) -> Callable[[], None]:
    """Give a function that sends a signal to this process."""
    return lambda: os.kill(os.getpid(), number)


def content(folder: Path, name: str = f'iter_{ITERATIONS}.pth') -> dict:
    return torch.load(folder / name, weights_only=True)


def in_two_processes(file: str, config: Path, folder: Path, cache: Path) -> None:
    """Run the tests of a file that take `in_one_of_two` with pytest, in each of two processes."""
    torchrun(2, '-m', 'pytest', '-p', 'no:xdist', '-k', 'in_one_of_two', file,
             env={TWO_PROCESSES: f'{config}{os.pathsep}{folder}', 'PYTEST_ADDOPTS': '', 'CLIPRC_CACHE': str(cache)})
