#!/usr/bin/env python3
"""Scores of runs, mean and spread over seeds, beside the published rows: `python tools/summarize.py WORK_DIR...`.

Tests of the same config in several work folders are the seeds of one row. Of each folder the checkpoint that was
trained longest counts, and its newest test. A config of yours, of a dataset, split and setting that a config of this
repository has, stands beside it. Prints one table; writes it as Markdown and as an image.
"""
import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, whoever else has one
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmseg.datasets import DATASETS
from prettytable import PrettyTable

from datasets.metrics import zero_shot_scores
from models.errors import UserError
from tools.engine import process
from tools.preparation.sources import BENCHMARKS
from tools.results import leaves, published
from tools.results.leaves import Leaf
from tools.results.published import SCORES

OURS = 'this code'
HEAD = 'protocol', 'setting', 'scores of'
COSTS = {'trained_parameters': 'trained (M)', 'seconds': 's / iteration'}  # shown where they are known
SPREAD = 'Of several runs: mean ± sample standard deviation.'
RED, BLUE, GREY = '#c1121f', '#1d4e89', '#888888'


class Run(NamedTuple):
    """A test in a work folder: the one that counts of its config."""
    folder: Path
    config: str  # path as test.py was given it
    multi_scale: bool
    scores: dict[str, float | None]  # fractions; those of classes too, as 'IoU.<class>'
    checkpoint: str | None  # its file's name; this and the next two are None where an older test.py did not say
    iteration: int | None
    images: int | None  # that were tested
    setting: str | None = None  # this and the next three too
    protocol: str | None = None
    own_modules: tuple[str, ...] = ()  # of the user, that it was trained or tested with
    trained_parameters: int | None = None
    seconds: float | None = None  # of a training iteration, by the log in the folder
    note: str = ''

    @property
    def classes(self) -> tuple[str, ...]:
        """Of 'IoU.<class>', 'Dice.<class>' and the like."""
        return tuple(dict.fromkeys(name.split('.', 1)[1] for name in self.scores if '.' in name))

    @property
    def kind(self) -> tuple:
        """What tests must share to be of one row, beside the config."""
        return self.classes, self.multi_scale, self.images


class Value(NamedTuple):
    """A score in percent: centre and half width of its bar, and how it is written."""
    centre: float
    half: float
    text: str


class Line(NamedTuple):
    """A line of the table; scores and costs that do not exist are not in `values`."""
    measured: bool
    label: str
    values: dict[str, Value]
    note: str = ''


class Block(NamedTuple):
    """The seeds of one config and of others of the same task, and the published rows that they compare with."""
    protocol: str
    setting: str
    runs: list[Run]
    lines: list[Line]


def tests_that_count(folder: Path) -> list[Run]:
    """Of each config, class list and number of images in the folder, the newest test of the last checkpoint.

    So neither a test of an earlier checkpoint nor one on other data hides the score of the run.

    Raises:
        UserError: there is none, or one is damaged or of something else.
    """
    files = [*folder.glob('eval_*.json'), *folder.glob('eval_results/eval_*.json')]
    if not files:
        raise UserError(f'no eval_*.json in {folder}: test a checkpoint first, `python test.py CONFIG CHECKPOINT '
                        f'--eval mIoU --work-dir {folder}`.')
    groups: dict[tuple, list[Run]] = {}
    for file in sorted(files, key=lambda file: file.stat().st_mtime):
        test = read_test(file, folder)
        groups.setdefault((test.config, *test.kind), []).append(test)
    return [_that_counts(group) for group in groups.values()]


def _that_counts(tests: list[Run]) -> Run:
    """Of tests in order of time, with a note of the checkpoints that do not count."""
    def rank(test: Run) -> tuple:  # of equals the later one counts
        return 'mIoU' in test.scores or 'hIoU' in test.scores, test.iteration or 0

    *_, last = sorted(tests, key=rank)
    others = sorted({test.checkpoint or 'a checkpoint of no known name' for test in tests
                     if (test.checkpoint, test.iteration) != (last.checkpoint, last.iteration)})
    return last._replace(note=f'{last.folder}: the score is that of {last.checkpoint}; not counted: '
                              f'{", ".join(others)}' if others else '')


def read_test(file: Path, folder: Path) -> Run:
    """A JSON that test.py wrote.

    Raises:
        UserError: it is damaged or of something else.
    """
    try:
        found = json.loads(file.read_text())
    except ValueError as error:  # no JSON, or no text
        raise UserError(f'{file} is damaged: remove it, and test again.') from error
    config, metric = (found.get('config'), found.get('metric')) if isinstance(found, dict) else (None, None)
    if not isinstance(config, str) or not isinstance(metric, dict) or not all(map(_is_score, metric.values())):
        raise UserError(f'{file} is no result of test.py ({{"config": ..., "metric": {{...}}}}): move it elsewhere.')
    scores = {name: None if value is None or math.isnan(value) else value for name, value in metric.items()}
    checkpoint = found.get('checkpoint')
    counts = {name: value for name in ('iteration', 'images', 'trained_parameters')
              if isinstance(value := found.get(name), int)}
    told = {name: value for name in ('setting', 'protocol') if isinstance(value := found.get(name), str)}
    return Run(folder, config, file.name.startswith('eval_multi'), scores,
               checkpoint=Path(checkpoint).name if isinstance(checkpoint, str) else None,
               own_modules=tuple(map(str, found.get('own_modules') or ())), seconds=seconds_an_iteration(folder),
               **{'iteration': None, 'images': None, **counts, **told})


def seconds_an_iteration(folder: Path) -> float | None:
    """The median in the newest training log of a work folder; None if there is none."""
    for log in sorted(folder.glob('*.log.json'), reverse=True):  # named by time
        times = [float(time) for time in re.findall(r'"mode": "train".*"time": ([\d.]+)', log.read_text())]
        if times:
            return statistics.median(times)
    return None


def _is_score(value) -> bool:
    return value is None or isinstance(value, (int, float)) and not isinstance(value, bool)


def images_of(leaf: Leaf | None) -> int | None:
    """How many images the published scores of a leaf's dataset are of; None if it is no benchmark."""
    dataset = DATASETS.get(leaf.config.data.test.type) if leaf else None
    return next((split.count for benchmark in BENCHMARKS.values() for split in benchmark.splits
                 if dataset and issubclass(dataset, DATASETS.get(benchmark.dataset)) and split.name == 'val'), None)


def leaf_of(run: Run) -> Leaf | None:
    """The config of this repository that a run is of: by file name, and by the run's classes and split."""
    return None if run.own_modules else next(
        (leaf for leaf in leaves.called(Path(run.config).name) if _same_split(run, leaf)), None)


def leaf_beside(run: Run) -> Leaf | None:
    """The config of this repository that a run compares with: of the same classes, split, protocol and setting.

    One whose scores are published, where there is one.
    """
    if (own := leaf_of(run)) is not None:
        return own
    alike = [leaf for leaf in leaves.leaves().values() if run.classes and _same_split(run, leaf) and
             (leaf.setting, leaf.protocol) == (run.setting, run.protocol)]
    return min(alike, key=lambda leaf: 'published' not in leaf.config, default=None)


def _same_split(run: Run, leaf: Leaf) -> bool:
    """Whether a run's scores are those of the leaf's split; also when they tell nothing of classes."""
    split = leaf.facts.split
    if not run.classes:
        return True
    if run.classes != split.names:
        return False
    iou = np.array([run.scores.get(f'IoU.{name}') for name in split.names], dtype=float)
    return all(run.scores.get(name) is None or abs(run.scores[name] - score) < 1e-3
               for name, score in zero_shot_scores(iou, split.seen, split.unseen).items())


def blocks(runs: Sequence[Run]) -> list[Block]:
    """Runs of the same config together, and in one block what compares, in the order in which they were named."""
    found: dict[tuple, dict[tuple, list[Run]]] = {}
    for run in runs:
        own, beside = leaf_of(run), leaf_beside(run)
        block = found.setdefault((beside is None, beside.name if beside else run.config, *run.kind), {})
        block.setdefault((own is None, own.name if own else run.config), []).append(run)
    return [_block(list(groups.values())) for groups in found.values()]


def _block(groups: list[list[Run]]) -> Block:
    runs = [run for group in groups for run in group]
    leaf = leaf_beside(runs[0])
    lines = [_measured(group, leaf) for group in groups]
    if leaf is None:
        return Block(Path(runs[0].config).name, '-', runs, lines)
    printed_rows = published.others(leaf.protocol, leaf.setting)
    if leaf.config.get('published'):
        note = published.NOTES.get((leaf.protocol, leaf.setting), '')
        printed_rows.insert(0, published.Row('CLIP-RC', leaf.setting, (leaf.protocol,), note=note,
                                             **{name: leaf.config.published.get(name) for name in SCORES}))
    for row in printed_rows:
        values = {name: printed(score) for name in SCORES if (score := getattr(row, name)) is not None}
        lines.append(Line(False, f'published: {row.method}', values, row.note))
    protocol = published.PROTOCOLS.get(leaf.protocol) or leaf.name.removeprefix('configs/')
    return Block(protocol, leaf.setting.replace('_', ' '), runs, lines)


def _measured(runs: list[Run], beside: Leaf | None) -> Line:
    """The seeds of one config as a line."""
    first, all_images = runs[0], images_of(beside)
    label = OURS if beside is None or leaf_of(first) else Path(first.config).stem
    label += f', {len(runs)} run{"s" if len(runs) > 1 else ""}{", six scales" if first.multi_scale else ""}'
    if first.images not in (None, all_images):
        label += f', {first.images:,}{f" of {all_images:,}" if all_images else ""} images'
    values = {name: value for name in SCORES if (value := over_seeds(runs, name))}
    for name, form, scale in (('trained_parameters', '{:.2f}', 1e-6), ('seconds', '{:.3f}', 1)):
        known = [getattr(run, name) for run in runs]
        if None not in known:
            mean = scale * statistics.mean(known)
            values[name] = Value(mean, 0., form.format(mean))
    note = '; '.join(run.note for run in runs if run.note)
    namesakes = [] if beside or first.own_modules else leaves.called(Path(first.config).name)
    if namesakes:
        note = '; '.join(filter(None, (f'of other classes or another split than {namesakes[0].name}', note)))
    return Line(True, label, values, note)


def over_seeds(runs: list[Run], name: str) -> Value | None:
    """Mean and sample standard deviation of a score; None unless every run has it."""
    scores = [run.scores.get(name) for run in runs]
    if None in scores:
        return None
    mean = 100 * statistics.mean(scores)
    if len(scores) == 1:
        return Value(mean, 0., f'{mean:.1f}')
    spread = 100 * statistics.stdev(scores)
    return Value(mean, spread, f'{mean:.1f} ± {spread:.1f}')


def printed(score: float | tuple[float, float]) -> Value:
    """A published score."""
    if isinstance(score, tuple):
        return Value(sum(score) / 2, (score[1] - score[0]) / 2, f'{score[0]} to {score[1]}')
    return Value(score, 0., str(score))


def notes(found: list[Block]) -> list[str]:
    """What belongs to lines of the table, in its order, each text once."""
    return list(dict.fromkeys(line.note for block in found for line in block.lines if line.note))


def columns(found: list[Block]) -> dict[str, str]:
    """Scores, and the costs that a line has -> their names in the table's head."""
    known = {name for block in found for line in block.lines for name in line.values}
    return {name: name.replace('_', ' ') for name in SCORES} | {name: COSTS[name] for name in COSTS if name in known}


def rows(found: list[Block]) -> list[list[str]]:
    """The table's cells below the head. A number in brackets points to a note."""
    numbers = {note: f' [{number}]' for number, note in enumerate(notes(found), start=1)}
    names = columns(found)
    return [[block.protocol, block.setting, line.label + numbers.get(line.note, ''),
             *(line.values[name].text if name in line.values else '-' for name in names)]
            for block in found for line in block.lines]


def terminal_table(found: list[Block]) -> str:
    """The table as text, with the notes."""
    table = PrettyTable([*HEAD, *columns(found).values()], align='r')
    for name in HEAD:
        table.align[name] = 'l'
    cells = iter(rows(found))
    for block in found:
        for place in range(len(block.lines)):
            table.add_row(next(cells), divider=place == len(block.lines) - 1)
    return '\n'.join([table.get_string(), *(f'[{number}] {note}' for number, note in enumerate(notes(found), 1))])


def markdown(found: list[Block], image: str) -> str:
    """The table for GitHub, the notes, the runs behind it, the image."""
    head = [*HEAD, *columns(found).values()]
    lines = ['# Scores in percent', '', f'| {" | ".join(head)} |', '| --- | --- | --- |' + ' ---: |' * len(head[3:]),
             *(f'| {" | ".join(cell.replace("|", "/") for cell in cells)} |' for cells in rows(found)), '',
             *([SPREAD, ''] if any(len(block.runs) > 1 for block in found) else [])]
    lines += [f'- [{number}] {note}.' for number, note in enumerate(notes(found), 1)]
    for block in found:
        sources = ', '.join(f'`{Path(run.config).name}` from `{run.folder}`' for run in block.runs)
        lines.append(f'- {block.protocol}, {block.setting}: {sources}.')
    return '\n'.join([*lines, '', f'![The same as an image]({image})', ''])


def draw(found: list[Block], file: Path) -> None:
    """A row of panels for each block: mIoU of seen and of unseen classes and hIoU, measured above published."""
    names = SCORES[1:]
    figure = Figure(figsize=(12, sum(0.3 * len(block.lines) + 0.9 for block in found)), layout='constrained', dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(found), len(names), squeeze=False, sharey='row', gridspec_kw={
        'height_ratios': [len(block.lines) + 0.6 for block in found]})
    for panels, block in zip(grid, found, strict=True):
        known = [[line.values[name] for line in block.lines if name in line.values] for name in names]
        reach = max([2., *(max(value.centre + value.half for value in values) -
                           min(value.centre - value.half for value in values) for values in known if values)])
        for panel, name, values in zip(panels, names, known, strict=True):
            for place, line in enumerate(block.lines):
                if name in line.values:
                    _point(panel, place, line.values[name], measured=line.measured)
            middle = statistics.mean((max(values).centre, min(values).centre)) if values else 50.
            left, right = middle - 0.75 * reach, middle + 1.1 * reach  # more on the right, for the text
            panel.set_xlim(left, right)
            panel.set_xticks([tick for tick in panel.get_xticks() if max(0, left) <= tick <= min(100, right)])
            panel.set_xlabel(f'{name.replace("_", " ")}, percent', fontsize=9)
            panel.grid(axis='x', alpha=0.3)
            panel.tick_params(labelsize=8)
            if not values:
                panel.set_xticks([])
                panel.text(0.5, 0.5, 'no such score', transform=panel.transAxes, ha='center', va='center', color=GREY)
        panels[0].set_yticks(range(len(block.lines)), [line.label for line in block.lines], fontsize=9)
        panels[0].set_ylim(len(block.lines) - 0.4, -0.6)
        panels[0].set_title(f'{block.protocol}, {block.setting}', fontsize=10, weight='bold', loc='left')
    if any(len(block.runs) > 1 for block in found):
        figure.supxlabel(SPREAD, fontsize=9, color=GREY)
    figure.savefig(file, facecolor='white')


def _point(panel: Axes, place: int, value: Value, *, measured: bool) -> None:
    """A score at a height of a panel, with its bar and its text."""
    colour = RED if measured else BLUE
    panel.errorbar(value.centre, place, xerr=value.half or None, color=colour, marker='o' if measured else 's',
                   markersize=7 if measured else 5, capsize=4)
    panel.annotate(value.text, (value.centre + value.half, place), (8, 0), textcoords='offset points', va='center',
                   fontsize=9, color=colour, weight='bold' if measured else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=f'{__doc__.split(":")[0]}.')
    parser.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR', help='holds eval_*.json of test.py')
    parser.add_argument('--out', type=Path, metavar='PREFIX',
                        help='writes PREFIX.md and PREFIX.png (default: summary, beside the first work folder)')
    args = parser.parse_args()
    out = args.out or args.work_dirs[0].absolute().parent / 'summary'
    text, image = Path(f'{out}.md'), Path(f'{out}.png')
    own = (text.absolute(), image.absolute())  # which WORK/* names too, the second time
    folders = [folder for folder in {folder.resolve(): folder for folder in args.work_dirs}.values()
               if folder.absolute() not in own]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing or not folders:
        raise UserError(f'no folder {", ".join(missing) or out.parent}: name the work folders of tested runs.')
    process.make_folder(out.parent)
    if text.is_dir() or image.is_dir():
        raise UserError(f'--out {out}: {text} or {image} is a folder. Name another one.')
    found = blocks([run for folder in folders for run in tests_that_count(folder)])
    draw(found, image)
    text.write_text(markdown(found, image.name))
    print(terminal_table(found))
    print(f'written: {text}, {image}')


if __name__ == '__main__':
    process.run(main)
