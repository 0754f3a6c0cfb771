"""The look of plots: letters, lines, ticks, and a file that is never written in part."""
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from models.colours import OKABE_ITO
from tools.engine.files import atomic_path

STYLE = {
    'font.size': 9, 'axes.titlesize': 10, 'axes.titlelocation': 'left', 'axes.labelsize': 9, 'legend.fontsize': 9,
    'axes.grid': True, 'grid.alpha': 0.3, 'axes.axisbelow': True, 'axes.spines.top': False,
    'axes.spines.right': False, 'legend.frameon': False, 'lines.linewidth': 1.6, 'lines.markersize': 4,
    'errorbar.capsize': 3, 'savefig.dpi': 120}
LINES = [tuple(part / 255 for part in colour) for colour in OKABE_ITO[:6]]  # their yellow is too light on white
STEPS = [1, 2, 5, 10]  # between ticks, times a power of 10


@contextmanager
def plot(file: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """Give a figure of `size` inches to draw on; it is written to `file` if the block ends without an error."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout='constrained')
        FigureCanvasAgg(figure)
        yield figure
        with atomic_path(file) as part:
            figure.savefig(part)


def even_ends(low: float, high: float) -> tuple[float, float]:
    """Widen a range of values to ends at which `even_ticks` has ticks, so that a scale shows all values."""
    ticks = MaxNLocator(6, steps=STEPS).tick_values(low, high)
    return float(ticks[0]), float(ticks[-1])


def even_ticks() -> MaxNLocator:
    return MaxNLocator(7, steps=STEPS)  # not 6: rounding must not make the steps of `even_ends` coarser
