"""Files and folders that several processes may use: atomic writes, and a lock for a folder."""
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
def atomic_path(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Give a temporary path to write to; the file is renamed to `path` if the block ends without an error.

    So `path` never exists in part. The temporary path is `.NAME.PID.part.SUFFIX` in the same folder.

    Args:
        sync: the file outlasts a loss of power, too; False is faster for very many files.
    """
    part = path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')
    try:
        yield part
        if sync:
            with part.open('rb') as file:
                os.fsync(file.fileno())
        part.replace(path)
        if sync:
            sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a renamed file keep its new name if the machine loses power, where the file system supports that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def lock_folder(folder: Path, option: str, *, patience: float = 0.) -> IO:
    """Lock a folder until the returned file is closed, or this process ends; child processes do not share the lock.

    Args:
        option: of the command line that names another folder, for messages.
        patience: seconds to wait for another run. It may have died on another machine, and its lock not yet expired.

    Raises:
        UserError: another process still has the lock.
    """
    file = (folder / '.lock').open('a')
    end, printed, other = time.monotonic() + patience, False, f'another run writes to {folder}'
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):  # a file system without locks
                return file
        if time.monotonic() >= end:
            file.close()
            raise UserError(f'{other}: wait for its end, or name another {option}.')
        if not printed:
            printed = True
            os.write(2, f'{other}: waiting {patience:.0f} s for its end\n'.encode())
        time.sleep(min(1, patience))


def make_folder(path: str | Path) -> Path:
    """Make a folder, and check that it can be written to.

    Raises:
        UserError: it can't.
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
