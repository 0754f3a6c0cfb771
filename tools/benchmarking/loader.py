"""How fast images come: the cost of each step of the training pipeline, and what workers deliver."""
import os
import time
from collections import defaultdict

from mmcv import Config
from prettytable import PrettyTable

from tools.engine.data import training_dataset, training_loader
from tools.engine.process import Place

SAMPLES, BATCHES = 40, 20


def steps_of(dataset) -> tuple[list, list]:
    """(datasets that hold images, pipeline steps of the first)."""
    parts = getattr(dataset, 'datasets', [dataset])
    return parts, parts[0].pipeline.transforms


def step_times(config: Config) -> dict[str, float]:
    """Milliseconds an image that each step of the training pipeline takes, in one process."""
    dataset = steps_of(training_dataset(config))[0][0]
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
    """Images a second that the training loader delivers with so many workers, 0 for none but the process itself."""
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
    """Costs of the steps in milliseconds, and images a second for 0, 1, 2, 4 ... workers, to one a core."""
    cores, counts = len(os.sched_getaffinity(0)), [0, 1]
    while counts[-1] * 2 <= cores:
        counts.append(counts[-1] * 2)
    return {'step_milliseconds': step_times(config), 'cores': cores,
            'images_per_second': {str(count): throughput(config, place, count) for count in counts}}


def table(found: dict) -> str:
    """The report as text."""
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
