"""Plot of time and memory over the number of classes."""
import math
from pathlib import Path

from tools.engine.plots import LINES, plot


def draw(report: dict, file: Path) -> None:
    """Draw the numbers of `cost.measure_all` for each count of classes: times with their floors, and peak memory."""
    counts = [*report['classes']]
    lines = list(zip(*(numbers['rows'] for numbers in report['classes'].values()), strict=True))  # of each job
    with plot(file, (8, 3.4)) as figure:
        times, memory = figure.subplots(1, 2)
        for colour, rows in zip(LINES, lines):
            look = {'color': colour, 'marker': 'o', 'label': rows[0]['name']}
            times.plot(counts, [row['ratio'] for row in rows], **look)
            times.plot(counts, [row['floor'] for row in rows], color=colour, linestyle='--')
            memory.plot(counts, [math.nan if row['peak_bytes'] is None else 1e-9 * row['peak_bytes'] for row in rows],
                        **look)
        times.plot([], color='grey', linestyle='--', label='floor: multiply-adds')
        for axes, title in ((times, 'time / time of a plain ViT'), (memory, 'peak memory in GB')):
            axes.set(title=title, xlabel='classes', ylim=(0, 1.05 * axes.dataLim.ymax))
        figure.legend(*times.get_legend_handles_labels(), loc='outside lower center', ncols=2)
