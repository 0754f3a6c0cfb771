#!/usr/bin/env python3
"""Draw losses, learning rate and scores of runs over iterations: `python tools/curves.py WORK_DIR...`.

Reads the logs in the work folders of trainings, also of running and of resumed ones, and writes curves.png. Runs that
differ by their seeds alone have one colour.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # so that `datasets` and `tools` are this repository's
from tools.engine.errors import run


def main() -> None:
    parser = argparse.ArgumentParser(description='Draw losses, learning rate and scores of runs over iterations.')
    parser.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR', help='of a training: holds *.log.json')
    parser.add_argument('--out', type=Path, metavar='DIR',
                        help='folder for curves.png (default: WORK_DIR; of several the parent of the first)')
    args = parser.parse_args()

    from mmseg.utils import get_root_logger

    from models.errors import UserError
    from tools.engine.files import make_folder
    from tools.results.curves import draw, read_run
    folders = list({folder.resolve(): folder for folder in args.work_dirs
                    if folder.name not in ('curves.png', 'summary.md')}.values())  # WORK/* names these files too
    logger, runs, errors = get_root_logger(), [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except UserError as error:  # of several runs, one may have just begun
            errors.append(error)
    if not runs:
        raise errors[0] if errors else UserError('name the work folders of trainings.')
    for error in errors:
        logger.warning('left out: %s', error)
    file = make_folder(args.out or (folders[0] if len(folders) == 1 else folders[0].absolute().parent)) / 'curves.png'
    draw(runs, file)
    logger.info('curves of %d run%s: %s', len(runs), 's' * (len(runs) > 1), file)


if __name__ == '__main__':
    run(main)
