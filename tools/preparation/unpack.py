"""Unpack the files of zip and tar archives that a benchmark needs; existing files are left as they are."""
import errno
import os
import shutil
import tarfile
import zipfile
from functools import partial
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from models.errors import UserError
from tools.preparation.convert_masks import CONVERTERS
from tools.preparation.files import move, save_mask
from tools.preparation.parallel import parallel
from tools.preparation.sources import Archive, Folder

MOST_BYTES = 32 * 2**20  # of a file in an archive: five times the largest published image


def unpack(archive: Archive, path: Path, root: Path, staging: Path, workers: int) -> None:
    """Write the files of an archive that are missing under `root`.

    Args:
        path: the archive.
        staging: folder for unfinished files.

    Raises:
        UserError: the archive or a file in it is damaged, or the disk has too little space.
        OSError: a file cannot be written.
    """
    for folder in archive.folders:
        (root / folder.target).mkdir(parents=True, exist_ok=True)
    extract(archive, path, root, staging)
    for folder in archive.folders:
        files = [path for path in sorted((staging / folder.inside).glob('*')) if path.suffix == folder.endings[0]]
        place_file = partial(place, folder=folder, target=root / folder.target, origin=path)
        for _ in parallel(place_file, files, workers if folder.labels else 1, 'files'):  # moving needs one process
            pass


def extract(archive: Archive, path: Path, root: Path, staging: Path) -> None:
    """Extract the missing files of an archive to their paths in it, below `staging`.

    Raises:
        UserError: the archive is damaged, or the disk has too little space.
    """
    folders = {(folder.inside, folder.endings[0]): folder for folder in archive.folders}
    present = {folder.target: set(os.listdir(root / folder.target)) for folder in archive.folders}

    def is_wanted(name: str) -> bool:
        inside = PurePosixPath(name)
        folder = folders.get((str(inside.parent), inside.suffix))
        return folder is not None and inside.name[0] != '.' and \
            inside.stem + folder.endings[1] not in present[folder.target]

    current = ''
    try:
        with open_archive(path) as opened:
            if isinstance(opened, zipfile.ZipFile):
                members = [(info.filename, info.file_size, info) for info in opened.infolist()]
                options = {}
            else:
                members = [(info.name, info.size, info) for info in opened.getmembers() if info.isreg()]
                options = {'filter': 'data'}
            members = [member for member in members if is_wanted(member[0])]
            for current, size, _ in members:  # noqa: B007
                if size > MOST_BYTES:
                    raise ValueError(f'{size:,} bytes, no published file is as large')
            check_space(root, sum(size for _, size, _ in members), f'unpack {path.name}')
            for current, _, info in tqdm(members, unit='files', disable=None):  # noqa: B007
                opened.extract(info, staging, **options)
    except UserError:
        raise
    except Exception as error:  # of any kind: these libraries trust the archive
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # of the disk, not a wrong offset
            raise
        where = f'{current[:80]} in {path}' if current else path
        raise UserError(f'{where} is damaged or truncated ({error}). Delete {path} and get it again.') from error


def open_archive(path: Path) -> zipfile.ZipFile | tarfile.TarFile:
    """Open an archive by the ending of its name."""
    if path.suffix == '.zip':
        return zipfile.ZipFile(path)
    return tarfile.open(path, 'r:gz' if path.suffix == '.tgz' else 'r:')


def place(file: Path, *, folder: Folder, target: Path, origin: Path) -> None:
    """Move an extracted file to its folder under the root, or convert the mask that it holds.

    Raises:
        UserError: the mask is damaged; names the file and its archive, `origin`.
    """
    name = file.stem + folder.endings[1]
    if folder.labels is None:
        move(file, target / name)
        return
    try:
        labels = CONVERTERS[folder.labels](file.read_bytes())
    except UserError as error:
        raise UserError(f'{folder.inside}/{file.name} in {origin}: {error}. Delete the archive and get it again.'
                        ) from error
    save_mask(labels, file.with_name(f'{name}.new'), target / name)
    file.unlink()


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise a UserError if fewer than `needed` bytes are free where `folder` is."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f'to {purpose}, {needed / 1e9:.2f} GB are needed in {folder} and {free / 1e9:.2f} GB are '
                        'free. Make room, or name a folder on a larger disk with --root.')
