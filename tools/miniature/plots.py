"""The miniature's plots: losses of runs, and scores of the experiment against length, images, CLIP and masks."""
import json
import statistics
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SEEDS = (0, 1, 2)  # of the experiment
SCORES = ('mIoU_seen', 'mIoU_unseen', 'hIoU')


def losses(folder: Path) -> tuple[list[int], dict[str, list[float]]]:
    """Read the iterations and the losses, by their names, from the logs of a run; a later log wins."""
    entries = {}
    for log in sorted(folder.glob('*.log.json')):
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            if entry.get('mode') == 'train':
                entries[entry['iter']] = entry
    iterations = sorted(entries)
    names = [name for name in entries[iterations[-1]] if 'loss' in name] if iterations else []
    return iterations, {name: [entries[i].get(name, np.nan) for i in iterations] for name in names}


def loss_image(folders: dict[str, Path], file: Path) -> None:
    """Plot the weighted losses of each run against the iteration."""
    figure = Figure(figsize=(4.6 * len(folders), 3.4), layout='constrained', dpi=100)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(folders), sharey=True, squeeze=False)[0]
    for panel, (title, folder) in zip(panels, folders.items(), strict=True):
        iterations, curves = losses(folder)
        for name, values in curves.items():
            panel.plot(iterations, values, label=name, linewidth=2.2 if name == 'loss' else 1.2,
                       marker='o' if len(iterations) < 10 else None)
        panel.set(title=title, xlabel='iteration', yscale='log')
        panel.grid(alpha=0.3)
    panels[0].set_ylabel('loss')
    panels[-1].legend(fontsize=8)
    figure.savefig(file)


def over_seeds(results: dict, name: str, key: str) -> tuple[float, float]:
    """Return mean and standard deviation of a score in percent; '{seed}' in the name stands for each seed."""
    values = [100 * results[name.format(seed=seed)]['scores'][key] for seed in SEEDS]
    return statistics.mean(values), statistics.stdev(values)


def scaling_image(results: dict, file: Path) -> None:
    """Plot inductive scores against length, images, CLIP and masks: mean and standard deviation over seeds."""
    lengths = 'schedule_half', 'inductive', 'schedule_double', 'schedule_fourfold'
    worlds = 'world_quarter', 'inductive', 'world_fourfold'
    axes = {
        'iterations': {str(results[f'{name}_0']['iterations']): name for name in lengths},
        'images for training': {str(results[f'{name}_0']['images']): name for name in worlds},
        'CLIP': {'trained\na quarter': 'clip_short', 'as shipped': 'inductive', '1.5 times\nas deep': 'clip_deep'},
        'masks': {'of seen\nclasses': 'inductive', 'of all\nclasses': 'fully'},
    }
    figure = Figure(figsize=(14, 3.4), layout='constrained', dpi=100)
    FigureCanvasAgg(figure)
    for panel, (title, points) in zip(figure.subplots(1, len(axes), sharey=True), axes.items(), strict=True):
        for key in SCORES:
            means, spreads = zip(*(over_seeds(results, f'{name}_{{seed}}', key) for name in points.values()))
            panel.errorbar(list(points), means, spreads, marker='o', capsize=4, label=key.replace('_', ' '))
        panel.set(title=title, ylim=(0, 100))
        panel.margins(x=0.15)
        panel.tick_params(axis='x', labelsize=8)
        panel.grid(alpha=0.3)
    figure.axes[0].set_ylabel('mIoU in percent')
    figure.axes[0].legend(fontsize=8, loc='lower right')
    figure.savefig(file)
