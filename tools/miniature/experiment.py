#!/usr/bin/env python3
"""The long experiment behind the README's numbers: `python tools/miniature/experiment.py`. It goes on where it stopped.

Three seeds of the method in all settings, with the control; ablations; what a longer schedule, more pictures and other
CLIPs give. Keeps results.json in its work folder and draws scaling.png there; `--table FILE.json` prints the README's
table of such a file.
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
import tools  # noqa: F401  first: it quietens the imports below

# isort: split
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tools import launch
from tools.config import REPOSITORY
from tools.miniature import runs
from tools.miniature.quickstart import PICTURES, VAL_PICTURES
from tools.miniature.runs import Run

SEEDS = (0, 1, 2)
NO_REGIONS = {'model.backbone.region_level_bridge_size': 0}
NO_RECOVERY = {'model.decode_head.loss_decode.recovery_loss_weight': 0}
ABLATIONS = {'without region tokens': NO_REGIONS, 'without recovery': NO_RECOVERY,
             'without both': NO_REGIONS | NO_RECOVERY}
CONTROL = ', unseen names swapped'
# What is varied beside: CLIPs, by options of train_clip.py and of the config, and the number of pictures to train on.
CLIPS = {'clip_short': (['--iterations', '500'], {}),
         'clip_deep': (['--layers', '6'], {'model.backbone.layers': 6})}
LENGTHS = {'half': 0.5, 'double': 2., 'fourfold': 4.}
WORLDS = {'world': PICTURES, 'world_quarter': PICTURES // 4, 'world_fourfold': 4 * PICTURES}


def chains(work: Path) -> list[list[Run]]:
    """All runs; those of a chain depend on each other. The most important first."""
    found = []
    for seed in SEEDS:
        first = Run(f'inductive_{seed}', 'inductive', seed=seed)
        found.append([first, Run(f'transductive_{seed}', 'transductive', seed=seed, start=first)])
    found += [[Run(f'{name.replace(" ", "_")}_{seed}', 'inductive', seed=seed, options=options)]
              for seed in SEEDS for name, options in ABLATIONS.items()]
    found += [[Run(name, 'inductive', clip=work / f'{name}.pt', options=options)]
              for name, (_, options) in CLIPS.items()]
    found += [[Run(f'fully_{seed}', 'fully', seed=seed)] for seed in SEEDS]
    found += [[Run(name, 'inductive', world=name)] for name in WORLDS if name != 'world']
    found += [[Run(f'schedule_{name}', 'inductive', length=factor)] for name, factor in LENGTHS.items()]
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
                         'pictures': WORLDS[run.world], 'clip': run.clip.stem, 'options': run.options,
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
        super().__init__(json.loads(file.read_text()) if file.exists() else {})
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


def several(results: dict, names: list[str]) -> list[str]:
    """'mean ± standard deviation' in percent over runs, for each of the scores."""
    cells = []
    for key in runs.SCORES:
        values = [100 * results[name]['scores'][key] for name in names]
        cells.append(f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}')
    return cells


def tables(results: dict) -> str:
    """The README's tables in Markdown: the settings with the control, and the ablations."""
    rows = {'inductive': 'inductive', 'transductive': 'transductive', 'fully supervised': 'fully'}
    rows = {title: [f'{name}_{seed}' for seed in SEEDS] for title, name in rows.items()}
    rows['control: inductive, unseen names swapped'] = [f'inductive_{seed}{CONTROL}' for seed in SEEDS]
    rows['control: transductive, unseen names swapped'] = [f'transductive_{seed}{CONTROL}' for seed in SEEDS]
    rows |= {f'inductive {name}': [f'{name.replace(" ", "_")}_{seed}' for seed in SEEDS] for name in ABLATIONS}
    lines = ['| mIoU in percent | seen | unseen | hIoU |', '| --- | --- | --- | --- |']
    lines += [f'| {title} | {" | ".join(several(results, names))} |' for title, names in rows.items()]
    return '\n'.join(lines)


def scaling_picture(results: dict, file: Path) -> None:
    """Scores of inductive training against length, pictures and CLIP, seed 0."""
    axes = {
        'iterations': {str(results[name]['iterations']): name for name in (
            'schedule_half', 'inductive_0', 'schedule_double', 'schedule_fourfold')},
        'pictures to train on': {str(results[name]['pictures']): name for name in (
            'world_quarter', 'inductive_0', 'world_fourfold')},
        'CLIP': {'trained\na quarter': 'clip_short', 'as shipped': 'inductive_0', '1.5 times\nas deep': 'clip_deep'},
        'masks': {'of seen\nclasses': 'inductive_0', 'of all\nclasses': 'fully_0'},
    }
    figure = Figure(figsize=(14, 3.4), layout='constrained', dpi=100)
    FigureCanvasAgg(figure)
    for panel, (title, points) in zip(figure.subplots(1, len(axes), sharey=True), axes.items(), strict=True):
        for key in runs.SCORES:
            panel.plot(list(points), [100 * results[name]['scores'][key] for name in points.values()], marker='o',
                       label=key.replace('_', ' '))
        panel.set(title=title, ylim=(0, 100))
        panel.margins(x=0.15)
        panel.tick_params(axis='x', labelsize=8)
        panel.grid(alpha=0.3)
    figure.axes[0].set_ylabel('mIoU in percent')
    figure.axes[0].legend(fontsize=8)
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description='The experiment behind the README\'s numbers for the miniature.')
    parser.add_argument('--work-dir', type=Path, default=REPOSITORY / 'work_dirs/miniature_experiment')
    parser.add_argument('--jobs', type=int, default=max(1, (os.cpu_count() or 1)), help='runs side by side')
    parser.add_argument('--table', type=Path, metavar='FILE.json', help='print the tables of these results, no more')
    args = parser.parse_args()
    if args.table:
        print(tables(json.loads(args.table.read_text())))
        return
    work = args.work_dir.absolute()
    runs.open_folder(work)
    os.environ['OMP_NUM_THREADS'] = str(max(1, (os.cpu_count() or 1) // args.jobs))
    for name, pictures in WORLDS.items():
        runs.draw_world(work, train=pictures, val=VAL_PICTURES, name=name)
    runs.embed(work, Run('', 'inductive'))  # which the runs side by side share
    results = Results(work / 'results.json')
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda chain: results.fill(work, chain), chains(work)))
    scaling_picture(results, work / 'scaling.png')
    print(tables(results))


if __name__ == '__main__':
    launch.run(main)
