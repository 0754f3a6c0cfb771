"""Files out of zip and tar archives into their folders; those that are there already are left as they are."""
import gzip
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from models.errors import UserError
from tools.engine.progress import Progress
from tools.preparation.parallel import parallel, write_whole
from tools.preparation.sources import Archive, Folder

MOST_BYTES = 32 * 2**20  # of a member, or of what a tar says about one: the largest published image has a fifth of it
LONGEST_NAME = 200  # characters


class Member(NamedTuple):
    """A file in an archive; `size` in bytes."""
    path: PurePosixPath
    size: int
    read: Callable[[], bytes]


class Job(NamedTuple):
    """A member to be written to `target`."""
    member: Member
    folder: Folder
    target: Path


@contextmanager
def opened(path: Path) -> Iterator[tuple[Iterator[Member], Callable[[], int]]]:
    """The files of an archive in its order, and a function that tells how many bytes of it are read.

    Raises:
        UserError: a damaged archive, or one with a path that leads out of it.
    """
    members = zip_members if path.suffix == '.zip' else tar_members
    with path.open('rb') as file, gzip.open(file) if path.suffix == '.tgz' else file as content:
        with readable(path):
            archive = zipfile.ZipFile(file) if path.suffix == '.zip' else tarfile.TarFile(fileobj=Pieces(content))
        with archive:
            yield members(archive, path), file.tell


class Pieces:
    """A file of which no more than `MOST_BYTES` are read at once: `tarfile` takes headers of whatever size they say."""

    def __init__(self, file: IO[bytes]):
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_BYTES:
            raise tarfile.ReadError(f'a header of {size:,} bytes')
        return self.file.read(size)


@contextmanager
def readable(path: Path, name: str | None = None) -> Iterator[None]:
    """What reading an archive, or a file in it, raises becomes a UserError that names it."""
    try:
        yield
    except Exception as error:  # of any kind: these libraries trust the archive
        what = path if name is None else f'{name} in {path}'
        raise UserError(f'{what} is damaged or cut off ({error}). Delete {path} and get it again.') from error


def zip_members(archive: zipfile.ZipFile, path: Path) -> Iterator[Member]:
    def read(info: zipfile.ZipInfo) -> bytes:
        with readable(path, info.filename), archive.open(info) as file:
            return file.read(info.file_size)  # without a size the whole stream would be unpacked, however long it is

    for info in archive.infolist():
        name = inner_path(info.filename, path)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f'{path} is packed in another way than the published archive. Delete it and get it again.')
        if not info.filename.endswith('/'):
            yield Member(name, info.file_size, partial(read, info))


def tar_members(archive: tarfile.TarFile, path: Path) -> Iterator[Member]:
    def read(info: tarfile.TarInfo) -> bytes:
        with readable(path, info.name):
            return archive.extractfile(info).read()

    def following() -> tarfile.TarInfo | None:
        with readable(path):
            return archive.next()

    while info := following():
        name = inner_path(info.name, path)
        if info.isreg():
            yield Member(name, info.size, partial(read, info))


def inner_path(name: str, archive: Path) -> PurePosixPath:
    """A member's path, which stays within the folder that it is unpacked to.

    Raises:
        UserError: it does not, or is empty.
    """
    path = PurePosixPath(name.replace('\\', '/'))
    if not path.parts:
        raise UserError(f'{archive} is damaged: it holds a file without a name. Delete it and get it again.')
    if path.is_absolute() or '..' in path.parts:
        raise UserError(f'{archive} holds a file {name!r}, whose path leads out of the folder. This is not the '
                        'published archive: delete it and get it again.')
    return path


def unpack(archive: Archive, path: Path, root: Path, workers: int) -> None:
    """Writes those files of an archive that lack under `root`.

    Raises:
        UserError: the archive or a file in it is damaged, or the disk lacks space.
        OSError: a file can't be written.
    """
    for folder in archive.folders:
        (root / folder.target).mkdir(parents=True, exist_ok=True)
    with opened(path) as (members, bytes_read):
        jobs = lacking(archive, members, root)
        if path.suffix != '.tgz':  # which must be unpacked to be listed
            jobs = list(jobs)
            check_space(root, sum(job.member.size for job in jobs if job.folder.labels is None), f'unpack {path.name}')
        converts = any(folder.labels for folder in archive.folders)  # copying is work for the disk alone
        with Progress(0, path.stat().st_size) as progress:
            tasks = contents(path, jobs, lambda: progress.update(bytes_read()))
            for _ in parallel(write_file, tasks, workers if converts else 1):
                pass


def contents(path: Path, jobs: Iterable[Job], report: Callable[[], None]) -> Iterator[tuple]:
    """The arguments of `write_file` for each job, read from the archive at `path` one by one."""
    for job in jobs:
        yield job.target, job.member.read(), job.folder.labels, f'{job.member.path} in {path}'
        report()


def lacking(archive: Archive, members: Iterator[Member], root: Path) -> Iterator[Job]:
    """What an archive holds for its folders under `root` and they lack; hidden files are left out.

    Raises:
        UserError: a file in it is larger than any that is published, or its name has control characters or is too long.
    """
    folders = {(folder.inside, folder.endings[0]): folder for folder in archive.folders}
    present = {folder.target: set(os.listdir(root / folder.target)) for folder in archive.folders}
    for member in members:
        folder = folders.get((str(member.path.parent), member.path.suffix))
        if folder is not None and not member.path.name.startswith('.'):
            name = member.path.stem + folder.endings[1]
            if member.size > MOST_BYTES or not name.isprintable() or len(name) > LONGEST_NAME:
                what = f'{member.size:,} bytes' if member.size > MOST_BYTES else 'a name that is none of a file'
                raise UserError(f'{archive.name} holds a file {str(member.path)[:80]!r} with {what}. This is not the '
                                'published archive: delete it and get it again.')
            if name not in present[folder.target]:
                yield Job(member, folder, root / folder.target / name)


def write_file(target: Path, content: bytes, labels: Callable[[bytes], np.ndarray] | None, origin: str) -> None:
    """Writes a file of an archive as it is, or the labels that it holds as PNG.

    Raises:
        UserError: it holds none; names `origin`.
    """
    if labels is not None:
        try:
            content = png(labels(content))
        except ValueError as error:
            raise UserError(f'{origin}: {error}. Delete the archive and get it again.') from error
    write_whole(target, content)


def png(labels: np.ndarray) -> bytes:
    """Label ids (H, W) uint8 -> a PNG file."""
    buffer = BytesIO()
    Image.fromarray(labels).save(buffer, 'PNG')
    return buffer.getvalue()


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """Raises a UserError if fewer bytes are free where `folder` is."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f'to {purpose}, {needed / 1e9:.2f} GB are needed in {folder} and {free / 1e9:.2f} GB are '
                        'free. Make room, or name a folder on a larger disk with --root.')
