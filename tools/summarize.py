#!/usr/bin/env python3
"""Compare scores of runs with the published rows: `python tools/summarize.py WORK_DIR...`.

Tests of the same config in several work folders are the seeds of one row: mean and sample standard deviation. Of each
folder the newest test of the checkpoint that was trained longest counts. Prints a Markdown table, and writes it as
summary.md. `--published` prints CLIP-RC's published scores, with configs and official checkpoints.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # so that `datasets` and `tools` are this repository's
from tools.engine.errors import run


def main() -> None:
    parser = argparse.ArgumentParser(description='Compare scores of runs, mean and deviation over seeds, with the '
                                                 'published rows.')
    parser.add_argument('work_dirs', nargs='*', type=Path, metavar='WORK_DIR', help='holds eval_*.json of test.py')
    parser.add_argument('--out', type=Path, metavar='DIR',
                        help='folder for summary.md (default: the parent of the first WORK_DIR)')
    parser.add_argument('--published', action='store_true', help="only print the table of CLIP-RC's published scores")
    args = parser.parse_args()
    if not args.work_dirs and not args.published:
        parser.error('name the work folders of tested runs, or --published')

    import models  # noqa: F401  first: silences the notices of mmcv's import
    from tools.engine.files import atomic_path, make_folder
    from tools.results import summary
    from tools.results.runs import tests_that_count
    if args.published:
        print(summary.published_table())
        return
    folders = list({folder.resolve(): folder for folder in args.work_dirs
                    if folder.name != 'summary.md'}.values())  # WORK/* names it too
    table = summary.table(summary.lines_of([run for folder in folders for run in tests_that_count(folder)]))
    out = make_folder(args.out or args.work_dirs[0].absolute().parent)
    with atomic_path(out / 'summary.md') as file:
        file.write_text(f'# Scores\n\n{table}\n')
    print(table)
    print(f'written: {out / "summary.md"}')


if __name__ == '__main__':
    run(main)
