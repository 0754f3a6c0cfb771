#!/usr/bin/env python3
"""Make all recorded results of the miniature: `python tools/miniature/study.py FOLDER`; run it again to continue.

Trains and tests the settings over seeds, the method without its parts, and other schedules, worlds and CLIPs. Writes
results.json (scores as fractions) to the folder, and prints means, deviations and the paired comparison of the parts.
"""
import argparse
import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Lock
from typing import NamedTuple

sys.path[0] = str(Path(__file__).resolve().parents[2])  # so that `datasets` and `tools` are this repository's
import models  # noqa: F401  first: silences the notices of mmcv's import

# isort: split
import numpy as np
from prettytable import PrettyTable, TableStyle
from tqdm import tqdm

from models.errors import UserError
from tools.engine.arguments import positive_int
from tools.engine.errors import run
from tools.engine.files import atomic_path, lock_folder, make_folder
from tools.miniature.report import SCORES, read_scores

ROOT = Path(__file__).resolve().parents[2]
ITERATIONS, IMAGES = 1200, 1000  # those of a quickstart
WITHOUT_REGIONS = {'model.backbone.region_level_bridge_size': 0}
WITHOUT_RECOVERY = {'model.decode_head.loss_decode.recovery_loss_weight': 0}
PARTS = {'inductive': {}, 'without_region_tokens': WITHOUT_REGIONS, 'without_recovery': WITHOUT_RECOVERY,
         'without_both': WITHOUT_REGIONS | WITHOUT_RECOVERY}
CLIPS = {'clip_short': ['--iterations', '500']}  # options of train_clip.py
COLOURS = ['--classes', 'colours', '--corners', '3', '6', '--train', '1', '--seed', '7']  # another dataset
SEEDS = 10  # of the method and its parts; other groups have 3
GROUPS = {  # title -> runs, and which test of them
    'inductive': 'inductive', 'transductive': 'transductive', 'fully supervised': 'fully',
    'control: inductive, unseen names swapped': 'inductive, unseen names swapped',
    'control: transductive, unseen names swapped': 'transductive, unseen names swapped',
    'inductive without region tokens': 'without_region_tokens', 'inductive without recovery': 'without_recovery',
    'inductive without both': 'without_both', 'a quarter of the iterations': 'schedule_quarter',
    'half of the iterations': 'schedule_half', 'twice the iterations': 'schedule_double', '250 images': 'world_quarter',
    '4000 images': 'world_fourfold', 'CLIP trained a quarter as long': 'clip_short',
    'inductive, on another dataset': 'inductive, colours'}
PAIRS = [('region tokens, with recovery', 'inductive', 'without_region_tokens'),
         ('region tokens, without recovery', 'without_recovery', 'without_both'),
         ('recovery, with region tokens', 'inductive', 'without_recovery'),
         ('recovery, without region tokens', 'without_region_tokens', 'without_both'),
         ('both', 'inductive', 'without_both')]


class Run(NamedTuple):
    """A training and its test."""
    group: str
    seed: int
    setting: str = 'inductive'
    iterations: int = ITERATIONS
    images: int = IMAGES
    clip: str = 'clip'
    options: dict = {}

    @property
    def name(self) -> str:
        return f'{self.group}_{self.seed}'


def all_runs() -> list[Run]:
    """List the runs; the most important ones come first, and a run comes after those that it needs."""
    runs = [Run('inductive', seed) for seed in range(3)]
    runs += [Run('transductive', seed, 'transductive', ITERATIONS // 2) for seed in range(3)]
    runs += [Run('fully', seed, 'fully') for seed in range(3)]
    runs += [Run(part, seed, options=options) for seed in range(SEEDS) for part, options in PARTS.items()
             if part != 'inductive' or seed > 2]
    for seed in range(3):
        runs += [Run('schedule_quarter', seed, iterations=ITERATIONS // 4),
                 Run('schedule_half', seed, iterations=ITERATIONS // 2),
                 Run('world_quarter', seed, images=IMAGES // 4), Run('world_fourfold', seed, images=IMAGES * 4),
                 Run('clip_short', seed, clip='clip_short'),
                 Run('schedule_double', seed, iterations=ITERATIONS * 2)]
    return runs


def require_version(file: Path) -> None:
    """Write the hash of the code that trains and tests into a file.

    Raises:
        UserError: another one is there.
    """
    sources = [path for name in ('configs/_base_', 'configs/miniature', 'datasets', 'models', 'tools', 'test.py')
               for path in sorted((ROOT / name).rglob('*.py') if (ROOT / name).is_dir() else [ROOT / name])]
    version = hashlib.sha256(b''.join(path.read_bytes() for path in sources)).hexdigest()
    if file.exists() and file.read_text() != version:
        raise UserError(f'{file.parent} is of another version of the code: remove it, or name another folder.')
    file.write_text(version)


def execute(log: Path, *command: object) -> None:
    """Run a Python command of this repository on one thread; its output goes to a file.

    Raises:
        UserError: it failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('w') as output:
        status = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, stdout=output, stderr=output,
                                env=os.environ | {'OMP_NUM_THREADS': '1'}, check=False).returncode
    if status:
        raise UserError(f'a run ended with status {status}: see {log}')


class Study:
    """All runs in a folder; each is made once, when it is first needed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.results: dict[str, dict] = {}
        self.trained: dict[str, Future] = {}
        self.locks: dict[object, Lock] = defaultdict(Lock)

    def make_world(self, name: str, options: list[str]) -> Path:
        with self.locks[name]:
            if not (self.folder / name).exists():
                execute(self.folder / f'{name}.log', 'tools/miniature/world.py', self.folder / name, *options)
        return self.folder / name

    def make_clip(self, name: str) -> Path:
        file = self.folder / f'{name}.pt'
        with self.locks[name]:
            if not file.exists():
                execute(self.folder / f'{name}.log', 'tools/miniature/train_clip.py', file, *CLIPS[name])
        return file

    def test(self, key: str, run: Run, config: str, options: list[str]) -> None:
        """Test a run's model, unless that was done before, and keep the scores."""
        work = self.folder / 'runs' / key.replace(', ', '_').replace(' ', '_')
        if not list(work.glob('eval_*.json')):
            execute(work / 'test.log', 'test.py', f'configs/miniature/{config}.py',
                    self.folder / 'runs' / run.name / 'latest.pth', '--eval', 'mIoU', '--work-dir', work, *options)
        metrics = read_scores(work)
        kept = {name: metrics[name] for name in ('aAcc', 'mIoU', *SCORES) if metrics.get(name) is not None}
        self.results[key] = {name: value for name, value in run._asdict().items() if name != 'group'} | {
            'scores': kept}

    def train_and_test(self, run: Run) -> None:
        world = self.make_world(f'world_{run.images}', ['--train', str(run.images)])
        work = self.folder / 'runs' / run.name
        options = [f'{key}={value}' for key, value in run.options.items()]
        if run.clip in CLIPS:
            file = self.make_clip(run.clip)
            options += [f'model.pretrained={file}', f'model.pretrained_text={file}']
        begin = []
        if run.setting == 'transductive':
            self.trained[f'inductive_{run.seed}'].result()
            begin = ['--load-from', self.folder / f'runs/inductive_{run.seed}/iter_{ITERATIONS // 2}.pth']
        if not (work / f'iter_{run.iterations}.pth').exists():
            execute(work / 'train.log', 'tools/train.py', f'configs/miniature/{run.setting}.py', '--work-dir', work,
                    '--seed', run.seed, '--no-validate', '--auto-resume', '--data-root', world, *begin,
                    '--cfg-options', f'runner.max_iters={run.iterations}',
                    f'checkpoint_config.interval={run.iterations // 4}', 'log_config.interval=20', *options)
        data = ['--data-root', world]
        changed = ['--cfg-options', *options] if options else []
        self.test(run.name, run, run.setting, [*data, *changed])
        if run.seed < 3 and run.group in ('inductive', 'transductive'):
            self.test(f'{run.name}, unseen names swapped', run, run.setting, [
                *data, '--cfg-options', 'cross_dataset=True',
                'data.test.classes=tools/miniature/swapped_names.txt'])
        if run.seed < 3 and run.group == 'inductive':
            colours = self.make_world('world_colours', COLOURS)
            self.test(f'{run.name}, colours', run, 'cross_dataset', [
                '--cfg-options', f'data.test.data_root={colours}'])

    def save(self) -> None:
        with atomic_path(self.folder / 'results.json') as file:
            file.write_text(json.dumps(dict(sorted(self.results.items())), indent=1) + '\n')

    def make_all(self, processes: int) -> None:
        """Make all runs, some at a time, and save the scores after each.

        Raises:
            UserError: a run failed; those that have not begun are not made.
        """
        with ThreadPoolExecutor(processes) as pool:
            for run in all_runs():
                self.trained[run.name] = pool.submit(self.train_and_test, run)
            try:
                for future in tqdm(as_completed(self.trained.values()), total=len(self.trained), unit='run'):
                    future.result()
                    self.save()
            finally:
                pool.shutdown(cancel_futures=True)


def scores_of(results: dict[str, dict], group: str, score: str) -> dict[int, float]:
    """Return a score in percent of the runs of a group such as 'inductive' or 'inductive, colours': seed -> score."""
    name, comma, test = group.partition(',')
    found = {seed: results.get(f'{name}_{seed}{comma}{test}', {'scores': {}})['scores'] for seed in range(SEEDS)}
    return {seed: 100 * scores[score] for seed, scores in found.items() if score in scores}


def sign_flip_test(differences: list[float]) -> float:
    """Return the two-sided p-value of paired differences under all changes of their signs (Fisher's exact test)."""
    values = np.array(differences)
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    return float((np.abs(signs @ values) >= abs(values.sum()) - 1e-9).mean())


def mean_and_deviation(values: list[float], sign: str = '') -> str:
    if len(values) < 2:
        return f'{values[0]:{sign}.1f}' if values else ''
    return f'{statistics.mean(values):{sign}.1f} ± {statistics.stdev(values):.1f}'


def tables(results: dict[str, dict]) -> str:
    """Format the scores of all groups, and the paired comparisons of the parts, in Markdown."""
    groups = PrettyTable(['mIoU in percent', 'seeds', 'all', 'seen', 'unseen', 'hIoU'], align='r')
    for title, group in GROUPS.items():
        values = [[*scores_of(results, group, score).values()] for score in ('mIoU', *SCORES)]
        if values[0]:
            groups.add_row([title, len(values[0]), *map(mean_and_deviation, values)])
    pairs = PrettyTable(['hIoU of the same seeds', 'seeds', 'difference', 'better', 'p'], align='r')
    for title, one, other in PAIRS:
        first, second = (scores_of(results, part, 'hIoU') for part in (one, other))
        differences = [score - second[seed] for seed, score in first.items() if seed in second]
        if differences:
            pairs.add_row([title, len(differences), mean_and_deviation(differences, '+'),
                           sum(difference > 0 for difference in differences), f'{sign_flip_test(differences):.3f}'])
    for table in (groups, pairs):
        table.set_style(TableStyle.MARKDOWN)
        table.align[table.field_names[0]] = 'l'
    return f'{groups}\n\n{pairs}'


def main() -> None:
    parser = argparse.ArgumentParser(description='Make all recorded results of the miniature.')
    parser.add_argument('folder', type=Path, help='folder of worlds, CLIPs and runs')
    parser.add_argument('--processes', type=positive_int, default=2, help='runs at a time (default: 2)')
    args = parser.parse_args()
    lock = lock_folder(make_folder(args.folder), 'folder')
    require_version(args.folder / 'version')
    study = Study(args.folder.absolute())
    study.make_all(args.processes)
    print(tables(study.results))
    lock.close()


if __name__ == '__main__':
    run(main)
