#!/usr/bin/env python3
"""Make a benchmark's folders from its archives, and check them: `python tools/prepare_data.py voc12 --download`.

What is there is not made again, so a run that was ended goes on where it stopped.
"""
import argparse
import errno
import fcntl
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, whoever else has one
from models.errors import UserError
from tools.engine import downloads, process
from tools.engine.config import REPOSITORY
from tools.engine.progress import Progress
from tools.preparation import detail_annotations, sources
from tools.preparation.parallel import parallel, write_whole
from tools.preparation.sources import BENCHMARKS, Archive, Benchmark
from tools.preparation.unpack import check_space, png, unpack
from tools.preparation.verify import folders_that_lack, names_in, stems, verify


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def prepare(benchmark: Benchmark, root: Path, *, download: bool, workers: int) -> None:
    """Makes what lacks of a benchmark under `root`, from archives in `root/downloads`.

    Raises:
        UserError: an archive lacks, is another one or is damaged; the disk lacks space.
        OSError: something can't be written.
    """
    lacking = folders_that_lack(benchmark, root)
    archives = [archive for archive in benchmark.archives if archive.targets & lacking]
    if archives:
        folder = root / 'downloads'
        absent = [archive for archive in archives if not (folder / archive.name).exists()]
        if absent and not download:
            wanted = '; '.join(f'{archive.name} ({" or ".join(archive.urls)})' for archive in absent)
            raise UserError(f'{folder} lacks {wanted}. Put them there, or run this with --download.')
        with hold(folder):
            obtain(archives, folder)
            for archive in archives:
                say(f'unpacking {folder / archive.name}')
                make = draw_context if archive.makes else unpack
                make(archive, folder / archive.name, root, workers)
            for split in benchmark.splits:
                if split.name == 'aug':
                    list_aug(benchmark, root)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """One run at a time works in a folder.

    Raises:
        UserError: another one does.
    """
    with (process.make_folder(folder) / '.lock').open('w') as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by workers, who may outlive a killed run
        except BlockingIOError:
            raise UserError(f'another run is at work in {folder}: wait for it, or end it.') from None
        yield


def obtain(archives: list[Archive], folder: Path) -> None:
    """Downloads the archives that a folder lacks, and sees to it that each is as it was published.

    Raises:
        UserError: one can't be had or is another one.
    """
    lacking = [archive for archive in archives if not (folder / archive.name).exists()]
    check_space(folder, sum(bytes_to_come(archive, folder) for archive in lacking), 'download the archives')
    for archive in archives:
        path = folder / archive.name
        if archive in lacking:
            part = part_of(archive, folder)
            fetch(archive, part)
            differs = compare(archive, part)
            if differs:
                part.unlink()
                raise UserError(f'what came for {path} {differs}, and was deleted. Run this again, or get it by hand '
                                f'from {" or ".join(archive.urls)}')
            part.replace(path)
        else:
            differs = compare(archive, path)
            if differs:
                raise UserError(f'{path} {differs}: it is cut off, or another file. Delete it, and get it again from '
                                f'{" or ".join(archive.urls)} or with --download.')


def part_of(archive: Archive, folder: Path) -> Path:
    """Where a download grows; it gets its name when it is whole and right."""
    return folder / f'{archive.name}.part'


def bytes_to_come(archive: Archive, folder: Path) -> int:
    """What a download still lacks, 0 where nobody published the size."""
    part = part_of(archive, folder)
    return max(0, archive.expected.get('size', 0) - (part.stat().st_size if part.exists() else 0))


def fetch(archive: Archive, part: Path) -> None:
    """Downloads what `part` lacks of an archive, from the first address that has it.

    Raises:
        UserError: none has.
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
    raise UserError(f'cannot download {archive.name} ({"; ".join(failures)}). Run this again to go on, or get it by '
                    f'hand and put it into {part.parent}')


def compare(archive: Archive, path: Path) -> str | None:
    """How a file differs from what is published of the archive, as `downloads.difference` says it."""
    if not archive.published:
        say(f'{path}: nobody published its size or checksum, so it is taken as it is')
        return None
    say(f'checking {path}')
    with Progress(0, path.stat().st_size) as progress:
        return downloads.difference(path, archive.expected, progress.update)


def draw_context(archive: Archive, path: Path, root: Path, workers: int) -> None:
    """Writes PASCAL Context's masks that lack, then its lists, from the detail annotations at `path`.

    Raises:
        UserError: these are damaged.
        OSError: a file can't be written.
    """
    splits = detail_annotations.read(path)
    folder, lists = root / sources.CONTEXT_MASKS, root / sources.CONTEXT_LISTS
    folder.mkdir(parents=True, exist_ok=True)
    lists.mkdir(parents=True, exist_ok=True)
    present = stems(folder, '.png')
    tasks = [(drawing, folder / f'{drawing.name}.png', path) for drawings in splits.values() for drawing in drawings
             if drawing.name not in present]
    say(f'drawing masks into {folder}')
    with Progress(0, len(tasks), 'masks') as progress:
        for done, _ in enumerate(parallel(draw, tasks, workers), 1):
            progress.update(done)
    for name, drawings in splits.items():
        write_list(lists / f'{name}.txt', (drawing.name for drawing in drawings))


def draw(drawing: detail_annotations.Drawing, target: Path, source: Path) -> None:
    try:
        labels = detail_annotations.paint(drawing)
    except ValueError as error:
        raise UserError(f'{drawing.name} in {source}: {error}. Delete the file and get it again.') from error
    write_whole(target, png(labels))


def list_aug(benchmark: Benchmark, root: Path) -> None:
    """Writes aug.txt: SBD's images but for those that VOC's own train.txt and val.txt name.

    Raises:
        UserError: one of these is not whole.
    """
    own = set()
    for split in benchmark.splits:
        if split.name in ('train', 'val'):
            names = names_in(root / split.names)
            if len(names) != split.count:
                raise UserError(f'{root / split.names} names {len(names):,} images, expected {split.count:,}. '
                                'Delete it and run this again.')
            own.update(names)
    sbd = {name for part in ('train', 'val') for name in names_in(root / sources.SBD_LISTS / f'{part}.txt')}
    write_list(root / sources.VOC_LISTS / 'aug.txt', sbd - own)


def write_list(file: Path, names: Iterable[str]) -> None:
    if not file.exists():
        write_whole(file, ''.join(f'{name}\n' for name in sorted(names)).encode())


def meant_root(benchmark: Benchmark, root: Path) -> Path | None:
    """The folder above, when `root` is itself a folder of the layout, such as data/VOCdevkit/VOC2012."""
    return next((above for split in benchmark.splits for above in root.parents
                 if (above / split.images).is_relative_to(root) and (above / split.images).is_dir()), None)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a benchmark's folders from its archives, and check them.")
    parser.add_argument('benchmark', choices=BENCHMARKS)
    parser.add_argument('--root', type=Path, default=REPOSITORY / 'data', metavar='DIR',
                        help='where the folders are made; archives are in DIR/downloads (default: %(default)s)')
    action = parser.add_mutually_exclusive_group()
    action.add_argument('--download', action='store_true', help='get the archives that are missing from their owners')
    action.add_argument('--verify', action='store_true', help='only check what is there, and change nothing')
    parser.add_argument('--workers', type=process.at_least_one, default=len(os.sched_getaffinity(0)), metavar='N',
                        help='processes (default: as many as this one may use cores, %(default)s)')
    args = parser.parse_args()
    benchmark, root = BENCHMARKS[args.benchmark], args.root.expanduser().absolute()
    if above := meant_root(benchmark, root):
        raise UserError(f'{root} is a folder of the layout itself; the one above it is needed: --root {above}')
    if not args.verify:
        prepare(benchmark, root, download=args.download, workers=args.workers)
    elif not root.is_dir():
        raise UserError(f'no folder {root}: name another one with --root.')
    say(f'checking the images and masks in {root}')
    if not verify(args.benchmark, benchmark, root, args.workers):
        remedy = 'Run this without --verify to make what lacks.' if args.verify else 'Run this again.'
        raise UserError(f'{args.benchmark} in {root} is not whole, see above. What is there is never made again: '
                        f'delete files that are wrong. {remedy}')
    print(f'{args.benchmark} is whole.')


if __name__ == '__main__':
    process.run(main)
