#!/usr/bin/env python3
"""Plan the tests of the open-vocabulary suite, or make the table of their results, for tools/open_vocabulary.sh."""
import argparse
import json
import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # so that `datasets` and `tools` are this repository's
from tools.engine.arguments import add_hang_arguments, add_settings_argument
from tools.engine.errors import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(usage='bash tools/open_vocabulary.sh CKPT [NUM_GPUS] [option ...]',
                                     allow_abbrev=False)
    parser.add_argument('step', choices=['plan', 'table'])
    parser.add_argument('checkpoint', help='checkpoint, or a name of tools/download.py')
    add_settings_argument(parser)
    parser.add_argument('--aug-test', action='store_true', help='average six scales and their mirror images')
    parser.add_argument('--device', choices=['auto', 'cuda', 'cpu'], default='auto', help='as of test.py')
    add_hang_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    import models  # noqa: F401  first: silences the notices of mmcv's import
    data = Path(os.environ['DATA']).absolute()
    from mmseg.utils import get_root_logger

    from models.errors import UserError
    from models.weights import files
    from tools.engine.downloads import hash_of
    from tools.engine.files import atomic_path, make_folder
    from tools.results import suite, suite_table
    get_root_logger(log_level='WARNING')
    work = make_folder(os.environ['WORK_DIR'])
    trained = files.read(args.checkpoint)
    suite.check_model(trained, args.cfg_options)
    checkpoint = os.path.realpath(trained.path)  # not a link, which a training may change
    digest = hash_of(Path(checkpoint))
    parts = {part: suite.prepared(part, args, data, digest) for part in suite.SUITE}
    if args.step == 'plan':
        lines, report = suite.plan(parts, work, data)
        print(report, end='', file=sys.stderr)
        print('\n'.join([checkpoint, *lines]))
        return
    found = suite.results(parts, work, data)
    if all('missing' in entry for entry in found.values()):
        raise UserError(f'{work} has no result of {checkpoint} with these settings and data: the tests failed, or '
                        'something has changed since.')
    made, below = suite_table.table(found), [f'- {line}' for line in suite_table.notes(found, checkpoint, args)]
    with atomic_path(work / 'open_vocabulary.json') as file:
        file.write_text(json.dumps({'checkpoint': checkpoint, 'datasets': found, 'notes': below}, indent=1) + '\n')
    with atomic_path(work / 'open_vocabulary.md') as file:
        file.write_text('\n'.join(['# Open-vocabulary suite', '', made, '', *below, '']))
    print('\n'.join([made, '', *below, f'written: {work / "open_vocabulary.md"}, .json']))


if __name__ == '__main__':
    run(main)
