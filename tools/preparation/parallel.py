"""Work for several processes, and files that are whole or not there."""
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from models.errors import UserError


def parallel(function: Callable, tasks: Iterable[tuple], workers: int) -> Iterator[Any]:
    """Results of `function(*task)` for each task, in the order in which they are there.

    Tasks are taken only a few ahead of the work, so they may hold large files. With one worker all happens here.

    Raises:
        UserError: a process was killed; and whatever `function` raises.
    """
    if workers == 1:
        yield from (function(*task) for task in tasks)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context('fork'), _start_worker, (os.getpid(),))
    waiting = set()
    try:
        for task in tasks:
            waiting.add(pool.submit(function, *task))
            if len(waiting) >= 4 * workers:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BrokenProcessPool as error:
        raise UserError('a worker process was killed, most likely for want of memory. Run this again with fewer: '
                        '--workers 1') from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(parent: int) -> None:
    """Ctrl-C is for the parent to handle; a worker whose parent was killed ends, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def write_whole(path: Path, content: bytes) -> None:
    """A file that is never there with a part of its content.

    Raises:
        OSError: it can't be written; names it.
    """
    part = path.with_name(f'{path.name}.part')
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
