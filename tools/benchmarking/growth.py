"""How cost grows with the number of classes, the side of the image and the batch; and a plot of it."""
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import torch
from mmcv import Config

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, StrMethodFormatter

from models import CLIPRC
from tools.benchmarking.measuring import Job, free_memory, measure, peak_memory
from tools.benchmarking.subjects import model_of, plain_pass, set_classes, training_labels, training_step, window_labels
from tools.engine.process import Place
from tools.engine.progress import Progress

VALUES = {'classes': (20, 50, 100, 171, 400, 1000), 'side': (256, 512, 768, 1024), 'batch': (1, 2, 4, 8, 16, 32)}
UNITS = {'classes': 'classes', 'side': 'side of the image in pixels', 'batch': 'images in a batch'}


def grow(config: Config, place: Place, repeats: int) -> dict[str, list[dict]]:
    """For each of `VALUES` a row: value, seconds and peak bytes of testing and of a training step.

    Sides that the patches or regions do not divide are left out; so is what would not fit into memory, with a word.
    """
    model = model_of(config, place)
    side, classes = model.backbone.input_resolution, model.num_classes
    seen_share = len(model.decode_head.class_head.seen) / classes
    yardstick = plain_pass(model, place.device)
    unit = model.backbone.patch_size * max(model.backbone.side, 1)
    found = {name: [] for name in VALUES}
    todo = [(name, value) for name, values in VALUES.items() for value in values if name != 'side' or value % unit == 0]
    with Progress(0, len(todo), 'points') as progress:
        for done, (name, value) in enumerate(todo, start=1):
            point = {'classes': classes, 'side': side, 'batch': 1} | {name: value}
            set_classes(model, point['classes'], max(1, round(seen_share * point['classes'])))
            found[name].append({name: value, **_cost(model, place, name, point, found[name], yardstick, repeats)})
            progress.update(done)
    return found


def _cost(model: CLIPRC, place: Place, name: str, point: dict[str, int], smaller: list[dict], yardstick: Job,
          repeats: int) -> dict:
    images = torch.randn(point['batch'], 3, point['side'], point['side'], device=place.device)
    labels = training_labels(model, point['batch'], point['side'], place.device)
    model.test_cfg.crop_size = model.test_cfg.stride = (point['side'],) * 2
    model.test_cfg.windows_per_batch = point['batch']
    jobs = {'test': torch.no_grad()(lambda: window_labels(model.eval(), images)),
            'train': lambda: training_step(model.train(), _losses(model), images, labels)}
    costs = {}
    for what, job in jobs.items():
        if _too_large(name, point, smaller, what, place):
            costs[what] = None
            continue
        peak = peak_memory(job, place.device)
        timings, _ = measure({what: job}, yardstick, repeats, place.device)
        costs[what] = {**timings[what].as_dict(), 'peak_bytes': peak}
    model.zero_grad(set_to_none=True)
    return costs


def _losses(model: CLIPRC):
    return lambda images, labels: model.forward_train(images, [{}] * len(images), labels)


def _too_large(name: str, point: dict[str, int], smaller: list[dict], what: str, place: Place) -> bool:
    """Whether the next point of a series may not fit: the last one's memory, scaled up, and some more."""
    if not smaller:
        return False
    last = smaller[-1]
    if last[what] is None or last[what]['peak_bytes'] is None:
        return last[what] is None
    scale = (point[name] / last[name])**(2 if name == 'side' else 1)
    return 1.2 * scale * last[what]['peak_bytes'] > free_memory(place.device)


def points(rows: list[dict], name: str, what: str, key: str) -> Iterator[tuple[int, float]]:
    for row in rows:
        if row[what] is not None and row[what][key] is not None:
            yield row[name], row[what][key]


def plot(found: dict[str, list[dict]], title: str, file: Path) -> None:
    """Time as a multiple of T, and peak memory, against each of `VALUES`."""
    figure, axes = plt.subplots(2, len(found), figsize=(12, 6.5), layout='constrained', sharex='col')
    for column, (name, rows) in enumerate(found.items()):
        for what, colour in (('test', 'tab:blue'), ('train', 'tab:orange')):
            label = {'test': 'testing', 'train': 'training step'}[what]
            for line, (key, scale) in enumerate((('ratio', 1.), ('peak_bytes', 1e-9))):
                xs, ys = zip(*points(rows, name, what, key), strict=True)
                axes[line, column].plot(xs, [scale * y for y in ys], marker='o', markersize=4, color=colour,
                                        label=label)
        for axis in axes[:, column]:
            axis.set_xscale('log', base=2 if name != 'classes' else 10)
            axis.set_yscale('log')
            axis.set_xticks([row[name] for row in rows], [str(row[name]) for row in rows])
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        axes[1, column].set_xlabel(UNITS[name])
    axes[0, 0].set_ylabel('time / T')
    axes[1, 0].set_ylabel('peak memory in GB')
    axes[0, 0].legend()
    figure.suptitle(title)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)
