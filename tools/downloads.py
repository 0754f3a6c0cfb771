"""Downloads that go on where they stopped, and files compared by size and hash. Needs nothing but Python."""
import hashlib
import shutil
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

CHUNK = 1 << 18  # bytes
MB = 1e6  # bytes
TIMEOUT = 30  # seconds without a byte before a connection counts as dropped
RETRY_WAITS = (1, 2, 4)  # seconds before each new attempt
DROPPED = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


class Progress:
    """How far something is, on stderr: one line redrawn on a terminal, otherwise a new line every 10 percent.

    Args:
        have: what was there before.
        total: what there will be, or None when nobody knows.
        counted: what the numbers count, such as 'masks'; without it they are bytes.
    """

    def __init__(self, have: int, total: int | None, counted: str = '') -> None:
        self.first, self.total, self.counted, self.start = have, total, counted, time.monotonic()
        self.redraw, self.tenths = sys.stderr.isatty(), 0

    def update(self, have: int) -> None:
        tenths = 10 * have // (self.total or 500_000_000)
        if not self.redraw and tenths == self.tenths:
            return
        self.tenths = tenths
        speed = max(have - self.first, 1) / max(time.monotonic() - self.start, 1e-3)
        line = f'{self._text(have)}, {self._text(speed)}/s'
        if self.total:
            minutes, seconds = divmod(round((self.total - have) / speed), 60)
            total = f'{self._text(self.total)} {self.counted}'.strip()
            line = f'{have / self.total:4.0%} of {total}: {line}, {minutes}:{seconds:02d} left'
        print(f'\r{line}\033[K' if self.redraw else line, end='' if self.redraw else '\n', file=sys.stderr, flush=True)

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *_) -> None:
        if self.redraw:
            print(file=sys.stderr)

    def _text(self, amount: float) -> str:
        return f'{amount:,.0f}' if self.counted else f'{amount / MB:.1f} MB'


def hashes_of(path: Path, algorithms: Iterable[str], report: Callable[[int], None] = lambda have: None
              ) -> dict[str, str]:
    """Hashes of a file in hexadecimal, by their names in `hashlib`; `report` is told the bytes read so far."""
    digests = {algorithm: hashlib.new(algorithm) for algorithm in algorithms}
    have = 0
    with path.open('rb') as file:
        while chunk := file.read(CHUNK):
            for digest in digests.values():
                digest.update(chunk)
            have += len(chunk)
            report(have)
    return {algorithm: digest.hexdigest() for algorithm, digest in digests.items()}


def difference(path: Path, expected: Mapping[str, int | str], report: Callable[[int], None] = lambda have: None
               ) -> str | None:
    """How a file differs from what is expected of it, as the end of a sentence 'it ...'; None when it does not.

    Args:
        expected: 'size' in bytes and hashes in hexadecimal by their names in `hashlib`, each if known.
        report: is told the bytes read so far.
    """
    hashes = {name: value for name, value in expected.items() if name != 'size'}
    size = path.stat().st_size
    if expected.get('size', size) != size:
        return f'has {size:,} bytes, expected {expected["size"]:,}'
    for algorithm, found in hashes_of(path, hashes, report).items() if hashes else ():
        if found != hashes[algorithm]:
            name = algorithm.upper().replace('SHA', 'SHA-')
            return f'has the {name} {found}, expected {hashes[algorithm]}'
    return None


def fetch(url: str, part: Path) -> None:
    """Ask once for what `part` still lacks and append it; raise one of `DROPPED` if the connection ends too soon."""
    have = part.stat().st_size if part.exists() else 0
    try:
        response = urlopen(Request(url, headers={'Range': f'bytes={have}-'} if have else {}), timeout=TIMEOUT)
    except HTTPError as error:
        if have and error.code == 416:  # nothing is left to send; the hash tells whether the part is right
            return
        raise
    with response:
        if response.status != 206:  # the whole file comes, from its beginning
            part.unlink(missing_ok=True)
            have = 0
        length = int(response.headers['Content-Length'] or 0)
        free = shutil.disk_usage(part.parent).free
        if length > free:
            raise OSError(f'{length / MB:.0f} MB are needed and {free / MB:.0f} MB are free in {part.parent}')
        total = have + length if length else None
        with Progress(have, total) as progress, part.open('ab') as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                progress.update(have)
    if total and have < total:
        raise ConnectionError(f'the connection ended after {have} of {total} bytes')


def fetch_with_retries(url: str, part: Path) -> None:
    """Fetch, going on after a dropped connection until the waits in `RETRY_WAITS` are used up."""
    for wait in RETRY_WAITS:
        try:
            return fetch(url, part)
        except HTTPError:
            raise
        except DROPPED as error:
            print(f'{error}; trying again in {wait} s', file=sys.stderr)
            time.sleep(wait)
    return fetch(url, part)
