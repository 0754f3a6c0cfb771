"""Make the missing folders of a benchmark from its archives."""
import sys
from importlib.util import find_spec
from pathlib import Path

from models.errors import UserError
from tools.engine import downloads
from tools.engine.files import atomic_path, lock_folder, make_folder
from tools.preparation.sources import CONTEXT_MASKS, SBD_LISTS, VOC_LISTS, Benchmark
from tools.preparation.unpack import unpack
from tools.preparation.verify import incomplete_folders


def prepare(benchmark: Benchmark, root: Path, *, download: bool, workers: int) -> None:
    """Make the missing folders of a benchmark under `root`, from archives in `root/downloads`.

    Raises:
        UserError: an archive or pycocotools is missing, an archive is damaged, or the disk has too little space.
        OSError: an archive cannot be downloaded or is another file, or a file cannot be written.
    """
    incomplete = incomplete_folders(benchmark, root)
    archives = [archive for archive in benchmark.archives
                if not incomplete.isdisjoint(folder.target for folder in archive.folders)]
    if not archives:
        return
    if CONTEXT_MASKS in incomplete and find_spec('pycocotools') is None:
        raise UserError('PASCAL Context needs pycocotools: pip install -r tools/preparation/requirements.txt')
    folder = root / 'downloads'
    missing = [archive for archive in archives if not (folder / archive.name).exists()
               and (archive.on_request or not download)]
    if missing:
        ask = 'its owners give it to account holders only: ask at '
        wanted = '; '.join(f'{archive.name} ({ask if archive.on_request else ""}{" or ".join(archive.urls)})'
                           for archive in missing)
        remedy = 'there.' if all(archive.on_request for archive in missing) else 'there, or run this with --download.'
        raise UserError(f'missing in {folder}: {wanted}. Put {"it" if len(missing) == 1 else "them"} {remedy}')
    with lock_folder(make_folder(folder), '--root'):
        for archive in archives:
            downloads.obtain(folder / archive.name, archive.urls, archive.published)
        for archive in archives:
            sys.stderr.write(f'unpacking {folder / archive.name}\n')
            unpack(archive, folder / archive.name, root, workers)
        if any(split.name == 'aug' for split in benchmark.splits):
            list_aug(benchmark, root)


def list_aug(benchmark: Benchmark, root: Path) -> None:
    """Write aug.txt unless it exists: the images of SBD that VOC's own train.txt and val.txt do not list.

    Raises:
        UserError: one of these lists is incomplete.
    """
    own = set()
    for split in benchmark.splits:
        if split.name in ('train', 'val'):
            names = (root / split.names).read_text().split()
            if len(names) != split.count:
                raise UserError(f'{root / split.names} lists {len(names):,} images, expected {split.count:,}. Delete '
                                'it and run this again.')
            own.update(names)
    sbd = {name for part in ('train', 'val') for name in (root / SBD_LISTS / f'{part}.txt').read_text().split()}
    aug = root / VOC_LISTS / 'aug.txt'
    if not aug.exists():
        with atomic_path(aug) as file:
            file.write_text(''.join(f'{name}\n' for name in sorted(sbd - own)))
