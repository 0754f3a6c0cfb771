"""Time and memory of a model's testing and training, beside a plain ViT."""
import statistics
from argparse import Namespace
from pathlib import Path

import torch
from mmcv import Config
from prettytable import PrettyTable
from tqdm import tqdm

from models import CLIPRC
from models.precision import supported
from tools.benchmarking import subjects
from tools.benchmarking.measuring import Job, matrix_rate, measure, peak_memory
from tools.engine.flop_count import floors
from tools.engine.process import Place


class Subject:
    """One job to time.

    Args:
        job: run with the model's `training` and `amp_dtype` set to `train` and `dtype`.
        images: number of images that it processes.
        multiply_adds: of its floor, None if not counted.
    """

    def __init__(self, model: CLIPRC, job: Job, *, train: bool = False, dtype: torch.dtype | None = None,
                 images: int = 1, multiply_adds: int | None = None):
        self.model, self.job, self.train, self.dtype = model, job, train, dtype
        self.images, self.multiply_adds = images, multiply_adds

    def __call__(self) -> None:
        self.model.train(self.train)
        self.model.amp_dtype = self.dtype
        with torch.set_grad_enabled(self.train):
            self.job()


def make_subjects(model: CLIPRC, image: subjects.TestImage, args: Namespace, place: Place) -> dict[str, Subject]:
    """Make the jobs to time, by the names that the table shows."""
    side, batch, floor = model.backbone.input_resolution, args.batch, floors(model)
    images = torch.randn(batch, 3, side, side, device=place.device)
    labels = subjects.training_labels(model, batch, side, place.device)
    count = 'a window' if batch == 1 else f'{batch} windows'
    jobs = {}
    for dtype in [None, *([getattr(torch, args.amp)] if args.amp else [])]:
        name = 'float32' if dtype is None else args.amp
        if args.test:
            for title, job, number, work in (
                    (f'{count} -> scores', lambda: model.encode_decode(images, None), batch, batch * floor.window),
                    (f'{count} -> labels', lambda: subjects.window_labels(model, images), batch, batch * floor.window),
                    ('test image of 2 windows, file -> scores', image.run, 1, 2 * floor.window),
                    ('  the same, whole in one pass', image.run_whole, 1, None)):
                jobs[f'{title}, {name}'] = Subject(model, job, dtype=dtype, images=number, multiply_adds=work)
        if args.train:
            jobs[f'training step, batch {batch}, {name}'] = Subject(
                model, lambda: subjects.training_step(model, lambda x, y: model.forward_train(x, [{}] * batch, y),
                                                      images, labels),
                train=True, dtype=dtype, images=batch, multiply_adds=batch * floor.step)
    return jobs


def measure_all(config: Config, args: Namespace, place: Place, folder: Path) -> dict:
    """Measure all jobs; give the numbers as plain values. Drawn images go to `folder`."""
    model = subjects.model_of(config, place)
    image = subjects.TestImage(model, config, place, folder)
    jobs = make_subjects(model, image, args, place)
    with tqdm(total=(1 + args.repeats) * len(jobs), unit='measurement', disable=None) as progress:
        peaks = {}
        for name, job in jobs.items():
            peaks[name] = peak_memory(job, place.device)  # before other jobs fill the process's memory
            progress.update()
        timings, plain_seconds = measure(jobs, subjects.plain_pass(model, place.device), args.repeats, place.device,
                                         progress.update)
    floor = floors(model)
    rates = {dtype: matrix_rate(place.device, supported(dtype, place.device) or torch.float32)
             for dtype in {job.dtype for job in jobs.values()}}
    rows = []
    for name, job in jobs.items():
        row = {'name': name, **timings[name].as_dict(), 'peak_bytes': peaks[name]}
        row['images_per_second'] = job.images / row['seconds']
        if job.multiply_adds is not None:
            row['floor'] = job.multiply_adds / floor.plain
            row['multiply_adds_per_second'] = job.multiply_adds / row['seconds']
            row['share_of_matrix_rate'] = row['multiply_adds_per_second'] / rates[job.dtype]
        rows.append(row)
    return {'T_seconds': statistics.median(plain_seconds), 'multiply_adds': floor._asdict(), 'rows': rows,
            'matrix_rates': {str(dtype or torch.float32): rate for dtype, rate in rates.items()}}


def table(rows: list[dict]) -> str:
    """Format the rows as a table; times in milliseconds."""
    columns = {'x T': ('ratio', '{:.2f}', 1), 'floor': ('floor', '{:.2f}', 1),
               'peak GB': ('peak_bytes', '{:.2f}', 1e-9),
               'images/s': ('images_per_second', '{:.2f}', 1), 'GMAC/s': ('multiply_adds_per_second', '{:,.0f}', 1e-9),
               '% of matrix rate': ('share_of_matrix_rate', '{:.0f}', 100)}
    shown = PrettyTable(['', 'ms', 'least - most', *columns])
    shown.align = 'r'
    shown.align[''] = 'l'
    for row in rows:
        cells = ['' if row.get(key) is None else form.format(scale * row[key]) for key, form, scale in columns.values()]
        shown.add_row([row['name'], f'{1e3 * row["seconds"]:.1f}',
                       ' - '.join(f'{1e3 * value:.1f}' for value in row['seconds_spread']), *cells])
    return shown.get_string()
