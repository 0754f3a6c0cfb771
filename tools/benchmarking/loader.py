"""Measures the training pipeline: the time of each step, and images per second for several numbers of workers."""
import os
import time
from collections import defaultdict

from mmcv import Config
from prettytable import PrettyTable

from tools.engine.data import training_dataset, training_loader
from tools.engine.process import Place

SAMPLES, BATCHES = 40, 20


def step_times(config: Config) -> dict[str, float]:
    """Measure the milliseconds per image of each step of the training pipeline, in one process."""
    dataset = training_dataset(config)
    dataset = getattr(dataset, 'datasets', [dataset])[0]
    took = defaultdict(float)
    for index in range(SAMPLES + 1):
        results = {'img_info': dataset.img_infos[index % len(dataset)],
                   'ann_info': dataset.get_ann_info(index % len(dataset))}
        dataset.pre_pipeline(results)
        for step in dataset.pipeline.transforms:
            started = time.perf_counter()
            results = step(results)
            if index:  # the first one warms up
                took[type(step).__name__] += 1e3 * (time.perf_counter() - started) / SAMPLES
    return dict(took)


def throughput(config: Config, place: Place, workers: int) -> float:
    """Measure the images per second of the training loader; 0 workers means loading in this process."""
    config = Config(config._cfg_dict.to_dict())
    config.data.workers_per_gpu = workers
    batches = iter(training_loader(config, place, seed=0, start=0))
    warm = max(2, 2 * workers)
    for _ in range(warm):
        next(batches)
    started = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    return BATCHES * config.data.samples_per_gpu / (time.perf_counter() - started)


def report(config: Config, place: Place) -> dict:
    """Measure the steps in milliseconds, and images per second for 0, 1, 2, 4 ... workers, up to one per core."""
    cores, counts = len(os.sched_getaffinity(0)), [0, 1]
    while counts[-1] * 2 <= cores:
        counts.append(counts[-1] * 2)
    return {'step_milliseconds': step_times(config), 'cores': cores,
            'images_per_second': {str(count): throughput(config, place, count) for count in counts}}


def table(found: dict) -> str:
    """Format the report as text."""
    steps = PrettyTable(['step of the training pipeline', 'ms an image'])
    steps.align = 'r'
    steps.align['step of the training pipeline'] = 'l'
    total = sum(found['step_milliseconds'].values())
    rows = [*found['step_milliseconds'].items(), ('all', total)]
    for place, (name, value) in enumerate(rows):
        steps.add_row([name, f'{value:.1f}'], divider=place == len(rows) - 2)
    speeds = ', '.join(f'{count}: {rate:.1f}' for count, rate in found['images_per_second'].items())
    return (f'{steps}\nworkers (0: the process itself): images/s on {found["cores"]} cores: {speeds}\n'
            f'a GPU that trains on N images/s needs N / {1e3 / total:.0f} cores for its workers')
