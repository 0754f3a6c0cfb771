#!/usr/bin/env python3
"""Draw samples of a config's dataset: `python tools/browse_dataset.py CONFIG --out DIR`.

Each image shows a sample as it lies on the disk and as the model gets it, with the colours of its mask and a legend of
the class names. It needs neither CLIP nor a GPU.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, not an installed package
from tools.engine.arguments import add_config_arguments, positive_int
from tools.engine.errors import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw samples of a config's dataset, to check images and masks.")
    add_config_arguments(parser)
    parser.add_argument('--part', choices=['train', 'val', 'test'], default='train', help='(default: %(default)s)')
    parser.add_argument('--out', metavar='DIR', required=True, help='folder for an image NAME.png per sample')
    parser.add_argument('--count', type=positive_int, default=20,
                        help='number of samples, evenly spread over the dataset (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the random crops and flips (default: %(default)s)')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the class colours, in (0, 1] (default: 0.5)')
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    from models.errors import UserError
    from tools.engine.config import load_config
    from tools.engine.files import make_folder
    from tools.visualization.samples import browse
    if not 0 < args.opacity <= 1:
        raise UserError(f'--opacity {args.opacity} is not in (0, 1].')
    config = load_config(args)
    browse(config, args.part, make_folder(args.out), count=args.count, seed=args.seed, opacity=args.opacity)


if __name__ == '__main__':
    run(main)
