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

if __package__:
    from tools.engine.progress import MB, Progress
else:  # beside download_clip.py, run as a script
    from progress import MB, Progress

CHUNK = 1 << 18  # bytes
TIMEOUT = 30  # seconds without a byte before a connection counts as dropped
RETRY_WAITS = (1, 2, 4)  # seconds before each new attempt
DROPPED = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


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
