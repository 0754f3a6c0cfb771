"""Unpack the files of zip and tar archives that a benchmark needs; existing files are left as they are."""
import errno
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from PIL import Image

from models.errors import UserError
from tools.engine.files import atomic_path
from tools.preparation.context import context_files
from tools.preparation.convert import CONVERTERS
from tools.preparation.parallel import parallel
from tools.preparation.sources import Archive

MOST_BYTES = 64 * 2**20  # of a file in an archive; few JPEGs of 100 million pixels, the most that is read, have more
CONVERTED_BYTES = 2**18  # of a converted file, to estimate: a JPEG of 683x512 pixels has 0.16 MB, masks have less


class Task(NamedTuple):
    """A file of an archive to write, and the path and converter (see `sources.Folder`) for it."""
    name: str  # in the archive
    target: Path
    converter: str | None
    content: bytes = b''


def unpack(archive: Archive, path: Path, root: Path, workers: int) -> None:
    """Write the files of an archive that are missing under `root`.

    Files are read one by one and written under names of our own, so no path or link in the archive is followed.

    Raises:
        UserError: the archive or a file in it is damaged, or the disk has too little space.
        OSError: a file cannot be written.
    """
    with ExitStack() as stack:
        with naming_damage(path):
            if path.suffix == '.json':
                files = ((name, len(content), partial(BytesIO, content)) for name, content in context_files(path))
            elif path.suffix == '.zip':
                opened = stack.enter_context(zipfile.ZipFile(path))
                files = ((info.filename, info.file_size, partial(opened.open, info)) for info in opened.infolist())
            else:
                opened = stack.enter_context(tarfile.open(path))
                files = ((info.name, info.size, partial(opened.extractfile, info)) for info in opened.getmembers()
                         if info.isreg())
            missing = missing_files(archive, files, root)
        needed = sum(min(size, CONVERTED_BYTES) if task.converter else size for task, size, _ in missing)
        free = shutil.disk_usage(root).free
        if needed > free:
            raise UserError(f'to unpack {path.name}, {needed / 1e9:.2f} GB are needed in {root} and {free / 1e9:.2f} '
                            'GB are free. Make room, or name a folder on a larger disk with --root.')

        def tasks() -> Iterator[Task]:
            for task, size, open_file in missing:
                with naming_damage(path, task.name):
                    if size > MOST_BYTES:
                        raise ValueError(f'{size:,} bytes, no published file is as large')
                    with open_file() as file:
                        content = file.read(size + 1)  # no more, even if the size is wrong
                yield task._replace(content=content)

        converts = any(folder.converter for folder in archive.folders)  # copying alone needs one process
        for _ in parallel(partial(write, origin=path), tasks(), len(missing), workers if converts else 1, 'files'):
            pass


def missing_files(archive: Archive, files: Iterable[tuple[str, int, Callable[[], IO[bytes]]]], root: Path
                  ) -> list[tuple[Task, int, Callable[[], IO[bytes]]]]:
    """Choose the files of an archive, (name, size, opener) each, that are missing under `root`; make their folders.

    Raises:
        ValueError: the archive has no file of a folder, whether missing or not.
    """
    present = {}
    for target in {root / folder.target for folder in archive.folders}:
        target.mkdir(parents=True, exist_ok=True)
        for unfinished in target.glob('.*.part*'):  # of a run that was killed
            unfinished.unlink()
        present[target] = {*os.listdir(target)}
    missing, found = [], set()
    for name, size, open_file in files:
        inside = PurePosixPath(name)
        for folder in archive.folders:
            if (inside.name.endswith(folder.endings[0]) and inside.name[0] != '.'
                    and fnmatchcase(str(inside.parent), folder.inside)):
                found.add(folder)
                target = root / folder.target / (inside.name.removesuffix(folder.endings[0]) + folder.endings[1])
                if target.name not in present[target.parent]:
                    missing.append((Task(name, target, folder.converter), size, open_file))
    absent = [f'{folder.inside}/*{folder.endings[0]}' for folder in archive.folders if folder not in found]
    if absent:
        raise ValueError(f'it has no files {" and no files ".join(absent)}')
    return missing


def write(task: Task, origin: Path) -> None:
    """Write a file that never exists in part: as it is, or converted; label ids become a PNG.

    The many files of a dataset are not forced to the disk one by one.

    Raises:
        UserError: the file cannot be converted; names it and its archive, `origin`.
    """
    with naming_damage(origin, task.name):
        result = CONVERTERS[task.converter](task.content) if task.converter else task.content
    with atomic_path(task.target, sync=False) as path:
        if isinstance(result, bytes):
            path.write_bytes(result)
        else:
            Image.fromarray(result).save(path)


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
