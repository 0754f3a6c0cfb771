"""The results that test.py has written to work folders, and the configs of this repository that they belong to."""
import json
import re
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from models.errors import UserError
from tools.results.leaves import Leaf, leaves

# What test.py writes, and the summary needs.
FACTS = {'config', 'checkpoint', 'iteration', 'images', 'protocol', 'setting', 'unseen_names', 'own_modules',
         'trained_parameters', 'metric'}


class Run(NamedTuple):
    """A test of a run."""
    config: str  # path as it was given to test.py
    scores: dict[str, float | None]  # fractions; those of classes as 'IoU.<class>'
    classes: tuple[str, ...]
    multi_scale: bool
    kind: tuple  # values that all tests of one row share, beside the config
    facts: dict[str, Any]  # at least FACTS
    seconds: float | None  # per training iteration
    note: str = ''


def tests_that_count(folder: Path) -> list[Run]:
    """Return the newest test of the last checkpoint, for each config, class list, prompts and number of images.

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
    counting = []
    for tests in groups.values():
        last = sorted(tests, key=lambda test: ('mIoU' in test.scores, test.facts['iteration'] or 0))[-1]
        checkpoint, *others = dict.fromkeys(Path(test.facts['checkpoint']).name for test in (last, *tests))
        counting.append(last._replace(note=f'{folder}: the score is that of {checkpoint}; not counted: '
                                           f'{", ".join(sorted(others))}' if others else ''))
    return counting


def read_test(file: Path, folder: Path) -> Run:
    """Read a JSON file of test.py.

    Raises:
        UserError: it is damaged or of another format.
    """
    try:
        facts = json.loads(file.read_text())
    except ValueError as error:  # not JSON, or not text
        raise UserError(f'{file} is damaged: remove it, and test again.') from error
    if not isinstance(facts, dict) or not facts.keys() >= FACTS:
        raise UserError(f'{file} is not a result of this test.py: move it elsewhere, and test again.')
    scores = facts['metric']
    classes = tuple(dict.fromkeys(name.split('.', 1)[1] for name in scores if '.' in name))  # 'IoU.cat', 'Dice.cat'
    multi_scale = file.name.startswith('eval_multi')
    kind = (classes, tuple(facts['unseen_names']), multi_scale, facts['images'],
            json.dumps([facts.get(name) for name in ('prompt_set', 'text_embeddings')]))
    return Run(facts['config'], scores, classes, multi_scale, kind, facts, seconds_per_iteration(folder))


def prompts_of(run: Run) -> str:
    """Name the prompts of a test, or its file of embeddings; empty if it was written before these were recorded."""
    if file := run.facts.get('text_embeddings'):
        return f'embeddings of {Path(file).name}'
    prompts = run.facts.get('prompt_set', '')
    return prompts if isinstance(prompts, str) else 'own prompts'


def seconds_per_iteration(folder: Path) -> float | None:
    """Return the median in the newest training log of a work folder; None if there is none."""
    for log in sorted(folder.glob('*.log.json'), reverse=True):  # named by time
        times = [float(time) for time in re.findall(r'"mode": "train".*"time": ([\d.]+)', log.read_text())]
        if times:
            return statistics.median(times)
    return None


def leaf_beside(run: Run) -> tuple[Leaf | None, bool]:
    """Return the config of this repository that a run compares with, and whether the run is one of that config.

    It has the run's classes, split, protocol and setting. A config of the same file name is preferred, then one with
    published scores.
    """
    def named_alike(leaf: Leaf) -> bool:
        return Path(leaf.name).name == Path(run.config).name

    facts = run.facts
    alike = [leaf for leaf in leaves().values() if run.classes == leaf.split.names and
             {*facts['unseen_names']} == {*leaf.split.unseen_names} and
             (facts['setting'], facts['protocol']) == (leaf.setting, leaf.protocol)]
    best = min(alike, key=lambda leaf: (not named_alike(leaf), 'published' not in leaf.config), default=None)
    return best, best is not None and named_alike(best) and not facts['own_modules']
