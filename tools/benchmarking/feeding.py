"""Images per second that loader workers make, and how many workers a GPU needs."""
import math
import os
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from mmcv import Config
from prettytable import PrettyTable
from torch.utils.data import get_worker_info

from datasets.several import parts_of
from models.errors import UserError
from tools.benchmarking import subjects
from tools.engine.data import training_loader
from tools.engine.process import Place

IMAGES = 256  # that a worker loads while it is measured
RATES = 10, 30, 100, 300  # images per second of a GPU, where none is named


class TimedStep:
    """A step of the pipeline, or the collating of its samples, that adds its CPU time to `seconds`."""

    def __init__(self, step: Callable, name: str, seconds: Counter):
        self.step, self.name, self.seconds = step, name, seconds

    def __call__(self, value):
        started = time.process_time()
        result = self.step(value)
        self.seconds[self.name] += time.process_time() - started
        return result


def measure(config: Config, args: Namespace, place: Place, folder: Path) -> dict:
    """Measure the training pipeline with one worker, with half as many as there are cores, and with as many.

    Where the config's data is missing and --data-root is not given, an image is drawn to `folder`.
    """
    cores, source = len(os.sched_getaffinity(0)), 'the config\'s images'
    try:
        training_loader(config, place, 0, 0)
    except UserError as error:
        if args.data_root or 'pipeline' not in config.data.train:  # or wrapped datasets
            raise
        source = f'a drawn image: {error}'
        config.data.train = subjects.drawn_settings(20, folder / 'load', config.data.train.pipeline)
    counts = sorted({1, max(cores // 2, 1), cores})
    return {'source': source, 'cores': cores, 'rows': [loaded(config, place, count) for count in counts]}


def loaded(config: Config, place: Place, workers: int) -> dict:
    """Load images with so many workers, in the config's batches.

    Returns:
        images per second, CPU seconds of a worker per image (in all, and by step), and of this process per image.
    """
    config.data.workers_per_gpu = workers
    loader, seconds = training_loader(config, place, 0, 0), Counter()
    for part in parts_of(loader.dataset.dataset):
        part.pipeline.transforms = [TimedStep(step, type(step).__name__, seconds) for step in part.pipeline.transforms]
    collated = TimedStep(loader.collate_fn, 'collate, to shared memory', seconds)
    loader.collate_fn = lambda samples: {
        'batch': collated(samples), 'worker': get_worker_info().id,
        'seconds': {**seconds, 'all': time.process_time()}}  # no Counter: where batches are pinned it would be doubled
    size, spent, images, latest = config.data.samples_per_gpu, Counter(), 0, {}
    batches = iter(loader)
    for batch in islice(batches, 4 * workers):  # the loader holds two of each worker
        latest[batch['worker']] = batch['seconds']
    started, own = time.perf_counter(), time.process_time()
    for batch in islice(batches, workers * math.ceil(IMAGES / size)):
        spent.update(batch['seconds'])
        spent.subtract(latest[batch['worker']])
        latest[batch['worker']] = batch['seconds']
        images += size
    took, own = time.perf_counter() - started, time.process_time() - own
    steps = {name: value / images for name, value in spent.items()}
    total = steps.pop('all')
    steps['others, seeding and sending'] = total - sum(steps.values())
    return {'workers': workers, 'images_per_second': images / took, 'cpu_seconds': total, 'steps': steps,
            'cpu_seconds_of_this_process': own / images}


def workers_needed(load: dict, images_per_second: float) -> int:
    """Return how many workers load so many images per second, as busy as with all of this machine's cores."""
    return math.ceil(images_per_second * load['rows'][-1]['cpu_seconds'])


def answer(load: dict, wanted: list[int] | None) -> str:
    """Format the measurement as two tables, and tell the number of workers for each wanted rate."""
    rows = load['rows']
    steps = PrettyTable(['CPU ms of a worker per image', *(f'{row["workers"]} at work' for row in rows)])
    for name in [*rows[0]['steps'], 'in all']:
        values = [row['cpu_seconds'] if name == 'in all' else row['steps'][name] for row in rows]
        steps.add_row([name, *(f'{1e3 * value:.2f}' for value in values)])
    speeds = PrettyTable(['workers', 'images/s', 'images per second and core', 'CPU ms of the main process per image'])
    for row in rows:
        speeds.add_row([row['workers'], f'{row["images_per_second"]:.1f}', f'{1 / row["cpu_seconds"]:.1f}',
                        f'{1e3 * row["cpu_seconds_of_this_process"]:.2f}'])
    for shown in (steps, speeds):
        shown.align = 'r'
    steps.align['CPU ms of a worker per image'] = 'l'
    lines = [f'loading {load["source"]}', steps.get_string(), speeds.get_string()]
    for rate in wanted or RATES:
        count = workers_needed(load, rate)
        lines.append(f'a GPU that trains {rate} images/s needs {count} workers (data.workers_per_gpu={count}); this '
                     f'machine has {load["cores"]} cores' + (': too few' if count > load['cores'] else ''))
    return '\n'.join(lines)
