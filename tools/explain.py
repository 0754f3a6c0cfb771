#!/usr/bin/env python3
"""Explains regional clues for a class in an image: `python tools/explain.py IMAGE --class NAME --checkpoint CKPT`.

Writes a figure (the pixels of the class, its scores by the queries of each region, the attention of the region tokens,
and its scores with and without them) and the numbers as JSON, for one window of the image.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # so that this repository's packages come first
from tools.engine.arguments import positive_int
from tools.engine.errors import run
from tools.engine.model_arguments import add_model_arguments, load_segmenter, read_class_names


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw the contribution of regional clues to a class in an image.')
    parser.add_argument('image', help='an image file')
    parser.add_argument('--class', '--word', dest='class_name', metavar='NAME', required=True,
                        help='the class to explain; "sofa|couch" is one class with two names')
    parser.add_argument('--classes', '--words', metavar='NAMES',
                        help='"sky, grass", or a text file: the classes that compete with it for pixels (default: '
                             'those of the training)')
    add_model_arguments(parser)
    parser.add_argument('--out', type=Path, metavar='FOLDER', default='work_dirs/explain',
                        help='folder for explanation.png and explanation.json (default: %(default)s)')
    parser.add_argument('--format', choices=['png', 'pdf', 'svg'], default='png', help='of the figure (default: png)')
    parser.add_argument('--window', type=positive_int, metavar='N',
                        help='number of the window, row by row (default: the one with most pixels of the class)')
    parser.add_argument('--block', type=positive_int, metavar='N',
                        help='block of the vision encoder whose attention is drawn (default: the last)')
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    import json

    from mmseg.utils import get_root_logger

    from models.class_names import parse_class_names
    from models.errors import UserError
    from tools.engine.files import make_folder
    from tools.explaining.explanation import explain
    from tools.explaining.figure import draw
    names = parse_class_names(args.class_name)
    if len(names) > 1:
        raise UserError(f'--class {args.class_name!r} names {len(names)} classes: explain one, and give the others to '
                        '--classes.')
    folder = make_folder(args.out)
    explanation = explain(load_segmenter(args), args.image, names[0], read_class_names(args.classes),
                          window=args.window, block=args.block)
    figure, numbers = folder / f'explanation.{args.format}', folder / 'explanation.json'
    draw(explanation).savefig(figure, dpi=100)
    summary = explanation.summary()
    numbers.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    logger = get_root_logger()
    if not summary['found']:
        logger.warning('%s was not found in window %d: other classes score higher at every pixel', names[0],
                       explanation.number)
    logger.info('figure: %s; numbers: %s', figure, numbers)


if __name__ == '__main__':
    run(main)
