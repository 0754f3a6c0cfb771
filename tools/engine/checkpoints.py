"""Checkpoints of a training run: complete or absent, with everything that resuming needs.

A file holds `state_dict`, `optimizer` and `meta` as mmcv's do, and `random_states`, one for each process.
"""
import random
import re
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmcv.runner import BaseRunner, CheckpointHook

from models.errors import UserError
from tools.engine.files import atomic_path
from tools.engine.process import Place, gather
from tools.engine.run_folder import LATEST, STOPPED, iterations_of, numbered, point_latest_to


def write(content: dict, path: Path) -> None:
    """Write a checkpoint so that `path` is complete or absent, and read it back.

    Raises:
        OSError: it can't be written, or reads back differently.
    """
    try:
        with atomic_path(path) as part:
            with part.open('wb') as file:  # given a path, torch.save hides the errors of a disk
                torch.save(content, file)
            with zipfile.ZipFile(part) as archive:
                if damaged := archive.testzip():
                    raise OSError(f'{path} does not read back as it was written ({damaged}): the disk may be failing')
    except (OSError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError) and cause.errno:
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise


def random_state(device: torch.device) -> dict:
    """Return the state of every random generator of this process, as plain values and tensors."""
    name, keys, *rest = np.random.get_state()
    state = {'python': random.getstate(), 'numpy': (name, keys.tolist(), *rest), 'torch': torch.get_rng_state()}
    return {**state, 'cuda': torch.cuda.get_rng_state(device)} if device.type == 'cuda' else state


def set_random_state(state: dict, device: torch.device) -> None:
    """Restore the states of `random_state`."""
    random.setstate(state['python'])
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['torch'])
    if device.type == 'cuda' and 'cuda' in state:
        torch.cuda.set_rng_state(state['cuda'], device)


class Checkpoints(CheckpointHook):
    """Save checkpoints by `write`, with random states; `max_keep_ckpts` removes the oldest, never `best_*.pth`."""

    def __init__(self, place: Place, *, filename_tmpl: str = 'iter_{}.pth', create_symlink: bool = True, **options):
        super().__init__(**{'by_epoch': False, **options})
        if not re.fullmatch(r'[^{}/]*_\{\}\.pth', filename_tmpl):
            raise UserError(f'checkpoint_config.filename_tmpl={filename_tmpl!r}: it must end in _{{}}.pth, because '
                            'resuming finds checkpoints by their numbers.')
        self.place, self.template, self.linked = place, filename_tmpl, create_symlink
        self.saved = 0  # iterations done at the last checkpoint

    def before_run(self, runner: BaseRunner) -> None:
        super().before_run(runner)
        self.saved = runner.iter
        if self.place.rank == 0:
            for part in Path(self.out_dir).glob('.*.part.*'):  # unfinished files of a run that was killed
                part.unlink(missing_ok=True)
            resumed = runner.last_good and runner.last_good.resolve()
            if resumed and resumed.parent == Path(self.out_dir).resolve() and not resumed.name.startswith('best'):
                self.link(runner, resumed)  # the run may have been killed between checkpoint and link

    def after_train_iter(self, runner: BaseRunner) -> None:
        if self.every_n_iters(runner, self.interval) or (self.save_last and self.is_last_iter(runner)):
            self.save_newest(runner, self.template, done=runner.iter + 1)

    def save_newest(self, runner: BaseRunner, template: str, done: int) -> None:
        """Write a checkpoint after `done` iterations, link `latest.pth` to it, and remove older ones."""
        path = Path(self.out_dir) / template.format(done)
        runner.meta['hook_msgs']['last_ckpt'] = str(path)
        self.save(runner, path, done)
        if self.place.rank == 0:
            self.link(runner, path)
            self.remove_others(path, done)
        self.saved = done

    def save(self, runner: BaseRunner, path: Path, done: int) -> None:
        """Write a checkpoint after `done` iterations; all processes must call it."""
        runner.check_weights(done)
        states = gather(random_state(self.place.device), self.place)
        if self.place.rank == 0:
            weights = getattr(runner.model, 'module', runner.model).state_dict()
            scaler = {} if runner.scaler is None else {'grad_scaler': runner.scaler.state_dict()}
            meta = {**runner.meta, **scaler, 'epoch': 1, 'iter': done - 1, 'progress': runner.progress(done),
                    'mmcv_version': mmcv.__version__, 'time': time.asctime()}
            write({'meta': meta, 'state_dict': OrderedDict((name, tensor.cpu()) for name, tensor in weights.items()),
                   'optimizer': runner.optimizer.state_dict(), 'random_states': states}, path)
        runner.last_good = path

    def link(self, runner: BaseRunner, path: Path) -> None:
        """Make `latest.pth` a link to a checkpoint of this folder, if the file system has links."""
        try:
            if self.linked:
                point_latest_to(path)
        except OSError as error:
            self.linked = False
            runner.logger.warning('%s is written, but %s cannot link to it (%s): use the name of the file itself',
                                  path, LATEST, error.strerror)

    def remove_others(self, path: Path, done: int) -> None:
        """Remove the checkpoint of an earlier stop, and all but the `max_keep_ckpts` newest."""
        for stopped in path.parent.glob(STOPPED.format('*')):
            if stopped != path:
                stopped.unlink()
        own = [file for file in numbered(path.parent)
               if file.name == self.template.format(iterations_of(file)) and iterations_of(file) <= done]
        for file in own[self.max_keep_ckpts:] if self.max_keep_ckpts > 0 else ():
            file.unlink()
