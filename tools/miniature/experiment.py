#!/usr/bin/env python3
"""The long experiment behind the README's numbers: `python tools/miniature/experiment.py`. It goes on where it stopped.

Three seeds of each: the method in all settings, with the control; ablations; other schedules, numbers of images and
CLIPs. Keeps results.json in its work folder and draws scaling.png there; `--table FILE.json` prints the README's table
of such a file.
"""
import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

sys.path[0] = str(Path(__file__).resolve().parents[2])  # this repository's `datasets`, whoever else has one
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from models.errors import UserError
from tools.engine import process
from tools.engine.config import REPOSITORY
from tools.miniature import runs
from tools.miniature.quickstart import IMAGES, VAL_IMAGES
from tools.miniature.runs import Run

SEEDS = (0, 1, 2)
NO_REGIONS = {'model.backbone.region_level_bridge_size': 0}
NO_RECOVERY = {'model.decode_head.loss_decode.recovery_loss_weight': 0}
ABLATIONS = {'without region tokens': NO_REGIONS, 'without recovery': NO_RECOVERY,
             'without both': NO_REGIONS | NO_RECOVERY}
CONTROL = ', unseen names swapped'
# What is varied beside: CLIPs, by options of train_clip.py and of the config, and the number of images to train on.
CLIPS = {'clip_short': (['--iterations', '500'], {}),
         'clip_deep': (['--layers', '6'], {'model.backbone.layers': 6})}
LENGTHS = {'half': 0.5, 'double': 2., 'fourfold': 4.}
WORLDS = {'world': IMAGES, 'world_quarter': IMAGES // 4, 'world_fourfold': 4 * IMAGES}


def chains(work: Path) -> list[list[Run]]:
    """All runs, the most important first; those of a chain need each other, or the same CLIP."""
    found = []
    for seed in SEEDS:
        first = Run(f'inductive_{seed}', 'inductive', seed=seed)
        found.append([first, Run(f'transductive_{seed}', 'transductive', seed=seed, start=first)])
    varied = {name.replace(' ', '_'): {'options': options} for name, options in ABLATIONS.items()}
    varied |= {'fully': {'setting': 'fully'}}
    varied |= {name: {'world': name} for name in WORLDS if name != 'world'}
    varied |= {f'schedule_{name}': {'length': factor} for name, factor in LENGTHS.items()}
    found += [[Run(**{'name': f'{name}_{seed}', 'setting': 'inductive', 'seed': seed} | what)]
              for name, what in varied.items() for seed in SEEDS]
    found += [[Run(f'{name}_{seed}', 'inductive', seed=seed, clip=work / f'{name}.pt', options=options)
               for seed in SEEDS] for name, (_, options) in CLIPS.items()]
    return found


def do(work: Path, chain: list[Run]) -> Iterator[tuple[str, dict]]:
    """Trains and tests the runs of a chain: name of each result, and what it was with its scores."""
    for run in chain:
        if not run.clip.exists():
            options, _ = CLIPS[run.clip.stem]
            runs.execute(['tools/miniature/train_clip.py', run.clip, *options], work / f'{run.name}.log')
        runs.embed(work, run)
        runs.train(work, run)
        for name, shuffled in outcomes(run).items():
            scores = runs.test(work, run, shuffled=shuffled)
            yield name, {'setting': run.setting, 'seed': run.seed, 'iterations': run.iterations,
                         'images': WORLDS[run.world], 'clip': run.clip.stem, 'options': run.options,
                         'scores': {key: scores[key] for key in ('aAcc', *runs.SCORES)}}


def outcomes(run: Run) -> dict[str, bool]:
    """Names of a run's results -> whether unseen names are swapped: the control, for the method as it is."""
    results = {run.name: False}
    if run.name in (f'{setting}_{seed}' for setting in ('inductive', 'transductive') for seed in SEEDS):
        results[run.name + CONTROL] = True
    return results


class Results(dict):
    """Name -> result, kept in a file from one start of the experiment to the next."""

    def __init__(self, file: Path):
        super().__init__(runs.read_results(file) if file.exists() else {})
        self.file, self.lock = file, Lock()

    def fill(self, work: Path, chain: list[Run]) -> None:
        """Does what of a chain has no result yet."""
        if all(name in self for run in chain for name in outcomes(run)):
            return
        for name, entry in do(work, chain):
            with self.lock:
                self[name] = entry
                runs.write_whole(self.file, json.dumps(self, indent=1) + '\n')
                print(name, entry['scores'], flush=True)


def over_seeds(results: dict, name: str, key: str) -> tuple[float, float]:
    """Mean and standard deviation of a score in percent; '{seed}' in the name stands for the seeds."""
    values = [100 * results[name.format(seed=seed)]['scores'][key] for seed in SEEDS]
    return statistics.mean(values), statistics.stdev(values)


def tables(results: dict) -> str:
    """The README's table in Markdown: the settings with the control, and the ablations."""
    rows = {'inductive': 'inductive_{seed}', 'transductive': 'transductive_{seed}', 'fully supervised': 'fully_{seed}'}
    rows |= {f'control: {setting}{CONTROL}': f'{setting}_{{seed}}{CONTROL}'
             for setting in ('inductive', 'transductive')}
    rows |= {f'inductive {name}': f'{name.replace(" ", "_")}_{{seed}}' for name in ABLATIONS}
    lines = ['| mIoU in percent | seen | unseen | hIoU |', '| --- | --- | --- | --- |']
    for title, name in rows.items():
        cells = ('{:.1f} ± {:.1f}'.format(*over_seeds(results, name, key)) for key in runs.SCORES)
        lines.append(f'| {title} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def scaling_image(results: dict, file: Path) -> None:
    """Scores of inductive training against length, images, CLIP and masks: mean and standard deviation over seeds."""
    lengths = 'schedule_half', 'inductive', 'schedule_double', 'schedule_fourfold'
    worlds = 'world_quarter', 'inductive', 'world_fourfold'
    axes = {
        'iterations': {str(results[f'{name}_0']['iterations']): name for name in lengths},
        'images to train on': {str(results[f'{name}_0']['images']): name for name in worlds},
        'CLIP': {'trained\na quarter': 'clip_short', 'as shipped': 'inductive', '1.5 times\nas deep': 'clip_deep'},
        'masks': {'of seen\nclasses': 'inductive', 'of all\nclasses': 'fully'},
    }
    figure = Figure(figsize=(14, 3.4), layout='constrained', dpi=100)
    FigureCanvasAgg(figure)
    for panel, (title, points) in zip(figure.subplots(1, len(axes), sharey=True), axes.items(), strict=True):
        for key in runs.SCORES:
            means, spreads = zip(*(over_seeds(results, f'{name}_{{seed}}', key) for name in points.values()))
            panel.errorbar(list(points), means, spreads, marker='o', capsize=4, label=key.replace('_', ' '))
        panel.set(title=title, ylim=(0, 100))
        panel.margins(x=0.15)
        panel.tick_params(axis='x', labelsize=8)
        panel.grid(alpha=0.3)
    figure.axes[0].set_ylabel('mIoU in percent')
    figure.axes[0].legend(fontsize=8, loc='lower right')
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description='The experiment behind the README\'s numbers for the miniature.')
    parser.add_argument('--work-dir', type=Path, default=REPOSITORY / 'work_dirs/miniature_experiment',
                        help='folder of its runs, which go on there (default: work_dirs/miniature_experiment)')
    parser.add_argument('--jobs', type=process.at_least_one, default=os.cpu_count() or 1,
                        help='runs side by side (default: one for each processor core)')
    parser.add_argument('--table', type=Path, metavar='FILE.json', help='print the tables of these results, no more')
    args = parser.parse_args()
    if args.table:
        results = runs.read_results(args.table)
        missing = [name for chain in chains(args.work_dir) for run in chain for name in outcomes(run)
                   if name not in results]
        if missing:
            raise UserError(f'{args.table} lacks {len(missing)} results, such as {missing[0]}: let the '
                            'experiment end.')
        print(tables(results))
        return
    work = args.work_dir.absolute()
    runs.end_on_sigterm()
    runs.open_folder(work, 'experiment.py', other='--work-dir DIR')
    os.environ['OMP_NUM_THREADS'] = str(max(1, (os.cpu_count() or 1) // args.jobs))
    for name, images in WORLDS.items():
        runs.draw_world(work, train=images, val=VAL_IMAGES, name=name)
    runs.embed(work, Run('', 'inductive'))  # which the runs side by side share
    results = Results(work / 'results.json')
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda chain: results.fill(work, chain), chains(work)))
    scaling_image(results, work / 'scaling.png')
    print(tables(results))


if __name__ == '__main__':
    process.run(main)
