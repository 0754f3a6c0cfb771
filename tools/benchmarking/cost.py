"""Time and memory of a model's testing and training, beside a plain ViT."""
import copy
import statistics
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import torch
from mmcv import Config
from mmcv.parallel import collate
from prettytable import PrettyTable
from tqdm import tqdm

from datasets import ZeroShotDataset
from models import CLIPRC
from models.precision import supported
from models.visibility import FORMS
from tools.benchmarking import subjects
from tools.benchmarking.measuring import Job, matrix_rate, measure, peak_memory
from tools.engine import process
from tools.engine.data import evaluation_dataset
from tools.engine.evaluation import label_maps
from tools.engine.flop_count import floors
from tools.engine.process import Place


class Subject(NamedTuple):
    """One job to time; it runs with the model's `training`, `amp_dtype`, ... set to these."""
    model: CLIPRC
    job: Job
    dtype: torch.dtype | None
    images: int  # that it processes
    multiply_adds: int | None  # of its floor
    mode: str
    attention: str  # the encoder's
    train: bool = False

    def __call__(self) -> None:
        self.model.train(self.train)
        self.model.amp_dtype, self.model.test_cfg.mode = self.dtype, self.mode
        self.model.backbone.attention = self.attention
        with torch.set_grad_enabled(self.train):
            self.job()


def make_subjects(model: CLIPRC, dataset: ZeroShotDataset, args: Namespace, place: Place) -> dict[str, Subject]:
    """Make the jobs to time, by the names that the table shows."""
    wrapped, usual, form = process.wrap(model, place), model.test_cfg.mode, model.backbone.attention
    side, batch, floor = model.backbone.input_resolution, args.batch, floors(model)
    images = torch.randn(batch, 3, side, side, device=place.device)
    metas = [{'img_shape': (side, side), 'ori_shape': (side, side)}] * batch
    labels = subjects.training_labels(model, batch, side, place.device)
    count = 'a window' if batch == 1 else f'{batch} windows'

    def test() -> None:
        """Test the image as test.py does, from its file to its scores."""
        batch = collate([dataset[0]], samples_per_gpu=1)  # as the loader does
        dataset.pre_eval(label_maps(wrapped, [batch], place)[0], 0)

    jobs = {}
    for dtype in [None, *([getattr(torch, args.amp)] if args.amp else [])]:
        name = 'float32' if dtype is None else args.amp
        if args.test:
            for title, job, number, work in (
                    (f'{count} -> scores', lambda: model.encode_decode(images, None), batch, batch * floor.window),
                    (f'{count} -> labels', lambda: model.segment(images, metas), batch, batch * floor.window),
                    ('test image of 2 windows, file -> scores', test, 1, 2 * floor.window),
                    ('  the same, whole in one pass', test, 1, None)):
                jobs[f'{title}, {name}'] = Subject(model, job, dtype, number, work, usual if work else 'whole', form)
        if args.train:
            jobs[f'training step, batch {batch}, {name}'] = Subject(
                model, lambda: subjects.training_step(model, images, labels), dtype, batch, batch * floor.step,
                usual, form, train=True)
    if args.attention:
        jobs |= {f'{title}, attention={each}': job._replace(attention=each) for title, job in jobs.items()
                 if title.startswith((f'{count} -> scores', 'training step')) for each in FORMS[1:]}
    return jobs


def measure_all(config: Config, args: Namespace, place: Place, folder: Path, classes: int | None = None) -> dict:
    """Measure all jobs; give the numbers as plain values. Drawn images go to `folder`.

    Args:
        classes: replace those of the config; then only the jobs are measured that compute as test.py does.
    """
    model = subjects.model_of(config, place, classes)
    config = copy.deepcopy(config)
    config.data.test = subjects.drawn_settings(model.num_classes, folder / 'cost', config.data.test.pipeline)
    jobs = make_subjects(model, evaluation_dataset(config, 'test', scored=True), args, place)
    if classes:
        jobs = {name: job for name, job in jobs.items() if ' -> labels' in name or 'file -> scores' in name}
    peaks = {name: peak_memory(job, place.device)  # before the plain ViT and the timed runs fill the process's memory
             for name, job in tqdm(jobs.items(), unit='warm-up', disable=None)}
    vit = subjects.plain_vit(model).to(place.device)
    square = torch.randn(1, 3, *vit.patch_embed.img_size, device=place.device)
    timings, plain_seconds = measure(jobs, torch.no_grad()(lambda: vit(square)), args.repeats, place.device)
    floor = floors(model)
    rates = {dtype: matrix_rate(place.device, supported(dtype, place.device) or torch.float32)
             for dtype in {job.dtype for job in jobs.values()}}
    rows = []
    for name, job in jobs.items():
        row = {'name': name, **timings[name], 'peak_bytes': peaks[name]}
        row['images_per_second'] = job.images / row['seconds']
        if job.multiply_adds is not None:
            row['floor'] = job.multiply_adds / floor.plain
            row['ratio_to_floor'] = row['ratio'] / row['floor']
            row['multiply_adds_per_second'] = job.multiply_adds / row['seconds']
            row['share_of_matrix_rate'] = row['multiply_adds_per_second'] / rates[job.dtype]
        rows.append(row)
    return {'T_seconds': statistics.median(plain_seconds), 'multiply_adds': floor._asdict(), 'rows': rows,
            'matrix_rates': {str(dtype or torch.float32): rate for dtype, rate in rates.items()}}


def summary(report: dict) -> str:
    """Format the numbers of `measure_all` as a line and a table; times in milliseconds."""
    line = 'T = {:.1f} ms; multiply-adds: T {plain:,}, a window {window:,}, a training step {step:,}'.format(
        1e3 * report['T_seconds'], **report['multiply_adds'])
    columns = {'x T': ('ratio', '{:.2f}', 1), 'floor': ('floor', '{:.2f}', 1),
               'peak GB': ('peak_bytes', '{:.2f}', 1e-9),
               'images/s': ('images_per_second', '{:.2f}', 1), 'GMAC/s': ('multiply_adds_per_second', '{:,.0f}', 1e-9),
               '% of matrix rate': ('share_of_matrix_rate', '{:.0f}', 100)}
    shown = PrettyTable(['', 'ms', 'least - most', *columns])
    shown.align = 'r'
    shown.align[''] = 'l'
    for row in report['rows']:
        cells = ['' if row.get(key) is None else form.format(scale * row[key]) for key, form, scale in columns.values()]
        shown.add_row([row['name'], f'{1e3 * row["seconds"]:.1f}',
                       ' - '.join(f'{1e3 * value:.1f}' for value in row['seconds_spread']), *cells])
    return f'{line}\n{shown.get_string()}'


def summary_of_classes(report: dict) -> str:
    """Format the numbers for each count of classes as a table; times in milliseconds."""
    shown = PrettyTable(['classes', '', 'ms', 'x T', 'floor', 'x floor', 'peak GB'])
    shown.align = 'r'
    shown.align[''] = 'l'
    for count, numbers in report['classes'].items():
        for row in numbers['rows']:
            shown.add_row([f'{count:,}', row['name'], f'{1e3 * row["seconds"]:.1f}', f'{row["ratio"]:.2f}',
                           f'{row["floor"]:.2f}', f'{row["ratio_to_floor"]:.2f}',
                           '' if row['peak_bytes'] is None else f'{1e-9 * row["peak_bytes"]:.2f}'])
    return shown.get_string()
