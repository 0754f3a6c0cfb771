"""A process in which nothing moves any more says where it stands. If it was asked to, it ends, and so does the job.

What moves it: a batch that came, an iteration done (with its logs, checkpoint and evaluation), an image of a test.
Preparations before the first batch, and the end of Python, do not count. A checkpoint, or the scores, that take longer
than the patience do. So do compiling and being stopped from outside for that long (Ctrl-Z, a suspended job): a report
is no proof of a fault, and that it ends the process is for the user to say.
"""
import atexit
import faulthandler
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from datetime import timedelta
from types import FrameType, TracebackType

import torch.distributed as dist
from mmcv.runner import BaseRunner, Hook

from datasets import whereabouts
from tools.engine import process
from tools.engine.process import Place
from tools.engine.progress import Progress

GRACE = 30  # seconds from a report to the end, for the other processes to report as well

_watchdog: 'Watchdog | None' = None  # of this process


def add_argument(parser: ArgumentParser) -> None:
    """Adds the arguments that say how patient a `Watchdog` is, and what it does in the end."""
    parser.add_argument('--hang-timeout', type=_seconds, default=600, metavar='SECONDS',
                        help='when nothing moves for so long, say where each process stands, and go on; 0: never '
                             '(default: 600)')
    parser.add_argument('--end-on-hang', action='store_true',
                        help='end after such a report, so that the job ends and frees its machines')


def _seconds(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f'{text!r} is no whole number of seconds')
    return int(text)


def alive(doing: str) -> None:
    """Something moved: the patience of this process's watchdog, if it has one, begins anew.

    Args:
        doing: what is worked on from now on.
    """
    if _watchdog is not None:
        _watchdog.alive(doing)


class Watchdog(Hook):
    """Watches this process from the first sign of life on; as a hook it is given those of a training.

    A thread of Python looks after it. Where a call outside of Python does not let it run, faulthandler's timer does so
    instead, whose words go through `sed`, as they name no process.

    Args:
        patience: seconds without a sign of life after which it reports; 0 never does.
        ends: the process ends after its report.
    """

    def __init__(self, place: Place, patience: int, *, ends: bool = False):
        global _watchdog
        _watchdog = self
        self.place, self.patience, self.ends, self.grace = place, patience, ends, min(GRACE, patience)
        self.doing, self.since = '', 0.
        self.thread: threading.Thread | None = None
        self.over = threading.Event()
        host = socket.gethostname()
        self.name = f'rank {place.rank} of {place.world_size} on {host}' if place.world_size > 1 else \
            f'process {os.getpid()} on {host}'
        self.kind = 'error' if ends else 'warning'
        self.prefix = f'[rank {place.rank}] ' if place.world_size > 1 else ''
        if patience and place.distributed:  # the other processes' collectives must not give up before we have reported
            dist.distributed_c10d._set_pg_timeout(timedelta(seconds=3 * patience + 1800))

    def alive(self, doing: str) -> None:
        self.doing, self.since = doing, time.monotonic()
        if self.patience and self.thread is None:
            # sed starts here and not there, where a loader that forks meanwhile would keep it from starting
            self.thread = threading.Thread(target=self._watch, args=[self._sed()], name='watchdog', daemon=True)
            self.thread.start()
            atexit.register(self._stop)
            process.AT_END.append(self._stop)

    def before_run(self, runner: BaseRunner) -> None:
        self.alive(f'loading the images of iteration {runner.iter + 1}')

    def before_train_iter(self, runner: BaseRunner) -> None:
        self.alive(f'working on iteration {runner.iter + 1}, whose images are there')

    def after_train_iter(self, runner: BaseRunner) -> None:
        over = runner.iter + 1 >= runner.max_iters
        self.alive('ending' if over else f'loading the images of iteration {runner.iter + 2}')

    def _watch(self, sed: subprocess.Popen) -> None:
        deadline, complain = None, sys.excepthook
        while True:
            # later than the reports of those that wait for this process
            faulthandler.dump_traceback_later(self.patience + self.grace / 2, exit=self.ends, file=sed.stdin)
            if self.over.wait(min(1, self.patience / 10)):
                return
            now = time.monotonic()
            if now - self.since < self.patience:
                if deadline is not None:
                    self._say([f'{self.name}: goes on, {self.doing}.'])
                    sys.excepthook = complain
                deadline = None
            elif deadline is None:
                deadline = now + self._report(now - self.since)
                sys.excepthook = self._complain if self.ends else complain
            elif now > deadline and self.ends:
                for worker in multiprocessing.active_children():
                    worker.kill()  # one that hangs would not notice that this process has ended
                os._exit(1)

    def _stop(self) -> None:
        """The interpreter ends, which may take long where the machine is busy."""
        self.over.set()
        self.thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _sed(self) -> subprocess.Popen:
        """What faulthandler's timer writes here ends on stderr with the name of this process."""
        header = f'{self.kind}: {self.name}: nothing moved for {self.patience} s, and a call outside of Python lets ' \
                 f'nothing else run. It {"ends" if self.ends else "goes on"}. Its stacks:'
        command = ['sed', '-u', '-e', f'1i\\\n{header}', '-e', f's/^/{self.prefix}/']
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, start_new_session=True)

    def _report(self, silent: float) -> float:
        """Says where this process stands. Returns how many seconds later it should end, if it does."""
        frame = sys._current_frames()[threading.main_thread().ident]
        waits = self.place.distributed and _in_collective(frame)
        doubtful = self.place.distributed and self.place.device.type == 'cuda' and not _in_loader(frame)
        rest = self.patience if waits or doubtful else self.grace  # the culprit may report later
        then = f'It ends in {rest:.0f} s' if self.ends else 'It goes on; with --end-on-hang it would end'
        lines = [f'{self.kind}: {self.name}: nothing moved for {silent:.0f} s; it is {self.doing}. {then}. '
                 '--hang-timeout SECONDS is how long it waits, 0 for ever.']
        if waits:
            lines.append('it stands in a collective operation: it waits for another process, which reports as well.')
        elif doubtful:
            lines.append('it may wait for another process in its GPU. A process that loads images does not.')
        elif self.place.distributed:
            lines.append('it stands in no collective operation: the others wait for this process.')
        lines += [*self._samples(), 'its stacks:', *_own_stacks()]
        self._say([lines[0], *(self.prefix + line for line in lines[1:])])
        return rest

    def _complain(self, kind: type[BaseException], error: BaseException, trace: TracebackType) -> None:
        """After a report a collective operation may fail as another process has ended; a trace would bury reports."""
        if issubclass(kind, RuntimeError):
            self._say([f'{self.name} ends: {str(error).splitlines()[0]}'])
        else:
            sys.__excepthook__(kind, error, trace)

    def _samples(self) -> Iterator[str]:
        """Where this process and its loader workers are, and the stacks of those workers that load."""
        here, now = whereabouts.own(), time.monotonic()
        if here.loading:
            yield f'it loads {here.files}, for {now - here.since:.0f} s'
        running = {worker.pid for worker in multiprocessing.active_children()}
        workers = [(board, number, row.read()) for board in list(whereabouts.BOARDS)
                   for number, row in enumerate(board.rows) if row.read().process in running]
        none_loads = not any(there.loading for _, _, there in workers)
        for board, number, there in workers:
            place = f'loads {there.files}, for {now - there.since:.0f} s' if there.loading else \
                f'loads nothing; its last were {there.files or "none"}'
            yield f'loader worker {number} (process {there.process}) {place}'
            if there.loading or (none_loads and 'loading' in self.doing):
                yield from board.stack_of(number).splitlines() or ['it does not answer']

    def _say(self, lines: list[str]) -> None:
        """At once, so that the lines of several processes do not mix; not through Python's lock of stderr."""
        text = '\n' * Progress.line_is_open + '\n'.join(lines) + '\n'
        Progress.line_is_open = False
        os.write(2, text.encode(errors='backslashreplace'))


def _in_collective(frame: FrameType) -> bool:
    """Whether a thread stands in torch's communication, or in a backward pass, which ends with it."""
    code = frame.f_code
    return any(part in code.co_filename for part in ('/torch/distributed/', '/torch/nn/parallel/distributed.py')) or \
        code.co_name == '_engine_run_backward'


def _in_loader(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.endswith('/torch/utils/data/dataloader.py'):
            return True
        frame = frame.f_back
    return False


def _own_stacks() -> list[str]:
    """Of all threads, by faulthandler, which reads no source files: their disk may be what hangs."""
    file = os.memfd_create('stacks')
    try:
        faulthandler.dump_traceback(file)
        text = os.pread(file, 1 << 20, 0).decode(errors='replace')
    finally:
        os.close(file)
    for thread in threading.enumerate():
        text = text.replace(f'0x{thread.ident:016x}', thread.name)
    return text.splitlines()
