"""Try all that a training run does, on a few images, before it takes days; and estimate its time, memory and disk."""
import argparse
import gc
import logging
import resource
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from mmseg.utils import get_root_logger

from models.errors import UserError
from tools.engine import hang, process, run_folder
from tools.engine.data import worker_count
from tools.engine.files import lock_folder, make_folder
from tools.engine.process import Place
from tools.training.excerpt import IMAGES, Excerpt
from tools.training.run import run, training_config, work_folder

STEPS = 2  # before the checkpoint
MORE_STEPS, SECONDS = 20, 20  # after it, to measure their time: so many, or fewer if so many seconds have passed
FOLDER = 'smoke_test'  # in the run's folder
TEST_OPTIONS = {'out': None, 'format_only': False, 'eval_options': [], 'show': False, 'opacity': 0.5,
                'aug_test': False}  # of test.py


def smoke_test(args: argparse.Namespace, test: Callable[..., None]) -> None:
    """Train two steps, write a checkpoint, evaluate, test the checkpoint with images of results, and resume from it.

    All of it is done by the code of the real run, with its config, batch, loader workers and hooks. The run's folder is
    read, for --auto-resume, and not changed but for `smoke_test` in it, which is removed at the end; after an error it
    stays, with the log. All processes must call this.

    Args:
        test: `tools.testing.run.test`.

    Raises:
        UserError: as the real run would; or its disk has too little room.
    """
    config = training_config(args)
    place = process.start(args, timeout=hang.group_timeout(args))
    work_dir = work_folder(args, config)
    existed, folder, lock = work_dir.exists(), work_dir / FOLDER, None
    if place.rank == 0:
        lock = lock_folder(make_folder(folder), '--work-dir')
        require_own(folder)
        empty(folder)
    process.of_first(None, place)  # from here on the folder is there, and empty
    logger = get_root_logger(str(folder / f'{FOLDER}.log'), config.get('log_level', 'INFO'))
    settings = {**vars(args), 'work_dir': str(folder), 'auto_resume': False}
    if args.auto_resume and not (args.resume_from or config.get('resume_from')):
        found = run_folder.newest(work_dir, logger) if place.rank == 0 else None
        settings['resume_from'] = process.of_first(found and found.path, place)

    logger.info('smoke test: %d steps, a checkpoint and an evaluation', STEPS)
    first = part_of_run(settings, folder, Excerpt(place, STEPS))
    report = ['nothing is left to do in this run'], None
    if first.iterations:
        checkpoint = first.checkpoint
        logger.info('smoke test: test of %s, with images', checkpoint)
        test(argparse.Namespace(**{**settings, **TEST_OPTIONS, 'checkpoint': str(checkpoint),
                                   'show_dir': str(folder / 'images'), 'eval': None if args.no_validate else ['mIoU']}),
             place, IMAGES * place.world_size)
        logger.info('smoke test: the run is resumed from %s', checkpoint)
        second = part_of_run({**settings, 'resume_from': str(checkpoint)}, folder, Excerpt(place, MORE_STEPS, SECONDS))
        memory = process.gather(peak_memory(place), place)
        if place.rank == 0:
            report = estimate(first, second, memory, worker_count(config), folder)
    process.gather(None, place)  # nobody needs the folder any more
    if place.rank == 0:
        close_log(logger)
        empty(folder)
        lock.close()
        shutil.rmtree(folder)
        end(work_dir, existed, *report, logger)


def part_of_run(settings: dict, folder: Path, excerpt: Excerpt) -> Excerpt:
    """Do some steps of the run, and leave no memory in use."""
    args = argparse.Namespace(**settings)
    run(args, training_config(args), excerpt.place, folder, excerpt)
    process.of_first(None, excerpt.place)  # the first process has written the checkpoint
    gc.collect()
    if excerpt.place.device.type == 'cuda':
        torch.cuda.empty_cache()
    return excerpt


def peak_memory(place: Place) -> tuple[int, int, int]:
    """Return the most bytes so far: of this process on its GPU, in RAM, and of a process that it started, in RAM."""
    ram, of_workers = (resource.getrusage(who).ru_maxrss * 1024 for who in (
        resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return torch.cuda.max_memory_reserved(place.device) if place.device.type == 'cuda' else 0, ram, of_workers


def estimate(first: Excerpt, second: Excerpt, memory: list[tuple[int, int, int]], workers: int, folder: Path
             ) -> tuple[list[str], int]:
    """Estimate the whole run.

    Args:
        first, second: what was done of it.
        memory: `peak_memory` of each process.
        workers: of the loader, for each process.

    Returns:
        lines for the user, and the bytes of disk.
    """
    iteration, saving, scoring = (second if second.iterations > 1 else first).times()
    here, in_all = first.evaluated
    scoring *= in_all / max(1, here)
    total = first.whole * iteration + first.checkpoints * saving + first.evaluations * scoring
    evaluations = f', {first.evaluations} evaluations of {duration(scoring)}' if first.evaluations else ''
    gpu, ram, of_workers = (max(values) for values in zip(*memory))
    size = first.checkpoint_size
    entries = first.iterations + second.iterations + 2 * bool(first.evaluations)
    files = [file for pattern in ('*.log', '*.log.json', 'tf_logs/*') for file in folder.glob(pattern)]
    logs = sum(file.stat().st_size for file in files) * (first.whole // first.logged + first.evaluations) // entries
    disk = (first.kept + 1) * size + logs
    on_gpu = f'{amount(gpu)} on each GPU, ' if gpu else ''
    each = f' for each of {len(memory)} processes' if len(memory) > 1 else ''
    loading = f', and up to {amount(of_workers)} for each loader worker ({workers} a process)' if workers else ''
    return [
        f'time: about {duration(total)} ({first.whole} iterations of {iteration:.3g} s{evaluations})',
        f'memory: at the peak {on_gpu}{amount(ram)} of RAM{each}{loading}',
        f'disk: {amount(disk)} (checkpoints of {amount(size)}: {first.kept} and the one being written; '
        f'{amount(logs)} of logs)'], disk


def end(work_dir: Path, existed: bool, lines: list[str], disk: int | None, logger: logging.Logger) -> None:
    """Say that the run can start, and what it takes.

    Raises:
        UserError: the disk has too little room.
    """
    free = shutil.disk_usage(work_dir).free
    if not existed:
        with suppress(OSError):
            work_dir.rmdir()
    logger.info('smoke test passed:\n%s', '\n'.join(f'  {line}' for line in lines))
    if disk is None:
        return
    if disk > free:
        raise UserError(f'the run takes {amount(disk)} of disk, and {amount(free)} are free in {work_dir}: make room, '
                        'name another --work-dir, or keep fewer checkpoints (--cfg-options '
                        'checkpoint_config.max_keep_ckpts=2).')
    logger.info('the run can start: the same command without --smoke-test')


def require_own(folder: Path) -> None:
    """Raise a UserError if a folder, which will be removed, holds files and not the log of a smoke test."""
    if not (folder / f'{FOLDER}.log').is_file() and any(file.name != '.lock' for file in folder.iterdir()):
        raise UserError(f'{folder} holds files that are not of a smoke test, which would remove them: move them, or '
                        'name another --work-dir.')


def empty(folder: Path) -> None:
    """Remove all in a folder but its lock."""
    for old in folder.iterdir():
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        elif old.name != '.lock':
            old.unlink()


def close_log(logger: logging.Logger) -> None:
    """Close the log file, as its folder goes; the logger goes on writing to the terminal."""
    for handler in [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]:
        logger.removeHandler(handler)
        handler.close()


def duration(seconds: float) -> str:
    """Write a time in the unit that a person would use."""
    if seconds < 120:
        return f'{seconds:.0f} s' if seconds >= 10 else f'{seconds:.1f} s'
    return f'{seconds / 60:.0f} min' if seconds < 7200 else f'{seconds / 3600:.1f} h'


def amount(size: int) -> str:
    """Write bytes in MB or GB."""
    return f'{size / 1e9:.1f} GB' if size >= 1e9 else f'{size / 1e6:.0f} MB' if size >= 1e7 else f'{size / 1e6:.1f} MB'
