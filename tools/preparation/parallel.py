"""Work for several processes, with a progress bar."""
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any

from tqdm import tqdm

from models.errors import UserError
from tools.engine.process import end_with_parent

CHUNK = 8  # tasks that a worker takes together
BATCH = 32 * CHUNK  # tasks that are in memory


def parallel(function: Callable[[Any], Any], tasks: Iterable, count: int, workers: int, unit: str) -> Iterator:
    """Yield `function(task)` for each of `count` tasks, in order; with one worker in this process.

    Raises:
        UserError: a worker was killed.
    """
    tasks = iter(tasks)
    with ExitStack() as stack:
        results = map(function, tasks)
        if workers > 1:
            pool = stack.enter_context(ProcessPoolExecutor(workers, get_context('fork'), _start_worker))
            batches = iter(lambda: list(islice(tasks, BATCH)), [])
            results = chain.from_iterable(pool.map(function, batch, chunksize=CHUNK) for batch in batches)
        try:
            yield from tqdm(results, total=count, unit=unit, disable=None)
        except BrokenProcessPool as error:
            raise UserError('a worker process was killed, probably because memory ran out. Run this again with '
                            '--workers 1.') from error


def _start_worker() -> None:
    """End with the parent, and leave Ctrl-C to it."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
