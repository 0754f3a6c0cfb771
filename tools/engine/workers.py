"""A loader whose workers, when they die, are reported with the files that they were at."""
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from torch.utils.data import DataLoader, Dataset

from datasets.whereabouts import BOARDS, Board
from models.errors import UserError

# What torch says of a worker that ended, and what to do about it; the last one fits all.
REMEDIES = {
    'Killed': 'Most likely the machine, or the job, was out of memory (dmesg says so). Use fewer workers, '
              '--cfg-options data.workers_per_gpu=N, or ask for more memory.',
    'Bus error': 'Most likely /dev/shm is full (df -h /dev/shm; in Docker --shm-size=8g makes it larger). Use fewer '
                 'workers, --cfg-options data.workers_per_gpu=N; 0 needs none of it.',
    '': 'Look at these files, and at the code that loads them.',
}


class WorkerDied(UserError):
    """A loader worker ended unasked."""


class Loader(DataLoader):
    """torch's loader; its workers say on a board which sample they are at, and stay from one pass to the next.

    Raises:
        WorkerDied: a worker was killed or crashed. torch looks for this when a signal comes, so that it is raised from
            wherever the main thread then is, not only from the loader.
    """

    def __init__(self, dataset: Dataset, *, num_workers: int, worker_init_fn: Callable[[int], None], **options):
        self.board = Board(num_workers)
        super().__init__(dataset, num_workers=num_workers, persistent_workers=num_workers > 0,
                         worker_init_fn=partial(_begin, self.board, worker_init_fn), **options)

    def __iter__(self) -> Iterator:
        batches = super().__iter__()
        if self.num_workers and threading.current_thread() is threading.main_thread():
            _explain_signal()
        return _explained(batches)


def _begin(board: Board, worker_init_fn: Callable[[int], None], worker: int) -> None:
    worker_init_fn(worker)
    board.join(worker)


def _explained(batches: Iterator) -> Iterator:
    with _explaining():
        yield from batches


def _explain_signal() -> None:
    """Whatever torch's handler of SIGCHLD raises is explained."""
    handler = signal.getsignal(signal.SIGCHLD)
    if getattr(handler, 'func', None) is _handle:
        return
    signal.signal(signal.SIGCHLD, partial(_handle, handler))


def _handle(handler: Callable, *of_signal) -> None:
    with _explaining():
        handler(*of_signal)


@contextmanager
def _explaining() -> Iterator[None]:
    """torch's errors of workers that died become ours."""
    try:
        yield
    except RuntimeError as error:  # its cause is ours if the signal came while torch waited for a batch
        died = error.__cause__ if isinstance(error.__cause__, WorkerDied) else death(error)
        if died is None:
            raise
        raise died from None
    except (ConnectionError, EOFError):  # of fetching a batch; if the worker died, the signal that comes now says so
        time.sleep(1)
        raise


def death(error: RuntimeError) -> WorkerDied | None:
    """What a worker was at that torch's error names, and what to do; None if it names no worker of ours."""
    named = re.match(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)', str(error))
    dead = {int(process) for process in named[1].split(',')} if named else set()
    for board in list(BOARDS):
        for worker, row in enumerate(board.rows):
            there = row.read()
            if there.process in dead:
                by = re.match(r'is killed by signal: (.*?)\.', named[2])
                how = f'was killed by a signal ({by[1]})' if by else named[2].partition('.')[0]
                place = f'while it loaded {there.files}' if there.loading else \
                    f'after it had loaded {there.files}' if there.files else 'before its first sample'
                remedy = REMEDIES.get(by[1] if by else '', REMEDIES[''])
                return WorkerDied(f'loader worker {worker} (process {there.process}) {how} {place}. {remedy}'
                                  f'{_crash(board.written(worker))}')
    return None


def _crash(stacks: str) -> str:
    """The innermost lines of a crash's stack, if that is what was written last."""
    frames = stacks.rpartition('Fatal Python error: ')[2].splitlines()[2:8] if 'Fatal Python error: ' in stacks else []
    return ''.join(f'\n{line}' for line in frames)
