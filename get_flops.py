#!/usr/bin/env python3
"""Counts parameters and GFLOPs of a config: `python get_flops.py CONFIG --shape 512 512 --fvcore`.

Needs no data, no weights and no GPU. A multiply-add is one FLOP, as fvcore and the field count them.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent)  # this repository's `datasets`, whoever else has one
import torch
from prettytable import PrettyTable

from models.errors import UserError
from tools.engine import process
from tools.engine.build import build_model, dataset_facts
from tools.engine.config import add_config_arguments, load_config
from tools.engine.flop_count import Count, count


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Count parameters and GFLOPs of a CLIP-RC model.')
    add_config_arguments(parser)
    parser.add_argument('--shape', type=int, nargs='+', default=[512, 512], metavar='SIDE',
                        help='height and width of the image in pixels, or one side of a square')
    parser.add_argument('--fvcore', action='store_true', help='count with fvcore, the only counter there is')
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if len(args.shape) > 2 or min(args.shape) < 1:
        raise UserError('--shape takes one side or height and width, in pixels.')
    size = (args.shape * 2)[:2]
    config = load_config(args)
    facts = dataset_facts(config)
    model = build_model(config)
    classes = len(facts.split.names)
    model.decode_head.class_head.set_embeddings(torch.ones(classes, model.decode_head.class_head.embed_dims))

    counts = count(model, tuple(size))
    table = PrettyTable(['part', 'parameters (M)', 'trainable (M)', 'GFLOPs'])
    table.align = 'r'
    table.align['part'] = 'l'
    rows = [*counts.items(), ('total', Count(*map(sum, zip(*counts.values(), strict=True))))]
    for place, (part, counted) in enumerate(rows):
        table.add_row([part, f'{counted.parameters / 1e6:.2f}', f'{counted.trainable / 1e6:.2f}',
                       f'{counted.flops / 1e9:.2f}'], divider=place == len(rows) - 2)
    sys.stdout.write(f'one {size[0]}x{size[1]} image, {classes} classes, testing\n{table}\n')


if __name__ == '__main__':
    process.run(main)
