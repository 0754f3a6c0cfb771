"""Work for several processes, with a progress bar."""
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from models.errors import UserError

CHUNK = 8  # tasks that a worker takes together


def parallel(function: Callable[[Any], Any], tasks: Sequence, workers: int, unit: str) -> Iterator:
    """Yield `function(task)` for each task, in order; with one worker in this process.

    Raises:
        UserError: a worker was killed.
    """
    bar = {'total': len(tasks), 'unit': unit, 'disable': None}
    if workers == 1:
        yield from tqdm(map(function, tasks), **bar)
        return
    context = multiprocessing.get_context('fork')
    with ProcessPoolExecutor(workers, context, _start_worker) as pool:
        try:
            yield from tqdm(pool.map(function, tasks, chunksize=CHUNK), **bar)
        except BrokenProcessPool as error:
            raise UserError('a worker process was killed, probably because memory ran out. Run this again with '
                            '--workers 1.') from error


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
