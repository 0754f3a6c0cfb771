"""Make the missing folders of a benchmark from its archives."""
import errno
import sys
from http.client import HTTPException
from pathlib import Path

from models.errors import UserError
from tools.engine import downloads
from tools.engine.files import lock_folder, make_folder
from tools.preparation.context import make_context
from tools.preparation.files import names_in, write_list
from tools.preparation.sources import SBD_LISTS, VOC_LISTS, Archive, Benchmark
from tools.preparation.unpack import unpack
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
        for archive in archives:
            obtain(archive, folder / archive.name)
        for archive in archives:
            say(f'unpacking {folder / archive.name}')
            if archive.makes:
                make_context(folder / archive.name, root, workers)
            else:
                unpack(archive, folder / archive.name, root, workers)
        if any(split.name == 'aug' for split in benchmark.splits):
            list_aug(benchmark, root)


def obtain(archive: Archive, path: Path) -> None:
    """Download an archive to `path` if it is missing, and check that it is the published file.

    Raises:
        UserError: it cannot be downloaded, or is another file.
        OSError: the disk is full.
    """
    present, sources = path.exists(), ' or '.join(archive.urls)
    file = path if present else path.with_name(f'{path.name}.part')
    if not present:
        fetch(archive, file)
    if not archive.published:
        say(f'{path}: no size or checksum is published, so it is not checked')
    else:
        say(f'checking {path}')
    differs = downloads.difference(file, archive.published)
    if differs and present:
        raise UserError(f'{path} {differs}: it is truncated, or another file. Delete it, and get it again from '
                        f'{sources} or with --download.')
    if differs:
        file.unlink()
        raise UserError(f'the download for {path} {differs}, and was deleted. Run this again, or download it by hand '
                        f'from {sources}')
    file.replace(path)


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
