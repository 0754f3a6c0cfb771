"""The look of all plots: letters, lines, colours, ticks, and a file that is never written in part."""
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tools.engine.files import atomic_path

STYLE = {
    'font.size': 9, 'axes.titlesize': 10, 'axes.titlelocation': 'left', 'axes.labelsize': 9, 'legend.fontsize': 9,
    'axes.grid': True, 'grid.alpha': 0.3, 'axes.axisbelow': True, 'axes.spines.top': False,
    'axes.spines.right': False, 'legend.frameon': False, 'lines.linewidth': 1.6, 'lines.markersize': 4,
    'errorbar.capsize': 3, 'savefig.dpi': 120, 'agg.path.chunksize': 50_000}
# Of Okabe and Ito, for all kinds of colour vision; their yellow is too light for lines.
COLOURS = '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#444444'
OF_SCORES = {'mIoU_seen': '#0072b2', 'mIoU_unseen': '#d55e00', 'hIoU': '#222222'}


@contextmanager
def plot(file: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """Give a figure of `size` inches to draw on; it is written to `file` if the block ends without an error."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout='constrained')
        FigureCanvasAgg(figure)
        yield figure
        with atomic_path(file) as part:
            figure.savefig(part)


def even_ends(low: float, high: float, count: int = 4) -> tuple[float, float]:
    """Widen a range of values to ends at which a scale of about `count` regular steps has ticks."""
    ticks = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return float(ticks[0]), float(ticks[-1])
