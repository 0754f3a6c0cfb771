#!/usr/bin/env python3
"""Measure the time and memory of a config: `python tools/benchmark.py CONFIG [--test|--train|--load]`.

--load tells how many loader workers a GPU needs. The others use random weights and drawn images, whose values do not
affect the cost. Times are also given as multiples of T, one forward pass of timm's plain ViT on as many tokens in
float32, which is timed right before and after each. Products are counted in multiply-adds (x 2 for FLOPs of both
kinds).
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, before any installed one
from tools.engine.arguments import add_config_arguments, add_launch_arguments, positive_int
from tools.engine.errors import run

COLUMNS = """columns of the table:
  ms, least - most   median, shortest and longest of the repeats
  x T                median of time / T, where T is one forward pass of timm's plain ViT on as many tokens in float32,
                     timed right before and after: on a busy machine this is steadier than ms, and not ms / T's median
  floor              the multiply-adds that the method cannot do without, as a multiple of T's
  peak GB            peak memory: on a GPU PyTorch's share, else that of the whole process
  GMAC/s             10^9 multiply-adds of the floor per second
  % of matrix rate   share of the rate of a large matrix product in the same number format"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Measure the time and memory of a CLIP-RC config. Without a mode: --test and --train.',
        epilog=COLUMNS, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument('--test', action='store_true',
                        help='one window, and a whole test image from its file to its scores')
    parser.add_argument('--train', action='store_true', help='forward and backward pass of a training step')
    parser.add_argument('--load', action='store_true',
                        help='images per second that loader workers make for training, of the config\'s data, or of a '
                             'drawn image where there is none; leave the machine alone meanwhile')
    parser.add_argument('--images-per-second', type=positive_int, nargs='+', metavar='N',
                        help='with --load: tell how many workers a GPU needs that trains so many')
    add_launch_arguments(parser)
    parser.add_argument('--amp', choices=['bfloat16', 'float16'], help='measure autocast to this type too')
    parser.add_argument('--emulate', action='store_true',
                        help='also measure a type of --amp that this CPU has no instructions for')
    parser.add_argument('--attention', action='store_true',
                        help="also measure windows and steps with each form of the encoder's attention mask")
    parser.add_argument('--classes', type=positive_int, nargs='+', metavar='N',
                        help='test with so many classes, of random embeddings, instead of the dataset\'s: a window and '
                             'a test image, as test.py takes them; with --out also as a plot')
    parser.add_argument('--batch', type=positive_int, default=1, help='windows, and images of a step (default: 1)')
    parser.add_argument('--repeats', type=positive_int, default=5, help='after one to warm up (default: 5)')
    parser.add_argument('--out', metavar='FOLDER',
                        help='write benchmark.json into this folder, with --classes also benchmark.png')
    args = parser.parse_args()
    if args.launcher != 'none':
        parser.error('--launcher: the benchmark runs in one process.')
    if args.images_per_second and not args.load:
        parser.error('--images-per-second: this is for --load.')
    if args.load and not (args.test or args.train) and (args.attention or args.amp):
        parser.error('--attention and --amp: these are for --test and --train.')
    if args.classes and (args.train or args.load or args.attention):
        parser.error('--classes: this is for --test alone.')
    if not (args.test or args.train or args.load):
        args.test, args.train = True, not args.classes
    return args


def main() -> None:
    args = parse_arguments()
    import json
    import tempfile

    import torch

    from models.label_format import label_format
    from models.precision import cpu_has
    from tools.benchmarking import cost, feeding
    from tools.benchmarking.measuring import machine
    from tools.engine import process
    from tools.engine.config import load_config
    from tools.engine.files import make_folder
    counts = sorted({*args.classes}) if args.classes else []
    label_format(max(counts, default=1))  # an error if there are too many
    folder = make_folder(args.out) if args.out else None
    config = load_config(args.config, args.cfg_options, args.data_root)
    place = process.start(args)
    if args.amp and place.device.type == 'cpu' and not args.emulate and not cpu_has(getattr(torch, args.amp)):
        sys.stdout.write(f'this CPU has no instructions for {args.amp}: its rows are left out; --emulate times them\n')
        args.amp = None
    report = {'config': args.config, 'machine': machine(place), 'batch': args.batch, 'repeats': args.repeats}
    sys.stdout.write('{name}, {threads} threads, instructions for bfloat16 on the CPU: {cpu_has_bfloat16}, '
                     'torch {torch}\n'.format(**report['machine']))
    with tempfile.TemporaryDirectory() as images:
        if args.load:
            report['load'] = feeding.measure(config, args, place, Path(images))
            sys.stdout.write(f'{feeding.answer(report["load"], args.images_per_second)}\n')
        if counts:
            report['classes'] = {count: cost.measure_all(config, args, place, Path(images) / str(count), count)
                                 for count in counts}
            sys.stdout.write(f'{cost.summary_of_classes(report)}\n')
        elif args.test or args.train:
            report |= cost.measure_all(config, args, place, Path(images))
            sys.stdout.write(f'{cost.summary(report)}\n')
    if folder:
        file = folder / 'benchmark.json'
        file.write_text(json.dumps(report, indent=1) + '\n')
        sys.stdout.write(f'numbers: {file}\n')
        if counts:
            from tools.benchmarking.figure import draw
            draw(report, folder / 'benchmark.png')
            sys.stdout.write(f'plot: {folder / "benchmark.png"}\n')


if __name__ == '__main__':
    run(main)
