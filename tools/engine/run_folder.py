"""The files of a run's folder: its checkpoints, found by their numbers, and the record of its evaluations."""
import json
import logging
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from models.errors import UserError
from models.weights import files, metadata
from models.weights.files import Checkpoint
from tools.engine.files import atomic_path

LATEST = 'latest.pth'  # a link to the newest checkpoint
STOPPED = 'stopped_iter_{}.pth'  # written between two intervals; removed when the next one is written
EVALUATIONS = 'evaluations.jsonl'  # a line for each evaluation of a run: its iteration and scores
NUMBER = re.compile(r'_(\d+)\.pth$')  # at the end of a checkpoint's name: its iterations


def point_latest_to(path: Path) -> None:
    """Make `latest.pth` a link to a checkpoint beside it. An earlier link is replaced in one step."""
    link = path.with_name(f'.latest.{os.getpid()}.part.pth')
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    link.replace(path.with_name(LATEST))


def iterations_of(file: Path) -> int:
    """Read the number of iterations in the name of a checkpoint."""
    return int(NUMBER.search(file.name)[1])


def numbered(folder: Path) -> list[Path]:
    """List the checkpoints of a folder, most iterations first; of equally many, `best_*.pth` comes last."""
    found = [file for file in folder.glob('*.pth') if NUMBER.search(file.name) and not file.is_symlink()]
    return sorted(found, key=lambda file: (-iterations_of(file), file.name.startswith('best')))


def newest(folder: Path, logger: logging.Logger, since: float = 0) -> Checkpoint | None:
    """Read the checkpoint of most iterations; unreadable ones, and those of other code, are skipped with a warning.

    Args:
        since: older files (in seconds, as `time.time`) are ignored.
    """
    for file in numbered(folder):
        if file.stat().st_mtime < since:
            continue
        try:
            checkpoint = files.read(file)
            if metadata.is_ours(checkpoint):
                return checkpoint
            logger.warning('%s is not a checkpoint of this code: skipped.', file)
        except UserError as error:
            logger.warning('%s Skipped.', error)
    return None


def put_aside(folder: Path, *, beyond: int) -> Path | None:
    """Move the checkpoints of more than `beyond` iterations to a new folder in `folder`, and drop such evaluations.

    They belong to an earlier run, or to the part of a run that is about to be repeated. The whole record of evaluations
    is copied to the new folder.

    Returns:
        The new folder; None if there is nothing to move.
    """
    moved = [file for file in numbered(folder) if iterations_of(file) > beyond]
    link, record = folder / LATEST, folder / EVALUATIONS
    aside, number = None, 1
    if moved:
        while (aside := folder / f'earlier_{number}').exists():
            number += 1
        aside.mkdir()
        for file in moved:
            file.rename(aside / file.name)
        if record.exists():
            shutil.copy(record, aside)
        if beyond == 0 and link.exists() or link.is_symlink() and not link.exists():
            link.rename(aside / LATEST)
            if kept := numbered(folder):
                point_latest_to(kept[0])
    lines = evaluations(record)
    if any(done > beyond for done in lines):
        write_evaluations(record, {done: scores for done, scores in lines.items() if done <= beyond})
    return aside


def evaluations(file: Path) -> dict[int, dict]:
    """Read the scores by iteration; a damaged line does not count, and keeps no run from being resumed."""
    found = {}
    for line in file.read_text(errors='replace').splitlines() if file.exists() else ():
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            entry = json.loads(line)
            done = entry.pop('iter')
            if type(done) is int:
                found[done] = entry
    return found


def write_evaluations(file: Path, lines: dict[int, dict]) -> None:
    """Write the scores by iteration, so that the file always holds whole lines."""
    with atomic_path(file) as part:
        part.write_text(''.join(f'{json.dumps({"iter": done, **scores})}\n' for done, scores in lines.items()))
