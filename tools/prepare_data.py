#!/usr/bin/env python3
"""Prepare a benchmark from its published archives, and check it: `python tools/prepare_data.py voc12 --download`.

Existing files are never changed, and an interrupted run resumes with the next call.
"""
import argparse
import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[0] = str(REPOSITORY)  # this repository's `datasets`, not an installed package
from tools.engine.arguments import positive_int
from tools.engine.errors import run
from tools.preparation.sources import BENCHMARKS


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Prepare a benchmark from its published archives, and check it.')
    parser.add_argument('benchmark', choices=BENCHMARKS,
                        help='voc12, coco and context have the names of their folders in configs; the others are for '
                             'testing only, with configs/cross_dataset')
    parser.add_argument('--root', type=Path, default=REPOSITORY / 'data', metavar='DIR',
                        help='folder for the datasets; archives are kept in DIR/downloads (default: %(default)s)')
    action = parser.add_mutually_exclusive_group()
    action.add_argument('--download', action='store_true', help='download missing archives from their owners')
    action.add_argument('--verify', action='store_true', help='only check, change nothing')
    parser.add_argument('--workers', type=positive_int, default=len(os.sched_getaffinity(0)), metavar='N',
                        help='processes (default: one per available core, %(default)s)')
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    from models.errors import UserError
    from tools.preparation.prepare import prepare
    from tools.preparation.verify import verify
    benchmark, root = BENCHMARKS[args.benchmark], args.root.expanduser().absolute()
    if not args.verify:
        prepare(benchmark, root, download=args.download, workers=args.workers)
    elif not root.is_dir():
        raise UserError(f'no folder {root}: name another one with --root.')
    print(f'checking the images and masks in {root}', file=sys.stderr)
    if not verify(args.benchmark, benchmark, root, args.workers):
        remedy = 'Run this without --verify to make missing files.' if args.verify else 'Run this again.'
        raise UserError(f'{args.benchmark} in {root} is incomplete or wrong, see above. Existing files are never '
                        f'replaced: delete the wrong ones. {remedy}')
    print(f'{args.benchmark} is complete.')


if __name__ == '__main__':
    run(main)
