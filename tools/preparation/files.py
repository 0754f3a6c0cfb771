"""Small files of a benchmark: lists of names, masks."""
import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from tools.engine.files import atomic_path


def names_in(file: Path) -> list[str]:
    """Read the lines of a list, without blank ones."""
    return [line.strip() for line in file.read_text().splitlines() if line.strip()]


def stems(folder: Path, ending: str) -> set[str]:
    """List the files in a folder that have this ending, without it."""
    names = os.listdir(folder) if folder.is_dir() else []
    return {name.removesuffix(ending) for name in names if name.endswith(ending)}


def write_list(file: Path, names: Iterable[str]) -> None:
    """Write a list of names, sorted, unless the file exists."""
    if not file.exists():
        with atomic_path(file) as path:
            path.write_text(''.join(f'{name}\n' for name in sorted(names)))


def save_mask(labels: np.ndarray, staged: Path, target: Path) -> None:
    """Write label ids (H, W) uint8 as PNG to `staged`, then move the finished file to `target`."""
    Image.fromarray(labels).save(staged, 'PNG')
    move(staged, target)


def move(staged: Path, target: Path) -> None:
    """Move a finished file to its place, which may be on another disk; there it is never incomplete."""
    try:
        staged.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with atomic_path(target) as path:
            shutil.copyfile(staged, path)
        staged.unlink()
