#!/usr/bin/env python3
"""Test a checkpoint: `python test.py CONFIG CHECKPOINT --eval mIoU`. Needs no CLIP file and no embedding file.

Ends with one table, and the scores as JSON in --work-dir or in eval_results/ beside the checkpoint.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent)  # so that `datasets` and `tools` are this repository's
from tools.engine.arguments import add_config_arguments, add_hang_arguments, add_launch_arguments, key_value
from tools.engine.errors import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test a CLIP-RC checkpoint.')
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint of this code, an official one, or a name of tools/download.py')
    add_launch_arguments(parser)
    add_hang_arguments(parser)
    parser.add_argument('--work-dir', help='folder for the JSON of the scores')
    parser.add_argument('--eval', nargs='+', metavar='METRIC', help='scores to compute: mIoU, mDice, mFscore')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the label maps, a list of arrays, as a pickle')
    parser.add_argument('--format-only', action='store_true',
                        help='write label maps as PNG files with the dataset\'s own ids into format_results/, for a '
                             'test server')
    parser.add_argument('--eval-options', nargs='+', type=key_value, default=[], metavar='KEY=VALUE',
                        help='imgfile_prefix=DIR: another folder for --format-only')
    parser.add_argument('--show', action='store_true', help='open each result in the image viewer')
    parser.add_argument('--show-dir', metavar='DIR', help='write an image of each result')
    parser.add_argument('--opacity', type=float, default=0.5,
                        help='of the class colours in images, in (0, 1] (default: 0.5)')
    parser.add_argument('--aug-test', action='store_true', help='average six scales and their mirror images')
    parser.add_argument('--gpu-collect', action='store_true',
                        help='without effect, as --tmpdir: results are always collected without files')
    parser.add_argument('--tmpdir', help='without effect')
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    from tools.testing.run import test
    test(args)


if __name__ == '__main__':
    run(main)
