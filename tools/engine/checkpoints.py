"""Checkpoints of a training run: written whole or not at all, found again, with all that the run needs to go on.

A file holds `state_dict`, `optimizer` and `meta` as mmcv's do, and `random_states`, one for each process.
"""
import json
import os
import random
import re
import shutil
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import mmcv
import numpy as np
import torch
import torch.distributed as dist
from mmcv.runner import BaseRunner, CheckpointHook

from models.errors import UserError
from models.weights import files, metadata
from models.weights.files import Checkpoint
from tools.engine.files import sync_folder
from tools.engine.process import Place

LATEST = 'latest.pth'  # a link to the newest one
STOPPED = 'stopped_iter_{}.pth'  # between two of the intervals; removed when the next one is written
EVALUATIONS = 'evaluations.jsonl'  # a line for each evaluation of a run: its iteration and scores
NUMBER = re.compile(r'_(\d+)\.pth$')  # iterations done


# ---- one file

def write(content: dict, path: Path) -> None:
    """Writes a checkpoint so that `path` is never there in part: beside it, synced, read back, then renamed.

    Raises:
        OSError: it can't be written, or is not read back as it was written.
    """
    part = path.with_name(f'{path.name}.part')
    try:
        with part.open('wb') as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        with zipfile.ZipFile(part) as archive:
            if damaged := archive.testzip():
                raise OSError(f'{part} is not read back as it was written ({damaged}): the disk may be failing')
        part.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # torch's writer hides what stopped it
        if isinstance(cause, OSError) and cause.errno:
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise


def point_latest_to(path: Path) -> None:
    """Makes `latest.pth` beside a checkpoint a link to it; there is one at any moment, if there was one before."""
    link = path.with_name(f'{LATEST}.part')
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    link.replace(path.with_name(LATEST))


# ---- a folder of them

def numbered(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the one of most iterations first; of equal ones the best one's copy last."""
    files = [file for file in folder.glob('*.pth') if NUMBER.search(file.name) and not file.is_symlink()]
    return sorted(files, key=lambda file: (-int(NUMBER.search(file.name)[1]), file.name.startswith('best')))


def newest(folder: Path, logger, since: float = 0) -> Checkpoint | None:
    """The checkpoint of most iterations that can be read; one that can't, or isn't ours, is passed over with a warning.

    Args:
        since: no file is looked at that is older (in seconds, as `time.time`).
    """
    for file in numbered(folder):
        if file.stat().st_mtime < since:
            continue
        try:
            checkpoint = files.read(file)
            if metadata.is_ours(checkpoint):
                return checkpoint
            logger.warning('%s is no checkpoint of this code: it is passed over.', file)
        except UserError as error:
            logger.warning('%s It is passed over.', error)
    return None


def put_aside(folder: Path, *, beyond: int) -> Path | None:
    """Moves the checkpoints of more than `beyond` iterations to a folder in there, which is given back.

    They are of an earlier run, or of the way that a run took before it was taken back. So are evaluations.
    """
    files = [file for file in numbered(folder) if int(NUMBER.search(file.name)[1]) > beyond]
    link, record = folder / LATEST, folder / EVALUATIONS
    aside, number = None, 1
    if files:
        while (aside := folder / f'earlier_{number}').exists():
            number += 1
        aside.mkdir()
        for file in (*files, record):
            if file.exists():
                shutil.copy(file, aside) if file == record else file.rename(aside / file.name)
        if beyond == 0 and link.exists() or link.is_symlink() and not link.exists():
            link.rename(aside / LATEST)
            if kept := numbered(folder):
                point_latest_to(kept[0])
    lines = evaluations(record)
    if any(done > beyond for done in lines):
        part = record.with_name(f'{record.name}.part')
        part.write_text(''.join(line_of(done, scores) for done, scores in lines.items() if done <= beyond))
        part.replace(record)
    return aside


def evaluations(file: Path) -> dict[int, dict]:
    """The scores in a run's `EVALUATIONS` by iteration; a line that was cut off does not count."""
    found = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            entry = json.loads(line)
            found[entry.pop('iter')] = entry
        except ValueError:
            continue
    return found


def note(file: Path, done: int, scores: dict) -> None:
    """Adds a line to a run's `EVALUATIONS`, be the last one whole or not."""
    whole = not file.exists() or file.read_text().endswith('\n')
    with file.open('a') as stream:
        stream.write(f'{"" if whole else chr(10)}{line_of(done, scores)}')


def line_of(done: int, scores: dict) -> str:
    return f'{json.dumps({"iter": done, **scores})}\n'


# ---- what it holds

def random_state(device: torch.device) -> dict:
    """The state of every random generator of this process, as plain values and tensors."""
    version, keys, gauss = random.getstate()
    name, numbers, position, *rest = np.random.get_state()
    state = {'python': [version, torch.tensor(keys), gauss],
             'numpy': [name, torch.from_numpy(numbers.astype(np.int64)), int(position), *map(float, rest)],
             'torch': torch.get_rng_state()}
    return {**state, 'cuda': torch.cuda.get_rng_state(device)} if device.type == 'cuda' else state


def set_random_state(state: dict, device: torch.device) -> None:
    version, keys, gauss = state['python']
    random.setstate((version, tuple(keys.tolist()), gauss))
    name, numbers, position, has_gauss, cached = state['numpy']
    np.random.set_state((name, numbers.numpy().astype(np.uint32), position, int(has_gauss), cached))
    torch.set_rng_state(state['torch'])
    if device.type == 'cuda' and 'cuda' in state:
        torch.cuda.set_rng_state(state['cuda'], device)


def random_states(place: Place) -> list[dict] | None:
    """`random_state` of each process, on the first; None on the others. All processes must call it."""
    mine = random_state(place.device)
    if not place.distributed:
        return [mine]
    gathered = [None] * place.world_size if place.rank == 0 else None
    dist.gather_object(mine, gathered, group=place.control)
    return gathered


def save(runner: BaseRunner, path: Path, states: list[dict], done: int) -> None:
    """Writes the checkpoint of a run.

    Args:
        states: `random_states`.
        done: iterations of the run.

    Raises:
        OSError: it can't be written.
    """
    model = getattr(runner.model, 'module', runner.model)
    meta = {**runner.meta, 'epoch': 1, 'iter': done - 1, 'progress': runner.progress(done),
            'mmcv_version': mmcv.__version__, 'time': time.asctime()}
    weights = OrderedDict((name, tensor.detach().cpu()) for name, tensor in model.state_dict().items())
    write({'meta': meta, 'state_dict': weights, 'optimizer': runner.optimizer.state_dict(), 'random_states': states},
          path)


class Checkpoints(CheckpointHook):
    """mmcv's hook, whose files are whole and sufficient; with `max_keep_ckpts` the oldest are removed, never the best.

    Args:
        place: of this process.
        options: of mmcv's hook.
    """

    def __init__(self, place: Place, *, filename_tmpl: str = 'iter_{}.pth', create_symlink: bool = True, **options):
        super().__init__(**{'by_epoch': False, **options})
        self.place, self.template, self.linked = place, filename_tmpl, create_symlink
        self.saved = 0  # iterations done at the last one
        self.first = True

    def before_run(self, runner: BaseRunner) -> None:
        super().before_run(runner)
        self.saved = runner.iter
        if self.place.rank == 0:
            for part in Path(self.out_dir).glob('*.pth.part'):  # of a run that was killed
                part.unlink()
            resumed = runner.last_good and runner.last_good.resolve()
            if resumed and resumed.parent == Path(self.out_dir).resolve() and not resumed.name.startswith('best'):
                self.link(runner, resumed)  # a kill may have come before it was one

    def after_train_iter(self, runner: BaseRunner) -> None:
        if self.every_n_iters(runner, self.interval) or (self.save_last and self.is_last_iter(runner)):
            self.save(runner, self.template, done=runner.iter + 1)

    def save(self, runner: BaseRunner, template: str, done: int) -> None:
        """Writes one after `done` iterations; all processes must call it."""
        path = Path(self.out_dir) / template.format(done)
        runner.check_weights()
        states = random_states(self.place)
        runner.meta['hook_msgs']['last_ckpt'] = str(path)
        if self.place.rank == 0:
            save(runner, path, states, done)
            self.link(runner, path)
            self.remove_others(path, done)
            self.warn_of_space(runner, path)
        self.saved, runner.last_good = done, path

    def link(self, runner: BaseRunner, path: Path) -> None:
        """Makes `latest.pth` a link to one of this folder's, where the file system has links."""
        try:
            if self.linked:
                point_latest_to(path)
        except OSError as error:
            self.linked = False
            runner.logger.warning('%s is written, but %s cannot be a link to it (%s): name the file itself instead',
                                  path, LATEST, error.strerror)

    def remove_others(self, path: Path, done: int) -> None:
        """That of an earlier stop, and all but the `max_keep_ckpts` newest."""
        for stopped in path.parent.glob(STOPPED.format('*')):
            if stopped != path:
                stopped.unlink()
        own = [file for file in numbered(path.parent) if re.fullmatch(
            re.escape(self.template).replace(r'\{\}', r'\d+'), file.name) and int(NUMBER.search(file.name)[1]) <= done]
        for file in own[self.max_keep_ckpts:] if self.max_keep_ckpts > 0 else ():
            file.unlink()

    def warn_of_space(self, runner: BaseRunner, path: Path) -> None:
        """Once, when the size of a checkpoint is known."""
        if not self.first:
            return
        self.first = False
        size, free = path.stat().st_size, os.statvfs(path.parent).f_bavail * os.statvfs(path.parent).f_frsize
        to_come = max(0, runner.max_iters - runner.iter - 1) // self.interval
        if self.max_keep_ckpts > 0:
            to_come = min(to_come, self.max_keep_ckpts)
        if to_come * size > free:
            runner.logger.warning('%d more checkpoints of %.0f MB are to come, %.0f MB are free in %s: make room, or '
                                  'keep the newest only, with checkpoint_config.max_keep_ckpts=3', to_come, size / 1e6,
                                  free / 1e6, path.parent)
