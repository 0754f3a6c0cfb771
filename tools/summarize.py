#!/usr/bin/env python3
"""The newest scores of work folders beside the published rows: `python tools/summarize.py WORK_DIR...`."""
import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, whoever else has one
import tools  # noqa: F401  first: it quietens the imports below

# isort: split
from mmcv import Config
from prettytable import PrettyTable

from tools import launch
from tools.config import REPOSITORY

SCORES = ('aAcc', 'mIoU_seen', 'mIoU_unseen', 'hIoU')


def newest_scores(folder: Path) -> dict:
    """Content of the newest JSON that test.py wrote to the folder.

    Raises:
        ValueError: there is none.
    """
    files = [*folder.glob('eval_*.json'), *folder.glob('eval_results/eval_*.json')]
    if not files:
        raise ValueError(f'no eval_*.json in {folder}: test a checkpoint first, `python test.py CONFIG CHECKPOINT '
                         f'--eval mIoU --work-dir {folder}`.')
    return json.loads(max(files, key=lambda file: file.stat().st_mtime).read_text())


def published_scores(config: str) -> dict[str, float]:
    """The row that the paper printed for a config of this repository, in percent; empty for other configs."""
    known = {path.name: path for path in (REPOSITORY / 'configs').glob('*/*.py')}
    path = known.get(Path(config).name)
    return Config.fromfile(str(path)).get('published', {}) if path else {}


def table(folders: list[Path]) -> PrettyTable:
    """Two rows a folder: measured here, and published; in percent."""
    rows = PrettyTable(['run', 'scores', *(name.replace('_', ' ') for name in SCORES)])
    rows.align = 'r'
    rows.align['run'] = 'l'
    for folder in folders:
        found = newest_scores(folder)
        published = published_scores(found['config'])
        measured = [found['metric'].get(name) for name in SCORES]
        rows.add_row([folder.name, 'measured', *('-' if score is None else f'{100 * score:.1f}' for score in measured)])
        rows.add_row(['', 'published', *(published.get(name, '-') for name in SCORES)], divider=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(':')[0])
    parser.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR')
    print(table(parser.parse_args().work_dirs))


if __name__ == '__main__':
    launch.run(main)
