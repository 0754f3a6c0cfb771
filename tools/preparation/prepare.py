"""Make the missing folders of a benchmark from its archives."""
import errno
import shutil
import sys
from http.client import HTTPException
from pathlib import Path

from models.errors import UserError
from tools.engine import downloads
from tools.engine.files import lock_folder, make_folder
from tools.preparation.context import make_context
from tools.preparation.files import names_in, write_list
from tools.preparation.sources import SBD_LISTS, VOC_LISTS, Archive, Benchmark
from tools.preparation.unpack import check_space, unpack
from tools.preparation.verify import incomplete_folders


def say(text: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f'{text}\n')


def prepare(benchmark: Benchmark, root: Path, *, download: bool, workers: int) -> None:
    """Make the missing folders of a benchmark under `root`, from archives in `root/downloads`.

    Raises:
        UserError: an archive is missing, damaged or another file, or the disk has too little space.
        OSError: a file cannot be written.
    """
    incomplete = incomplete_folders(benchmark, root)
    archives = [archive for archive in benchmark.archives if archive.targets & incomplete]
    if not archives:
        return
    folder = root / 'downloads'
    missing = [archive for archive in archives if not (folder / archive.name).exists()]
    if missing and not download:
        wanted = '; '.join(f'{archive.name} ({" or ".join(archive.urls)})' for archive in missing)
        raise UserError(f'missing in {folder}: {wanted}. Put them there, or run this with --download.')
    with lock_folder(make_folder(folder), f'another run is using {folder}: wait until it ends.'):
        obtain(archives, folder)
        staging = folder / 'unpacking'
        for archive in archives:
            say(f'unpacking {folder / archive.name}')
            shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
            try:
                if archive.makes:
                    make_context(folder / archive.name, root, staging, workers)
                else:
                    unpack(archive, folder / archive.name, root, staging, workers)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        if any(split.name == 'aug' for split in benchmark.splits):
            list_aug(benchmark, root)


def obtain(archives: list[Archive], folder: Path) -> None:
    """Download the missing archives, and check that each is the published file.

    Raises:
        UserError: an archive cannot be downloaded, or is another file.
    """
    missing = [archive for archive in archives if not (folder / archive.name).exists()]
    check_space(folder, sum(bytes_to_come(archive, folder) for archive in missing), 'download the archives')
    for archive in archives:
        path = folder / archive.name
        sources = ' or '.join(archive.urls)
        if archive in missing:
            part = part_of(archive, folder)
            fetch(archive, part)
            if differs := compare(archive, part):
                part.unlink()
                raise UserError(f'the download for {path} {differs}, and was deleted. Run this again, or download it '
                                f'by hand from {sources}')
            part.replace(path)
        elif differs := compare(archive, path):
            raise UserError(f'{path} {differs}: it is truncated, or another file. Delete it, and get it again from '
                            f'{sources} or with --download.')


def part_of(archive: Archive, folder: Path) -> Path:
    """Return the path of an unfinished download."""
    return folder / f'{archive.name}.part'


def bytes_to_come(archive: Archive, folder: Path) -> int:
    """Return the bytes that are left to download, 0 if no size is published."""
    part = part_of(archive, folder)
    return max(0, archive.expected.get('size', 0) - (part.stat().st_size if part.exists() else 0))


def fetch(archive: Archive, part: Path) -> None:
    """Download the rest of `part` from the first address that works.

    Raises:
        UserError: none does.
        OSError: the disk is full.
    """
    failures = []
    for url in archive.urls:
        say(f'downloading {url} to {part}')
        try:
            return downloads.fetch_with_retries(url, part)
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise OSError(error.errno, error.strerror, str(part)) from error
            failures.append(f'{url}: {error}')
    raise UserError(f'cannot download {archive.name} ({"; ".join(failures)}). Run this again to resume, or download '
                    f'it by hand and put it into {part.parent}')


def compare(archive: Archive, path: Path) -> str | None:
    """Compare a file with the published size and hashes, see `downloads.difference`."""
    if not archive.published:
        say(f'{path}: no size or checksum is published, so it is not checked')
        return None
    say(f'checking {path}')
    return downloads.difference(path, archive.expected)


def list_aug(benchmark: Benchmark, root: Path) -> None:
    """Write aug.txt: the images of SBD that VOC's own train.txt and val.txt do not list.

    Raises:
        UserError: one of these lists is incomplete.
    """
    own = set()
    for split in benchmark.splits:
        if split.name in ('train', 'val'):
            names = names_in(root / split.names)
            if len(names) != split.count:
                raise UserError(f'{root / split.names} lists {len(names):,} images, expected {split.count:,}. Delete '
                                'it and run this again.')
            own.update(names)
    sbd = {name for part in ('train', 'val') for name in names_in(root / SBD_LISTS / f'{part}.txt')}
    write_list(root / VOC_LISTS / 'aug.txt', sbd - own)


def parent_root(benchmark: Benchmark, root: Path) -> Path | None:
    """Return the right root if `root` is a folder inside the layout, such as data/VOCdevkit/VOC2012."""
    return next((above for split in benchmark.splits for above in root.parents
                 if (above / split.images).is_relative_to(root) and (above / split.images).is_dir()), None)
