"""Work for several processes, with a progress bar."""
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from typing import Any

from tqdm import tqdm

from models.errors import UserError

CHUNK = 8  # tasks that a worker takes together
BATCH = 32 * CHUNK  # tasks that are in memory


def parallel(function: Callable[[Any], Any], tasks: Iterable, count: int, workers: int, unit: str) -> Iterator:
    """Yield `function(task)` for each of `count` tasks, in order; with one worker in this process.

    Raises:
        UserError: a worker was killed.
    """
    bar, tasks = tqdm(total=count, unit=unit, disable=None), iter(tasks)
    with bar, ExitStack() as stack:
        results = map(function, tasks)
        if workers > 1:
            pool = stack.enter_context(ProcessPoolExecutor(workers, get_context('fork'), _start_worker))
            batches = iter(lambda: list(islice(tasks, BATCH)), [])
            results = chain.from_iterable(pool.map(function, batch, chunksize=CHUNK) for batch in batches)
        try:
            for result in results:
                bar.update()
                yield result
        except BrokenProcessPool as error:
            raise UserError('a worker process was killed, probably because memory ran out. Run this again with '
                            '--workers 1.') from error


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
