"""The results that test.py has written to work folders, and the configs of this repository that they belong to."""
import json
import math
import re
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.metrics import zero_shot_scores
from models.errors import UserError
from tools.results import leaves
from tools.results.leaves import Leaf


class Run(NamedTuple):
    """A test of a run."""
    folder: Path
    config: str  # path as it was given to test.py
    multi_scale: bool
    scores: dict[str, float | None]  # fractions; those of classes as 'IoU.<class>'
    facts: dict[str, Any]  # all that test.py wrote, such as 'checkpoint', 'iteration', 'images', 'setting', 'protocol'
    seconds: float | None = None  # per training iteration
    note: str = ''

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in 'IoU.<class>', 'Dice.<class>' and the like."""
        return tuple(dict.fromkeys(name.split('.', 1)[1] for name in self.scores if '.' in name))

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint's file."""
        return Path(self.facts.get('checkpoint') or 'unknown').name

    @property
    def kind(self) -> tuple:
        """What tests of one row have in common, beside the config."""
        return self.classes, self.multi_scale, self.facts.get('images')


def tests_that_count(folder: Path) -> list[Run]:
    """Return the newest test of the last checkpoint, for each config, class list and number of images in a folder.

    So neither a test of an earlier checkpoint nor one on other data hides the score of the run.

    Raises:
        UserError: there is no test, or one is damaged.
    """
    files = [*folder.glob('eval_*.json'), *folder.glob('eval_results/eval_*.json')]
    if not files:
        raise UserError(f'no eval_*.json in {folder}: test a checkpoint first, `python test.py CONFIG CHECKPOINT '
                        f'--eval mIoU --work-dir {folder}`.')
    groups: dict[tuple, list[Run]] = {}
    for file in sorted(files, key=lambda file: file.stat().st_mtime):
        test = read_test(file, folder)
        groups.setdefault((test.config, *test.kind), []).append(test)
    return [_last(group) for group in groups.values()]


def _last(tests: list[Run]) -> Run:
    """Return the last of tests in order of time, with a note about other checkpoints."""
    *_, last = sorted(tests, key=lambda test: (not {'mIoU', 'hIoU'}.isdisjoint(test.scores),
                                               test.facts.get('iteration') or 0))
    others = sorted({test.checkpoint for test in tests} - {last.checkpoint})
    return last._replace(note=f'{last.folder}: the score is that of {last.checkpoint}; not counted: '
                              f'{", ".join(others)}' if others else '')


def read_test(file: Path, folder: Path) -> Run:
    """Read a JSON file of test.py.

    Raises:
        UserError: it is damaged or of another format.
    """
    try:
        facts = json.loads(file.read_text())
    except ValueError as error:  # not JSON, or not text
        raise UserError(f'{file} is damaged: remove it, and test again.') from error
    config, metric = (facts.get('config'), facts.get('metric')) if isinstance(facts, dict) else (None, None)
    if not isinstance(config, str) or not isinstance(metric, dict) or not all(map(_is_score, metric.values())):
        raise UserError(f'{file} is not a result of test.py ({{"config": ..., "metric": {{...}}}}): move it elsewhere.')
    scores = {name: None if value is None or math.isnan(value) else value for name, value in metric.items()}
    return Run(folder, config, file.name.startswith('eval_multi'), scores, facts, seconds_per_iteration(folder))


def _is_score(value: object) -> bool:
    return value is None or isinstance(value, (int, float)) and not isinstance(value, bool)


def seconds_per_iteration(folder: Path) -> float | None:
    """Return the median in the newest training log of a work folder; None if there is none."""
    for log in sorted(folder.glob('*.log.json'), reverse=True):  # named by time
        times = [float(time) for time in re.findall(r'"mode": "train".*"time": ([\d.]+)', log.read_text())]
        if times:
            return statistics.median(times)
    return None


def own_leaf(run: Run) -> Leaf | None:
    """Return the config of this repository that a run was tested with: by file name, classes and split."""
    return None if run.facts.get('own_modules') else next(
        (leaf for leaf in leaves.called(Path(run.config).name) if _same_split(run, leaf)), None)


def leaf_beside(run: Run) -> Leaf | None:
    """Return the config of this repository that a run compares with: of its classes, split, protocol and setting.

    Prefer one with published scores.
    """
    if (own := own_leaf(run)) is not None:
        return own
    alike = [leaf for leaf in leaves.leaves().values() if run.classes and _same_split(run, leaf) and
             (leaf.setting, leaf.protocol) == (run.facts.get('setting'), run.facts.get('protocol'))]
    return min(alike, key=lambda leaf: 'published' not in leaf.config, default=None)


def _same_split(run: Run, leaf: Leaf) -> bool:
    """Tell whether a run's scores follow from its IoU and the leaf's split; True for scores without classes."""
    split = leaf.facts.split
    if not run.classes:
        return True
    if run.classes != split.names:
        return False
    iou = np.array([run.scores.get(f'IoU.{name}') for name in split.names], dtype=float)
    return all(run.scores.get(name) is None or abs(run.scores[name] - score) < 1e-3
               for name, score in zero_shot_scores(iou, split.seen, split.unseen).items())
