"""The files of a run's folder: its checkpoints, found by their numbers, and the record of its evaluations."""
import json
import logging
import os
import re
import shutil
from pathlib import Path

from models.errors import UserError
from models.weights import files, metadata
from models.weights.files import Checkpoint
from tools.engine.files import atomic_path

LATEST = 'latest.pth'  # a link to the newest checkpoint
STOPPED = 'stopped_iter_{}.pth'  # written between two intervals; removed when the next one is written
EVALUATIONS = 'evaluations.jsonl'  # a line for each evaluation of a run: its iteration and scores
NUMBER = re.compile(r'_(\d+)\.pth$')  # iterations done


def point_latest_to(path: Path) -> None:
    """Make `latest.pth` beside a checkpoint a link to it. If there was one before, it exists at any moment."""
    link = path.with_name(f'.latest.{os.getpid()}.part.pth')
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    link.replace(path.with_name(LATEST))


def numbered(folder: Path) -> list[Path]:
    """List the checkpoints of a folder, most iterations first; with equal iterations the best one's copy last."""
    found = [file for file in folder.glob('*.pth') if NUMBER.search(file.name) and not file.is_symlink()]
    return sorted(found, key=lambda file: (-int(NUMBER.search(file.name)[1]), file.name.startswith('best')))


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
    """Move the checkpoints of more than `beyond` iterations, and such evaluations, to a folder in `folder`.

    They belong to an earlier run, or to the part of a run that is about to be repeated.

    Returns:
        That folder; None if there is nothing to move.
    """
    moved = [file for file in numbered(folder) if int(NUMBER.search(file.name)[1]) > beyond]
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
        with atomic_path(record) as part:
            part.write_text(''.join(line_of(done, scores) for done, scores in lines.items() if done <= beyond))
    return aside


def evaluations(file: Path) -> dict[int, dict]:
    """Read the scores by iteration; a line that was cut off does not count."""
    found = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            entry = json.loads(line)
            found[entry.pop('iter')] = entry
        except ValueError:
            continue
    return found


def add_evaluation(file: Path, done: int, scores: dict) -> None:
    """Add a line, even if the last one was cut off."""
    whole = not file.exists() or file.read_text().endswith('\n')
    with file.open('a') as stream:
        stream.write(f'{"" if whole else chr(10)}{line_of(done, scores)}')


def line_of(done: int, scores: dict) -> str:
    return f'{json.dumps({"iter": done, **scores})}\n'
