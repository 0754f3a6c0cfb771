"""Curves of training runs: losses, learning rate and scores over iterations, from the logs in their work folders."""
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from mmcv.utils import get_logger

from datasets.metrics import OF_SPLITS
from models.errors import UserError
from tools.engine.plots import LINES, STEPS, even_ends, plot
from tools.engine.run_folder import EVALUATIONS, evaluations

RATE = 'learning rate'
SCORES = {name: f'{name.replace("_", " ")} in percent' for name in OF_SPLITS}
IN_TEXT = re.compile(r'Iter \[(\d+)/(\d+)\]\s+lr: ([\d.e+-]+)')  # iteration, planned iterations, learning rate
OF_ONE_RUN = re.compile(r'^(?:seed|work_dir) = .*\n', re.M)  # in a config; the seeds of a setting share the rest
COLUMNS = 3
FEW, MANY = 25, 200  # points: up to FEW are marked; from MANY on losses are smoothed, over 1/SHARE of the run
SHARE = 40
FAINT = {'alpha': 0.25, 'linewidth': 0.8}  # of values as they were logged, where their mean is drawn


class Run(NamedTuple):
    """What a run has logged."""
    folder: Path
    values: dict[str, dict[int, float]]  # name of a loss, RATE or a title of SCORES -> its values by iteration
    settings: str  # the same for the seeds of one setting
    planned: int | None  # iterations

    @property
    def last(self) -> int:
        return max(max(points) for points in self.values.values())


def read_run(folder: Path) -> Run:
    """Read what a run has logged; of iterations that were repeated after a resume, the later ones count.

    Raises:
        UserError: there is no log, or no iteration in it.
    """
    logs = sorted(folder.glob('*.log.json'))  # named by their time
    if not logs:
        below = next((f', such as {log.parent}' for log in sorted(folder.glob('*/*.log.json'))), '')
        raise UserError(f'no *.log.json in {folder}: name the work folder of a training{below}.')
    entries: dict[int, dict[str, float]] = {}
    planned = None
    for log in logs:
        later, text = read_log(log), log.with_suffix('')
        start = min(later, default=math.inf)
        entries = {iteration: entry for iteration, entry in entries.items() if iteration < start} | later
        # mmcv rounds learning rates to four digits in the text log, but to five decimals in JSON.
        for found in IN_TEXT.finditer(text.read_text(errors='replace')) if text.is_file() else ():
            planned = int(found[2])
            if int(found[1]) in later:
                later[int(found[1])][RATE] = float(found[3])
    if not any(entries.values()):
        raise UserError(f'{logs[-1]} holds no iteration yet: log_config.interval is the number until the first.')
    for iteration, scores in evaluations(folder / EVALUATIONS).items():
        entries.setdefault(iteration, {}).update({title: 100 * scores[name] for name, title in SCORES.items()
                                                  if isinstance(scores.get(name), (int, float))})
    values: dict[str, dict[int, float]] = {}
    for iteration, entry in sorted(entries.items()):
        for name, value in entry.items():
            values.setdefault(name, {})[iteration] = value
    above = str(folder.resolve().parent)  # may be in paths, as of a quickstart's world
    configs = [OF_ONE_RUN.sub('', file.read_text(errors='replace')).replace(above, '')
               for file in sorted(folder.glob('*.py'))]
    return Run(folder, values, '\n'.join(configs) or str(folder), planned)


def read_log(log: Path) -> dict[int, dict[str, float]]:
    """Read losses and learning rate by iteration from a log of JSON lines; the last one may be unfinished."""
    text, found, damaged = log.read_text(errors='replace'), {}, 0
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if entry.get('mode') == 'train':
                found[int(entry['iter'])] = {
                    RATE if name == 'lr' else name: float(value) for name, value in entry.items()
                    if isinstance(value, (int, float)) and (name == 'lr' or 'loss' in name)}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):  # numbers of any size
            damaged += number < len(lines) or text.endswith('\n')
    if damaged:
        get_logger('mmseg').warning('%s: %d damaged lines are left out', log, damaged)
    return found


def draw(runs: Sequence[Run], file: Path) -> None:
    """Draw a panel for each loss, the learning rate and each score; the seeds of a setting have one colour."""
    names = dict.fromkeys(name for run in runs for name in run.values)
    losses = sorted((name for name in names if name not in (RATE, *SCORES.values())), key=lambda name: name != 'loss')
    upper, scores = [*losses, *({RATE} & {*names})], [title for title in SCORES.values() if title in names]
    rows = [*(upper[start:start + COLUMNS] for start in range(0, len(upper), COLUMNS)), *filter(None, [scores])]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.settings, []).append(run)
    with plot(file, (4 * COLUMNS, 0.7 + 2.5 * len(rows) + 0.2 * len(groups))) as figure:
        grid = figure.subplots(len(rows), COLUMNS, squeeze=False)
        for axes in grid.flat:
            axes.set_visible(False)
        reach, smoothed = max(run.last for run in runs), False
        best = max((value for run in runs for title in scores for value in run.values.get(title, {}).values()
                    if math.isfinite(value)), default=0)
        for row, line in zip(rows, grid, strict=True):
            for name, axes in zip(row, line):
                axes.set_visible(True)
                axes.set_title(name.removeprefix('decode.').replace('_', ' '))
                for look, group in zip(looks(), groups.values()):
                    for run in group:
                        smoothed |= draw_curve(axes, run.values.get(name, {}), look, smooth=name in losses)
                axes.set_xlim(0, 1.03 * reach)
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=STEPS))
                axes.xaxis.set_major_formatter('{x:,.0f}')
                if name in losses:
                    scale_losses(axes)
                else:
                    axes.set_ylim(0, even_ends(0, max(best, 1))[1] if name in scores else None)
                if name == RATE:
                    axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
                    axes.yaxis.set_major_formatter('{x:.1e}')
        figure.supxlabel('iterations', fontsize=9)
        add_legend(figure, groups, smoothed=smoothed)


def draw_curve(axes: Axes, points: dict[int, float], look: dict, *, smooth: bool) -> bool:
    """Draw a curve, a long one also as its running mean if `smooth`; tell whether it was."""
    iterations, values = np.array([*points]), np.array([*points.values()], dtype=float)
    if smooth and len(points) >= MANY:
        axes.plot(iterations, values, **look | FAINT)
        axes.plot(iterations, running_mean(iterations, values), **look)
        return True
    axes.plot(iterations, values, marker='o' if len(points) <= FEW else None, **look)
    return False


def running_mean(iterations: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Average the finite values in a window of 1/SHARE of all iterations around each; nan at ends, where none fits."""
    half, finite = (iterations[-1] - iterations[0]) / SHARE / 2, np.isfinite(values)
    first = np.searchsorted(iterations, iterations - half)
    last = np.searchsorted(iterations, iterations + half, side='right')
    sums, counts = (np.concatenate([[0], np.cumsum(each)]) for each in (np.where(finite, values, 0), finite))
    with np.errstate(invalid='ignore'):  # also nan where no value is finite
        means = (sums[last] - sums[first]) / (counts[last] - counts[first])
    fits = (iterations - half >= iterations[0]) & (iterations + half <= iterations[-1])
    return np.where(fits, means, np.nan)


def scale_losses(axes: Axes) -> None:
    """Choose a logarithmic scale for losses that fall to less than a tenth."""
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    values = values[np.isfinite(values)]
    if len(values) and 0 < 10 * values.min() < values.max():
        axes.set_yscale('log')
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_major_formatter('{x:g}')
        axes.yaxis.set_minor_formatter(NullFormatter())


def looks() -> Iterator[dict]:
    """Yield colour and style of the lines of each group of runs."""
    while True:
        for style in ('-', '--', ':', '-.'):
            yield from ({'color': colour, 'linestyle': style} for colour in LINES)


def add_legend(figure: Figure, groups: dict[str, list[Run]], *, smoothed: bool) -> None:
    """Name the groups of runs above the panels, and what faint and strong lines are."""
    entries = []
    everyone = [run.folder.resolve() for group in groups.values() for run in group]
    above = os.path.commonpath([folder.parent for folder in everyone])
    for look, group in zip(looks(), groups.values()):
        name = joined([os.path.relpath(run.folder.resolve(), above) for run in group])
        last = {f'{run.last:,}' + (f' of {run.planned:,}' if run.planned else '') for run in group}
        runs = f'{len(group)} runs, ' if len(group) > 1 else ''
        entries.append(Line2D([], [], **look, label=f'{name}: {runs}iteration {" and ".join(sorted(last))}'))
    if smoothed:
        entries += [Line2D([], [], color='black', **FAINT, label='as logged'),
                    Line2D([], [], color='black', label=f'mean over 1/{SHARE} of the run')]
    legend = figure.legend(handles=entries, loc='outside upper left', ncols=min(len(entries), 3))
    for text in legend.get_texts():
        text.set_parse_math(False)  # a folder's name may have dollar signs


def joined(names: Sequence[str]) -> str:
    """Write several names as one, with * for what differs."""
    first = os.path.commonprefix(names)
    ends = os.path.commonprefix([name[len(first):].split(os.sep)[:0:-1] for name in names])  # whole folders, last first
    if len(names) == 1 or not first and not ends:
        return ', '.join(names)
    return os.sep.join([f'{first}*', *reversed(ends)])
