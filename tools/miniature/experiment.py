#!/usr/bin/env python3
"""Run the experiment behind the miniature's numbers: `python tools/miniature/experiment.py`.

Trains and tests three seeds of each setting, with the control; of each ablation; and of other schedules, numbers of
images and CLIPs. Writes results.json and scaling.png to the work folder. Run it again to continue.
`--table FILE.json` prints the table of such a file.
"""
import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import NamedTuple

sys.path[0] = str(Path(__file__).resolve().parents[2])  # so that `datasets` and `tools` are this repository's
import models  # noqa: F401  first: silences the notices of mmcv's import

# isort: split
from models.errors import UserError
from tools.engine import errors
from tools.engine.arguments import positive_int
from tools.engine.config import REPOSITORY
from tools.engine.files import atomic_path, lock_folder, make_folder
from tools.miniature import CLIP
from tools.miniature.plots import SCORES, SEEDS, over_seeds, scaling_image
from tools.miniature.report import read_scores
from tools.miniature.world import write_world

NO_REGIONS = {'model.backbone.region_level_bridge_size': 0}
NO_RECOVERY = {'model.decode_head.loss_decode.recovery_loss_weight': 0}
ABLATIONS = {'without region tokens': NO_REGIONS, 'without recovery': NO_RECOVERY,
             'without both': NO_REGIONS | NO_RECOVERY}
CONTROL = ', unseen names swapped'
SWAP = {'cross_dataset': True, 'data.test.classes': str(CLIP.with_name('swapped_names.txt'))}
CLIPS = {'clip_short': (['--iterations', '500'], {}),  # options of train_clip.py, and of the config
         'clip_deep': (['--layers', '6'], {'model.backbone.layers': 6})}
ITERATIONS = {'inductive': 1000, 'fully': 1000, 'transductive': 500}  # by setting, as in the configs
LENGTHS = {'half': 0.5, 'double': 2, 'fourfold': 4}
WORLDS = {'world': 1000, 'world_quarter': 250, 'world_fourfold': 4000}  # images for training
VAL_IMAGES = 200


class Run(NamedTuple):
    """A training run and its tests; `name` is that of its folder, `clip` and `world` those of its CLIP and data."""
    name: str
    seed: int
    setting: str = 'inductive'
    length: float = 1
    options: dict = {}
    world: str = 'world'
    clip: str = 'clip'

    @property
    def iterations(self) -> int:
        return round(self.length * ITERATIONS[self.setting])


def chains() -> list[list[Run]]:
    """List all runs, the most important first; the runs of a chain are done one after the other."""
    found = [[Run(f'{setting}_{seed}', seed, setting) for setting in ('inductive', 'transductive')] for seed in SEEDS]
    varied = {name.replace(' ', '_'): {'options': options} for name, options in ABLATIONS.items()}
    varied |= {'fully': {'setting': 'fully'}}
    varied |= {name: {'world': name} for name in WORLDS if name != 'world'}
    varied |= {f'schedule_{name}': {'length': length} for name, length in LENGTHS.items()}
    found += [[Run(f'{name}_{seed}', seed, **changes)] for name, changes in varied.items() for seed in SEEDS]
    found += [[Run(f'{name}_{seed}', seed, options=options, clip=name) for seed in SEEDS]
              for name, (_, options) in CLIPS.items()]
    return found


def outcomes(run: Run) -> dict[str, dict]:
    """Return the name of each result of a run -> the options of its test; the method itself has a control."""
    controlled = run.name.rsplit('_', 1)[0] in ('inductive', 'transductive')
    return {run.name: {}, **({run.name + CONTROL: SWAP} if controlled else {})}


def execute(log: Path, script: str, *arguments) -> None:
    """Run a script of this repository; its output is appended to `log`.

    Raises:
        UserError: it failed.
    """
    with log.open('a') as output:
        status = subprocess.run([sys.executable, str(REPOSITORY / script), *map(str, arguments)], stdout=output,
                                stderr=subprocess.STDOUT).returncode
    if status:
        raise UserError(f'{script} failed (exit status {status}); its output is in {log}. Run the experiment again to '
                        'continue.')


def train_and_test(work: Path, run: Run, done: dict[str, dict]) -> dict[str, dict]:
    """Train a run, or continue it, and test it; return the results that `done` has not got."""
    missing = {name: options for name, options in outcomes(run).items() if name not in done}
    if not missing:
        return {}
    folder, log = work / run.name, work / f'{run.name}.log'
    config = REPOSITORY / f'configs/miniature/{run.setting}.py'
    clip = CLIP if run.clip == 'clip' else work / f'{run.clip}.pt'
    if not clip.exists():
        execute(log, 'tools/miniature/train_clip.py', clip, *CLIPS[run.clip][0])

    def options(extra: dict) -> list[str]:
        settings = {'model.pretrained': clip, 'model.pretrained_text': clip, **run.options, **extra}
        return ['--data-root', str(work / run.world), '--cfg-options', *(f'{key}={settings[key]}' for key in settings)]

    start = ['--load-from', work / f'inductive_{run.seed}/iter_500.pth'] if run.setting == 'transductive' else []
    execute(log, 'tools/train.py', config, '--work-dir', folder, '--seed', run.seed, '--no-validate', '--auto-resume',
            *start, *options({'runner.max_iters': run.iterations, 'checkpoint_config.interval': run.iterations // 4}))
    results = {}
    for name, extra in missing.items():
        tested = work / name.replace(CONTROL, '_control')
        execute(log, 'test.py', config, folder / 'latest.pth', '--eval', 'mIoU', '--work-dir', tested, *options(extra))
        scores = read_scores(tested)
        results[name] = {'setting': run.setting, 'seed': run.seed, 'iterations': run.iterations,
                         'images': WORLDS[run.world], 'clip': run.clip, 'options': run.options,
                         'scores': {score: scores[score] for score in ('aAcc', *SCORES)}}
    return results


def read_results(file: Path) -> dict:
    """Read the results of an experiment.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f'{file} is not a file of results, or damaged: {error}.') from error


def tables(results: dict) -> str:
    """Make the table in Markdown: the settings, the controls and the ablations."""
    rows = {'inductive': 'inductive_{seed}', 'transductive': 'transductive_{seed}', 'fully supervised': 'fully_{seed}'}
    rows |= {f'control: {setting}{CONTROL}': f'{setting}_{{seed}}{CONTROL}'
             for setting in ('inductive', 'transductive')}
    rows |= {f'inductive {name}': f'{name.replace(" ", "_")}_{{seed}}' for name in ABLATIONS}
    lines = ['| mIoU in percent | seen | unseen | hIoU |', '| --- | --- | --- | --- |']
    for title, name in rows.items():
        cells = ('{:.1f} ± {:.1f}'.format(*over_seeds(results, name, key)) for key in SCORES)
        lines.append(f'| {title} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the experiment behind the miniature's numbers.")
    parser.add_argument('--work-dir', type=Path, default=REPOSITORY / 'work_dirs/miniature_experiment',
                        help='folder of the runs (default: work_dirs/miniature_experiment)')
    parser.add_argument('--jobs', type=positive_int, default=os.cpu_count() or 1,
                        help='runs side by side (default: one per processor core)')
    parser.add_argument('--table', type=Path, metavar='FILE.json', help='only print the table of these results')
    args = parser.parse_args()
    if args.table:
        results = read_results(args.table)
        missing = [name for chain in chains() for run in chain for name in outcomes(run) if name not in results]
        if missing:
            raise UserError(f'{args.table}: {len(missing)} results are missing, such as {missing[0]}: let the '
                            'experiment end.')
        print(tables(results))
        return
    work = make_folder(args.work_dir.absolute())
    lock = lock_folder(work, f'another experiment is using {work}: wait for it, or name another --work-dir.')
    os.environ |= {'OMP_NUM_THREADS': str(max(1, (os.cpu_count() or 1) // args.jobs)),
                   'MALLOC_MMAP_THRESHOLD_': str(2**32), 'MALLOC_TRIM_THRESHOLD_': str(2**32)}  # as in quickstart.sh
    for name, images in WORLDS.items():
        if not (work / name).exists():
            write_world(work / name, train=images, val=VAL_IMAGES, seed=0)
    file, writing = work / 'results.json', Lock()
    results = read_results(file) if file.exists() else {}

    def complete(chain: list[Run]) -> None:
        for run in chain:
            new = train_and_test(work, run, results)
            with writing, atomic_path(file) as part:
                results.update(new)
                part.write_text(json.dumps(results, indent=1) + '\n')
                for name, result in new.items():
                    print(name, result['scores'], flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(complete, chains()))
    lock.close()
    scaling_image(results, work / 'scaling.png')
    print(tables(results))


if __name__ == '__main__':
    errors.run(main)
