"""Files of a benchmark: names in a folder, lists of names, files that never exist in part, damaged archives."""
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from models.errors import UserError
from tools.engine.files import atomic_path


def stems(folder: Path, ending: str) -> set[str]:
    """List the files in a folder that have this ending, without it; hidden files are left out."""
    return {path.name.removesuffix(ending) for path in folder.glob(f'[!.]*{ending}')}


def write_list(file: Path, names: Iterable[str]) -> None:
    """Write a list of names, sorted, unless the file exists."""
    if not file.exists():
        write_file(file, ''.join(f'{name}\n' for name in sorted(names)).encode())


def write_mask(target: Path, labels: np.ndarray) -> None:
    """Write label ids (H, W) uint8 as PNG, see `write_file`."""
    with atomic_path(target, sync=False) as path:
        Image.fromarray(labels).save(path)


def write_file(target: Path, content: bytes) -> None:
    """Write a file that never exists in part; the many files of a dataset are not forced to the disk one by one."""
    with atomic_path(target, sync=False) as path:
        path.write_bytes(content)


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files of a run that was killed."""
    for path in folder.glob('.*.part*'):
        path.unlink()


@contextmanager
def naming_damage(path: Path, name: str = '') -> Iterator[None]:
    """Turn any error of reading an archive into a UserError that names it, and the file `name` in it.

    The libraries trust the archive: errors may be of any type.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # of the disk, not a wrong offset
            raise
        where = f'{name[:80]} in {path}' if name else path
        raise UserError(f'{where} is damaged, truncated or another file ({type(error).__name__}: {error}). '
                        f'Delete {path} and get it again.') from error
