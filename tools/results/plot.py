"""The summary as an image: mIoU of seen and of unseen classes and hIoU, measured scores above published ones."""
import statistics
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tools.results.published import SCORES
from tools.results.summary import SPREAD, Block, Value

RED, BLUE, GREY = '#c1121f', '#1d4e89', '#888888'


def draw(found: list[Block], file: Path) -> None:
    """Draw a row of panels for each block."""
    names = SCORES[1:]
    figure = Figure(figsize=(12, sum(0.3 * len(block.lines) + 0.9 for block in found)), layout='constrained', dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(found), len(names), squeeze=False, sharey='row', gridspec_kw={
        'height_ratios': [len(block.lines) + 0.6 for block in found]})
    for panels, block in zip(grid, found, strict=True):
        for panel, name in zip(panels, names, strict=True):
            values = [line.values[name] for line in block.lines if name in line.values]
            for place, line in enumerate(block.lines):
                if name in line.values:
                    _point(panel, place, line.values[name], measured=line.measured)
            if values:
                reach = max(2., max(values).centre - min(values).centre + 2 * max(value.half for value in values))
                middle = statistics.mean((max(values).centre, min(values).centre))
                panel.set_xlim(middle - 0.75 * reach, middle + 1.1 * reach)  # more on the right, for the text
            else:
                panel.set_xticks([])
                panel.text(0.5, 0.5, 'no such score', transform=panel.transAxes, ha='center', va='center', color=GREY)
            panel.set_xlabel(f'{name.replace("_", " ")}, percent', fontsize=9)
            panel.grid(axis='x', alpha=0.3)
            panel.tick_params(labelsize=8)
        panels[0].set_yticks(range(len(block.lines)), [line.label for line in block.lines], fontsize=9)
        panels[0].set_ylim(len(block.lines) - 0.4, -0.6)
        panels[0].set_title(f'{block.protocol}, {block.setting}', fontsize=10, weight='bold', loc='left')
    if any(len(block.runs) > 1 for block in found):
        figure.supxlabel(SPREAD, fontsize=9, color=GREY)
    figure.savefig(file, facecolor='white')


def _point(panel: Axes, place: int, value: Value, *, measured: bool) -> None:
    """Draw a score at a height of a panel, with its bar and its text."""
    colour = RED if measured else BLUE
    panel.errorbar(value.centre, place, xerr=value.half or None, color=colour, marker='o' if measured else 's',
                   markersize=7 if measured else 5, capsize=4)
    panel.annotate(value.text, (value.centre + value.half, place), (8, 0), textcoords='offset points', va='center',
                   fontsize=9, color=colour, weight='bold' if measured else None)
