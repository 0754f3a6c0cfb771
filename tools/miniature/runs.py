"""The miniature's runs and what of them is on disk: each step leaves its result when it is whole, and is skipped then.

A work folder holds the world, the text embeddings, and a folder for each run. It belongs to one version of the code.
"""
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
from mmcv import Config

from datasets.miniature import Miniature
from models.errors import UserError
from tools.engine import process
from tools.engine.config import REPOSITORY
from tools.miniature.world import write_world

CLIP = REPOSITORY / 'tools/miniature/clip.pt'
# What results depend on.
SOURCES = ('configs/_base_', 'configs/miniature', 'datasets', 'models', 'tools/miniature/world.py', 'tools/train.py',
           'tools/engine/data.py', 'tools/engine/build.py', 'test.py')
PROGRESS = re.compile(r'Iter \[(\d+)/(\d+)\].* eta: ([\d:]+|.*?),.* loss: ([\d.]+|nan)')
SCORES = ('mIoU_seen', 'mIoU_unseen', 'hIoU')

ONE_READER = Lock()  # mmcv imports a config through sys.path: two threads at once take each other's away

HELD: list[int] = []  # open files that lock a work folder
PATIENCE = 10  # seconds that the loader workers of a stopped run may need to notice
UNDER_WAY: set[subprocess.Popen] = set()

Report = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A training run and its test.

    Args:
        name: of its folder.
        setting: name of its config: 'inductive', 'transductive' or 'fully'.
        seed: of the training.
        length: iterations as a multiple of the config's.
        options: of the config, `KEY: VALUE`.
        start: the run that gives it its first weights, those of its middle.
        world: name of the world that it trains on.
        clip: the CLIP file.
    """
    name: str
    setting: str
    seed: int = 0
    length: float = 1.
    options: dict = field(default_factory=dict)
    start: 'Run | None' = None
    world: str = 'world'
    clip: Path = CLIP

    @property
    def config(self) -> Path:
        return REPOSITORY / f'configs/miniature/{self.setting}.py'

    @property
    def iterations(self) -> int:
        with ONE_READER:
            return round(self.length * Config.fromfile(str(self.config)).runner.max_iters)

    @property
    def quarter(self) -> int:
        """Iterations from one checkpoint to the next."""
        return max(1, self.iterations // 4)


def version() -> str:
    """A hash of the code, the configs and the CLIP that results depend on."""
    digest = hashlib.sha256(CLIP.read_bytes())
    for source in SOURCES:
        path = REPOSITORY / source
        for file in sorted(path.rglob('*.py')) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def open_folder(work: Path, command: str, other: str = 'WORK_DIR=DIR') -> None:
    """Makes a work folder, or checks that it is of this command and version of the code; holds it while this process
    and those that it starts live.

    Args:
        command: what the user typed, with the options that matter.
        other: how the user names another folder.

    Raises:
        UserError: it can't be written, lacks space, is in use, or is of another version or command.
    """
    try:
        process.make_folder(work)
    except UserError as error:
        raise UserError(f'{error} {other} does so.') from error
    stamp, wanted = work / 'version', f'{version()} {command}'
    if not stamp.exists() and any(file for file in work.iterdir() if file.name != '.lock'):
        raise UserError(f'{work} holds files that are not the miniature\'s. Name another folder: {other}')
    hold(work)
    found = stamp.read_text() if stamp.exists() else wanted
    if found != wanted:
        code, _, maker = found.partition(' ')
        maker = f'{maker}, not {command}' if code == version() else 'another version of the code'
        raise UserError(f'{work} was made by {maker}. Remove it (rm -r {shlex.quote(str(work))}), or name another '
                        f'folder: {other}')
    free = shutil.disk_usage(work).free / 2**20
    if free < 500:
        raise UserError(f'{free:.0f} MB free in {work}, 500 are needed. Make room, or name a folder on a larger disk: '
                        f'{other}')
    write_whole(stamp, wanted)


def hold(work: Path) -> None:
    """One process at a time works in a folder; the scripts that it started share its hold, should they outlive it."""
    handle = os.open(work / '.lock', os.O_CREAT | os.O_RDWR)
    for attempt in range(PATIENCE + 1):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            HELD.append(handle)
            return
        except BlockingIOError:
            time.sleep(attempt < PATIENCE)
    os.close(handle)
    raise UserError(f'another run is at work in {work}: wait for it, or end it.')


def write_whole(file: Path, text: str) -> None:
    """The file is never there with a part of the text."""
    part = file.with_name(f'.{file.name}.part')
    part.write_text(text)
    part.replace(file)


def draw_world(work: Path, *, train: int, val: int, name: str = 'world') -> None:
    if not (work / name).exists():
        write_world(work / name, train=train, val=val, seed=0)


def embed(work: Path, run: Run) -> None:
    """The text embeddings of a run's CLIP: `NAME.npy`, and those with the unseen rows in another order."""
    file = embeddings_file(work, run)
    if file.exists() and shuffled_file(work, run).exists():
        return
    execute(['tools/text_embeddings.py', run.config, '--file', file, '--clip', run.clip], work / f'{file.stem}.log')
    rows, unseen = np.load(file), Miniature.describe().split.unseen
    rows[unseen] = rows[np.roll(unseen, 1)]
    part = work / f'.{run.clip.stem}.part.npy'
    np.save(part, rows)
    part.replace(shuffled_file(work, run))


def embeddings_file(work: Path, run: Run) -> Path:
    return work / f'text_embeddings_{run.clip.stem}.npy'


def shuffled_file(work: Path, run: Run) -> Path:
    return work / f'shuffled_embeddings_{run.clip.stem}.npy'


def options_of(work: Path, run: Run) -> list[str]:
    """The command line of a run's own config."""
    options = {'model.pretrained': run.clip, 'model.pretrained_text': run.clip, **run.options}
    return ['--data-root', str(work / run.world), '--cfg-options',
            *(f'{key}={value}' for key, value in options.items())]


def train(work: Path, run: Run, report: Report = lambda text: None) -> None:
    """Trains, or goes on from the newest checkpoint."""
    folder = work / run.name
    if (folder / 'trained').exists():
        return
    command = ['tools/train.py', run.config, '--work-dir', folder, '--seed', run.seed, '--no-validate', '--auto-resume',
               *options_of(work, run), f'model.load_text_embedding={embeddings_file(work, run)}',
               f'runner.max_iters={run.iterations}', f'checkpoint_config.interval={run.quarter}',
               f'log_config.interval={min(20, 1 + run.iterations // 50)}']
    if run.start is not None:
        command += ['--load-from', work / run.start.name / f'iter_{2 * run.start.quarter}.pth']

    def show(line: str) -> None:
        if found := PROGRESS.search(line):
            report(f'iteration {found[1]} of {found[2]}, {found[3]} left, loss {found[4]}')

    folder.mkdir(exist_ok=True)
    execute(command, folder / 'training.log', show, of=folder)
    write_whole(folder / 'trained', '')


def test(work: Path, run: Run, *, shuffled: bool = False) -> dict[str, float]:
    """The scores of a run; with the unseen classes' embeddings shuffled among themselves, those of the control."""
    folder = work / run.name
    file = folder / ('scores_shuffled.json' if shuffled else 'scores.json')
    labels = folder / ('labels_shuffled.pkl' if shuffled else 'labels.pkl')
    if not (file.exists() and labels.exists()):
        results = folder / f'.{file.stem}'
        shutil.rmtree(results, ignore_errors=True)
        embeddings = (shuffled_file if shuffled else embeddings_file)(work, run)
        execute(['test.py', run.config, folder / 'latest.pth', '--eval', 'mIoU', '--work-dir', results, '--out',
                 results / 'labels.pkl', *options_of(work, run), f'model.load_text_embedding={embeddings}'],
                folder / f'{file.stem}.log', of=folder)
        (results / 'labels.pkl').replace(labels)
        written, = results.glob('eval_*.json')
        write_whole(file, json.dumps(json.loads(written.read_text())['metric'], indent=1) + '\n')
        if not shuffled:
            written.replace(folder / written.name)  # for summarize.py
        shutil.rmtree(results)
    return read_results(file)


def read_results(file: Path) -> dict:
    """
    Raises:
        UserError: it is damaged.
    """
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f'{file} is no file of results, or damaged: {error}. What is missing is made anew.') from error


def execute(command: list, log: Path, watch: Callable[[str], None] = lambda line: None, of: Path | None = None) -> None:
    """Runs one of the project's scripts; what it says goes to `log`, line by line to `watch`.

    Args:
        of: the folder of the run, which can be made anew.

    Raises:
        UserError: it failed; the message ends with the last that it said.
    """
    script, *arguments = map(str, command)
    last = deque(maxlen=5)
    with log.open('a') as stream, subprocess.Popen(
            [sys.executable, str(REPOSITORY / script), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors='replace', env={**os.environ, **MALLOC}, pass_fds=HELD) as child:
        UNDER_WAY.add(child)
        try:
            for line in child.stdout:
                stream.write(line)
                stream.flush()
                last.append(line.rstrip())
                watch(line)
        finally:
            UNDER_WAY.discard(child)
    if not child.returncode:
        return
    if shutil.disk_usage(log.parent).free < 50 * 2**20:
        raise UserError(f'the disk of {log.parent} is full. Make room and run this again: it goes on where it '
                        'stopped.')
    remedy = [] if of is None else [f'If a file is damaged, begin that run anew: rm -r {shlex.quote(str(of))}']
    raise UserError('\n'.join([f'{script} stopped (exit status {child.returncode}). Its last words, of {log}:',
                                *last, *remedy]))


def end_on_sigterm() -> None:
    """SIGTERM ends this process as Ctrl-C does, and the scripts that it started."""
    def end(*_) -> None:
        for child in list(UNDER_WAY):
            child.terminate()
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, end)


# glibc would give large blocks back to the system at every step, and fetch them again: a third of the time on a CPU.
MALLOC = {'MALLOC_MMAP_THRESHOLD_': str(2**32), 'MALLOC_TRIM_THRESHOLD_': str(2**32)}
