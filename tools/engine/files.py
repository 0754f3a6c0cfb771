"""Files and folders that several processes may use: written as a whole, held by one."""
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from models.errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a path to write to; what is there takes the name `path` when the block ends without an error.

    So `path` is never there in part. The other path lies beside it and has the same suffix.
    """
    part = path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')
    try:
        yield part
        with part.open('rb') as file:
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """A renamed file keeps its new name should the machine lose its power, where the file system can do that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def lock_folder(folder: Path, message: str, *, patience: float = 0., waiting: str = '') -> IO:
    """Keep other processes that ask for it out of a folder until the returned file is closed, or this process ends.

    Processes that this one starts do not share the lock.

    Args:
        message: of the error when another process has it.
        patience: seconds to wait for that process to end.
        waiting: said once on stderr before waiting.

    Raises:
        UserError: another process does not end meanwhile.
    """
    file = (folder / '.lock').open('a')
    end, said = time.monotonic() + patience, not waiting
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):  # a file system without locks
                return file
        if time.monotonic() >= end:
            file.close()
            raise UserError(message)
        if not said:
            said = True
            os.write(2, f'{waiting}\n'.encode())
        time.sleep(min(1, patience))


def make_folder(path: str | Path) -> Path:
    """Make a folder that can be written.

    Raises:
        UserError: it can't be.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f'.write-{os.getpid()}'
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = 'it is a file' if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f'cannot write to the folder {path}: {reason}. Name another one.') from error
    return path
