"""Unpack the files of zip and tar archives that a benchmark needs; existing files are left as they are."""
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from models.errors import UserError
from tools.preparation.convert_masks import CONVERTERS
from tools.preparation.files import naming_damage, remove_unfinished, write_file, write_mask
from tools.preparation.parallel import parallel
from tools.preparation.sources import Archive

MOST_BYTES = 32 * 2**20  # of a file in an archive: five times the largest published image


class Member(NamedTuple):
    """A file in an archive, and the path and converter (see `sources.Folder`) for it."""
    info: zipfile.ZipInfo | tarfile.TarInfo
    name: str
    size: int  # bytes
    target: Path
    labels: str | None


def unpack(archive: Archive, path: Path, root: Path, workers: int) -> None:
    """Write the files of an archive that are missing under `root`.

    Files are read one by one and written under names of our own, so no path or link in the archive is followed.

    Raises:
        UserError: the archive or a file in it is damaged, or the disk has too little space.
        OSError: a file cannot be written.
    """
    is_zip = path.suffix == '.zip'
    with ExitStack() as stack:
        with naming_damage(path):
            if is_zip:
                opened = stack.enter_context(zipfile.ZipFile(path))
                found = [(info, info.filename, info.file_size) for info in opened.infolist()]
            else:
                opened = stack.enter_context(tarfile.open(path))
                found = [(info, info.name, info.size) for info in opened.getmembers() if info.isreg()]
        members = missing_members(archive, found, root)
        needed, free = sum(member.size for member in members), shutil.disk_usage(root).free
        if needed > free:
            raise UserError(f'to unpack {path.name}, {needed / 1e9:.2f} GB are needed in {root} and {free / 1e9:.2f} '
                            'GB are free. Make room, or name a folder on a larger disk with --root.')

        def contents() -> Iterator[tuple[Member, bytes]]:
            for member in members:
                with naming_damage(path, member.name):
                    if member.size > MOST_BYTES:
                        raise ValueError(f'{member.size:,} bytes, no published file is as large')
                    with opened.open(member.info) if is_zip else opened.extractfile(member.info) as file:
                        content = file.read(member.size + 1)  # no more, even if the size is wrong
                yield member._replace(info=None), content

        converts = any(folder.labels for folder in archive.folders)  # copying alone needs one process
        for _ in parallel(partial(write, origin=path), contents(), len(members), workers if converts else 1, 'files'):
            pass


def missing_members(archive: Archive, found: Iterable[tuple], root: Path) -> list[Member]:
    """Choose the files of an archive, (info, name, size) each, that are missing under `root`; make their folders."""
    folders = {(folder.inside, folder.endings[0]): folder for folder in archive.folders}
    present = {}
    for target in {folder.target for folder in archive.folders}:
        (root / target).mkdir(parents=True, exist_ok=True)
        remove_unfinished(root / target)
        present[target] = {*os.listdir(root / target)}
    members = []
    for info, name, size in found:
        inside = PurePosixPath(name)
        folder = folders.get((str(inside.parent), inside.suffix))
        if folder and inside.name[0] != '.' and inside.stem + folder.endings[1] not in present[folder.target]:
            target = root / folder.target / (inside.stem + folder.endings[1])
            members.append(Member(info, name, size, target, folder.labels))
    return members


def write(task: tuple[Member, bytes], origin: Path) -> None:
    """Write a file, or the label ids of the mask that it holds.

    Raises:
        UserError: the mask is damaged; names the file and its archive, `origin`.
    """
    member, content = task
    if member.labels is None:
        write_file(member.target, content)
        return
    with naming_damage(origin, member.name):
        labels = CONVERTERS[member.labels](content)
    write_mask(member.target, labels)
