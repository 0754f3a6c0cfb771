"""Which sample each process that loads is at, where others can read it: when one hangs or dies, its file is known."""
import faulthandler
import mmap
import os
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakSet

ROW = 8192  # bytes
HEAD = struct.Struct('qqdq')  # process, whether it is loading, since when (time.monotonic), bytes of text that follow


class Whereabouts(NamedTuple):
    """What a process said last; `files` are of its sample, or of its last one when it is not `loading` any."""
    process: int
    loading: bool
    since: float
    files: str


class Row:
    """The place where one process says where it is."""

    def __init__(self, memory: memoryview | bytearray):
        self.memory = memory

    def write(self, loading: bool, files: str) -> None:
        text = files.encode(errors='surrogateescape')[:ROW - HEAD.size]
        entry = HEAD.pack(os.getpid(), loading, time.monotonic(), len(text)) + text
        self.memory[:len(entry)] = entry

    def read(self) -> Whereabouts:
        process, loading, since, length = HEAD.unpack_from(self.memory)
        files = bytes(self.memory[HEAD.size:HEAD.size + length]).decode(errors='replace')
        return Whereabouts(process, bool(loading), since, files)


class Board:
    """Rows for the workers of a loader, in memory that this process shares with those that it forks."""

    def __init__(self, workers: int):
        memory = memoryview(mmap.mmap(-1, max(1, workers) * ROW))  # not in /dev/shm, which may be what is full
        self.rows = [Row(memory[start:start + ROW]) for start in range(0, workers * ROW, ROW)]
        self.stacks = [os.fdopen(os.memfd_create('stacks'), 'r+b', buffering=0) for _ in range(workers)]
        BOARDS.add(self)

    def join(self, worker: int) -> None:
        """What a worker does first. SIGUSR1 makes it write its stacks, even while a C call holds its interpreter; a
        crash does so, too."""
        global _mine
        faulthandler.enable(file=self.stacks[worker], all_threads=False)
        faulthandler.register(signal.SIGUSR1, file=self.stacks[worker])
        _mine = self.rows[worker]
        _mine.write(False, '')

    def stack_of(self, worker: int, patience: float = 1) -> str:
        """The Python stacks of a running worker, as text; empty if it does not answer within `patience` seconds."""
        before = self.written(worker)
        os.kill(self.rows[worker].read().process, signal.SIGUSR1)
        time.sleep(patience)
        return self.written(worker)[len(before):]

    def written(self, worker: int) -> str:
        """All stacks that a worker has written, one crash at most, as the last."""
        return os.pread(self.stacks[worker].fileno(), 1 << 20, 0).decode(errors='replace')


BOARDS: WeakSet[Board] = WeakSet()  # of this process
_mine = Row(bytearray(ROW))


def own() -> Whereabouts:
    """Of this process."""
    return _mine.read()


@contextmanager
def at(*files: str) -> Iterator[None]:
    """Says that this process loads a sample, of these files, meanwhile."""
    text = ', '.join(files)
    _mine.write(True, text)
    try:
        yield
    finally:
        _mine.write(False, text)
