#!/usr/bin/env python3
"""Count parameters and GFLOPs of a config: `python get_flops.py CONFIG --shape 512 512 --fvcore`.

Needs no data, no weights and no GPU. As in fvcore and most papers, one "FLOP" is one multiply-add:
multiply by two to count additions, too.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent)  # this repository's `datasets`, before any installed one
from tools.engine.arguments import add_config_arguments, positive_int
from tools.engine.errors import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Count parameters and GFLOPs of a CLIP-RC model.')
    add_config_arguments(parser)
    parser.add_argument('--shape', type=positive_int, nargs='+', default=[512, 512], metavar='SIDE',
                        help='height and width of the image in pixels, or one side of a square (default: 512 512)')
    parser.add_argument('--fvcore', action='store_true', help='accepted for compatibility: fvcore is always used')
    args = parser.parse_args()
    if len(args.shape) > 2:
        parser.error('--shape takes one side, or height and width.')
    return args


def main() -> None:
    args = parse_arguments()
    import torch
    from prettytable import PrettyTable

    from tools.engine.build import build_model
    from tools.engine.config import load_config
    from tools.engine.flop_count import Count, count
    height, width = (args.shape * 2)[:2]
    model = build_model(load_config(args.config, args.cfg_options, args.data_root))
    model.class_head.set_classes(model.num_classes, torch.ones(model.num_classes, model.class_head.embed_dims))

    counts = count(model, (height, width))
    table = PrettyTable(['part', 'parameters (M)', 'trainable (M)', 'GFLOPs (multiply-adds)'])
    table.align = 'r'
    table.align['part'] = 'l'
    rows = [*counts.items(), ('total', Count(*map(sum, zip(*counts.values(), strict=True))))]
    for index, (part, counted) in enumerate(rows):
        table.add_row([part, f'{counted.parameters / 1e6:.2f}', f'{counted.trainable / 1e6:.2f}',
                       f'{counted.flops / 1e9:.2f}'], divider=index == len(rows) - 2)
    sys.stdout.write(f'one {height}x{width} image, {model.num_classes} classes, testing; one multiply-add is one FLOP '
                     f'(x 2 if additions count too)\n{table}\n')


if __name__ == '__main__':
    run(main)
