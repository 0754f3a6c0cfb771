#!/usr/bin/env python3
"""What a config costs in time and memory: `python tools/benchmark.py CONFIG [--test|--train|--loader|--growth]`.

On random weights and drawn images, whose values make no difference; only --loader reads the config's training
images. Times are also given as multiples of T, one forward pass of timm's plain ViT on as many tokens in float32,
which is timed right before and after each. A multiply-add is one FLOP.
"""
import argparse
import json
import runpy
import statistics
import sys
import tempfile
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, whoever else has one
import torch
from mmcv import Config
from prettytable import PrettyTable

from models import CLIPRC
from models.errors import UserError
from models.precision import cpu_has, supported
from tools.benchmarking import growth, loader, subjects
from tools.benchmarking.measuring import Job, machine, matrix_rate, measure, peak_memory
from tools.engine import process
from tools.engine.config import REPOSITORY, add_config_arguments, load_config
from tools.engine.flop_count import floors
from tools.engine.process import Place
from tools.engine.progress import Progress

MODES = {'test': 'one window, and a whole test image from its file to its scores',
         'train': 'forward and backward pass of a training step',
         'loader': "steps of the training pipeline, on the config's images",
         'growth': 'against classes (20 to 1000), side of the image (256 to 1024), batch (1 to 32), with a plot'}
COLUMNS = """columns of the table:
  ms, least - most   median, shortest and longest of the repeats
  x T                median of time / T, where T is one forward pass of timm's plain ViT on as many tokens in float32,
                     timed right before and after: on a busy machine this is steadier than ms, and not ms / T's median
  floor              the same by multiply-adds: what the method cannot do without, at T's rate
  peak GB            memory at most: of a GPU PyTorch's share, else of the whole process
  GFLOP/s            the floor's multiply-adds, by time
  % of matrix rate   of what a large product of matrices reaches here in the same number format"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Measure what a CLIP-RC config costs. Without a mode: --test and --train.', epilog=COLUMNS,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    for mode, text in MODES.items():
        parser.add_argument(f'--{mode}', action='store_true', help=text)
    process.add_launch_arguments(parser)
    parser.add_argument('--amp', choices=['bfloat16', 'float16'], help='products in this type too, beside float32')
    parser.add_argument('--emulate', action='store_true',
                        help='also time a type of --amp that this CPU has no instructions for')
    parser.add_argument('--against', choices=['oracle'], help='the method word for word, tests/oracle.py, too')
    parser.add_argument('--batch', type=process.at_least_one, default=1, help='windows, and images of a step')
    parser.add_argument('--repeats', type=process.at_least_one, default=5, help='after one to warm up (default: 5)')
    parser.add_argument('--out', metavar='PREFIX', help='write PREFIX.json, and with --growth PREFIX.png')
    args = parser.parse_args()
    if args.launcher != 'none':
        raise UserError('one process is enough: no --launcher.')
    if args.growth and not args.out:
        raise UserError('--growth needs --out PREFIX for its plot.')
    if args.out:
        process.make_folder(Path(args.out).absolute().parent)
    if not any(getattr(args, mode) for mode in MODES):
        args.test = args.train = True
    return args


class Subject:
    """One thing to time.

    Args:
        job: with the model's `training` and `amp_dtype` set as given.
        images: that it does.
        multiply_adds: of its floor, None where it is not counted.
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


def oracle_of(model: CLIPRC):
    """tests/oracle.py's; by its path, as more than one installed package is called `tests`."""
    return runpy.run_path(str(REPOSITORY / 'tests/oracle.py'))['Oracle'](model)


def make_subjects(model: CLIPRC, image: subjects.TestImage, args: argparse.Namespace, place: Place
                  ) -> dict[str, Subject]:
    """What is timed, by the names that the table shows."""
    side, batch, floor = model.backbone.input_resolution, args.batch, floors(model)
    images = torch.randn(batch, 3, side, side, device=place.device)
    labels = subjects.training_labels(model, batch, side, place.device)
    count = 'a window' if batch == 1 else f'{batch} windows'
    found = {}
    for dtype in [None, *([getattr(torch, args.amp)] if args.amp else [])]:
        name = 'float32' if dtype is None else args.amp
        if args.test:
            for what, job, count_of_images, work in (
                    (f'{count} -> scores', lambda: model.encode_decode(images, None), batch, batch * floor.window),
                    (f'{count} -> labels', lambda: subjects.window_labels(model, images), batch, batch * floor.window),
                    ('test image of 2 windows, file -> scores', image.run, 1, 2 * floor.window),
                    ('  the same, whole in one pass', image.run_whole, 1, None)):
                found[f'{what}, {name}'] = Subject(model, job, dtype=dtype, images=count_of_images, multiply_adds=work)
        if args.train:
            found[f'training step, batch {batch}, {name}'] = Subject(
                model, lambda: subjects.training_step(model, lambda x, y: model.forward_train(x, [{}] * batch, y),
                                                      images, labels),
                train=True, dtype=dtype, images=batch, multiply_adds=batch * floor.step)
    if args.against:
        oracle = oracle_of(model)
        if args.test:
            found['a window -> scores, oracle'] = Subject(model, lambda: oracle.scores(images[:1]))
            found['test image of 2 windows, file -> scores, oracle'] = Subject(model, lambda: image.score(
                oracle.label_map(image.view(), subjects.TEST_IMAGE)[0].byte().cpu().numpy()))
        if args.train:
            found[f'training step, batch {batch}, oracle'] = Subject(
                model, lambda: subjects.training_step(model, oracle.losses, images, labels), train=True,
                images=batch)
    return found


@torch.no_grad()
def agreement(model: CLIPRC, image: subjects.TestImage, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Of each number format with the oracle, on the test image: largest difference of scores, share of equal labels."""
    view, found = image.view(), {}
    meta = {'img_shape': tuple(view.shape[2:]), 'ori_shape': subjects.TEST_IMAGE}
    model.eval()
    model.amp_dtype = None
    expected = oracle_of(model).image_scores(view, subjects.TEST_IMAGE)
    for name in ('float32', *([args.amp] if args.amp else [])):
        model.amp_dtype = None if name == 'float32' else getattr(torch, name)
        scores = model.slide_inference(view, [meta], True)
        labels = model.segment(view, [meta])[0]
        found[name] = {'largest_difference': float((scores - expected).abs().max()),
                       'equal_labels': float((labels == expected[0].argmax(dim=0)).float().mean())}
    return found


def test_and_train(config: Config, args: argparse.Namespace, place: Place, folder: Path) -> dict:
    """All measurements, as data."""
    model = subjects.model_of(config, place)
    image = subjects.TestImage(model, config, place, folder)
    jobs = make_subjects(model, image, args, place)
    with Progress(0, (1 + args.repeats) * len(jobs), 'measurements') as progress:
        peaks = {}
        for name, job in jobs.items():
            peaks[name] = peak_memory(job, place.device)  # in a tidy process
            progress.update(len(peaks))
        timings, plain_seconds = measure(jobs, subjects.plain_pass(model, place.device), args.repeats, place.device,
                                         lambda done: progress.update(len(jobs) + done))
    floor = floors(model)
    rates = {dtype: matrix_rate(place.device, supported(dtype, place.device) or torch.float32)
             for dtype in {job.dtype for job in jobs.values()}}
    rows = []
    for name, job in jobs.items():
        row = {'name': name, **timings[name].as_dict(), 'peak_bytes': peaks[name]}
        row['images_per_second'] = job.images / row['seconds']
        if job.multiply_adds is not None:
            row['floor'] = job.multiply_adds / floor.plain
            row['flops_per_second'] = job.multiply_adds / row['seconds']
            row['share_of_matrix_rate'] = row['flops_per_second'] / rates[job.dtype]
        rows.append(row)
    found = {'T_seconds': statistics.median(plain_seconds), 'multiply_adds': floor._asdict(), 'rows': rows,
             'matrix_rates': {str(dtype or torch.float32): rate for dtype, rate in rates.items()}}
    if args.against and args.test:
        found['agreement'] = agreement(model, image, args)
    return found


def table(rows: list[dict]) -> str:
    """One line a row; times in milliseconds."""
    columns = {'x T': ('ratio', '{:.2f}', 1), 'floor': ('floor', '{:.2f}', 1),
               'peak GB': ('peak_bytes', '{:.2f}', 1e-9),
               'images/s': ('images_per_second', '{:.2f}', 1), 'GFLOP/s': ('flops_per_second', '{:,.0f}', 1e-9),
               '% of matrix rate': ('share_of_matrix_rate', '{:.0f}', 100)}
    shown = PrettyTable(['', 'ms', 'least - most', *columns])
    shown.align = 'r'
    shown.align[''] = 'l'
    for row in rows:
        cells = ['' if row.get(key) is None else form.format(scale * row[key]) for key, form, scale in columns.values()]
        shown.add_row([row['name'], f'{1e3 * row["seconds"]:.1f}',
                       ' - '.join(f'{1e3 * value:.1f}' for value in row['seconds_spread']), *cells])
    return shown.get_string()


def main() -> None:
    args = parse_arguments()
    config = load_config(args)
    place = process.start(args)
    if args.amp and place.device.type == 'cpu' and not args.emulate and not cpu_has(getattr(torch, args.amp)):
        sys.stdout.write(f'this CPU has no instructions for {args.amp}: its rows are left out; --emulate times them\n')
        args.amp = None
    report = {'config': args.config, 'machine': machine(place), 'batch': args.batch, 'repeats': args.repeats}
    sys.stdout.write('{name}, {threads} threads, instructions for bfloat16 on the CPU: {cpu_has_bfloat16}, '
                     'torch {torch}\n'.format(**report['machine']))
    if args.loader:
        report['loader'] = loader.report(config, place)
        sys.stdout.write(f'{loader.table(report["loader"])}\n')
    if args.test or args.train:
        with tempfile.TemporaryDirectory() as folder:
            report |= test_and_train(config, args, place, Path(folder))
        sys.stdout.write('T = {:.1f} ms; multiply-adds: T {plain:,}, a window {window:,}, a training step {step:,}\n'
                         .format(1e3 * report['T_seconds'], **report['multiply_adds']))
        sys.stdout.write(f'{table(report["rows"])}\n')
        for name, found in report.get('agreement', {}).items():
            sys.stdout.write(f'{name} against the oracle: scores differ by {found["largest_difference"]:.1e} at most, '
                             f'labels are equal on {100 * found["equal_labels"]:.3f} % of the pixels\n')
    if args.growth:
        report['growth'] = growth.grow(config, place, args.repeats)
        growth.plot(report['growth'], f'{Path(args.config).stem}, {report["machine"]["name"]}', Path(f'{args.out}.png'))
        sys.stdout.write(f'plot: {args.out}.png\n')
    if args.out:
        Path(f'{args.out}.json').write_text(json.dumps(report, indent=1) + '\n')
        sys.stdout.write(f'numbers: {args.out}.json\n')


if __name__ == '__main__':
    process.run(main)
