"""Resumable downloads of files with known sizes and hashes. Needs nothing but Python; with tqdm it shows progress."""
import errno
import fcntl
import hashlib
import shutil
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

CHUNK = 1 << 18  # bytes
TIMEOUT = 30  # seconds without a byte until a connection counts as dropped
RETRY_WAITS = (1, 2, 4)  # seconds before each new attempt
PAGE = (b'<!doctype html', b'<html')  # how a web page begins
DROPPED = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


class Differs(OSError):
    """A file is not the expected one."""


def progress_bar(total: int | None, initial: int) -> AbstractContextManager:
    """Show progress in bytes on a terminal, if tqdm is installed; `update(n)` of the returned object adds n."""
    try:
        from tqdm import tqdm
    except ImportError:
        return nullcontext(SimpleNamespace(update=lambda count: None))
    return tqdm(total=total, initial=initial, unit='B', unit_scale=True, disable=None)


def obtain(path: Path, urls: Sequence[str], expected: Mapping[str, int | str],
           get: Callable[[Sequence[str], Path], None] | None = None) -> int:
    """Download a file unless it is there, and check it; only the right file gets the name `path`.

    The beginning of an interrupted download stays beside it as `NAME.part` and is resumed.

    Args:
        urls: addresses, tried in this order.
        expected: see `difference`.
        get: fetches to the given path, and checks the file; by default `fetch_from_any`.

    Returns:
        the size in bytes.

    Raises:
        Differs: the file that is there, or that came, is another one; the message has the remedy.
        OSError: no address works, the disk is full, or another process is downloading the file.
    """
    if path.exists():
        return _obtain(path, urls, expected, get)
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        return _obtain(path, urls, expected, get)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let no second process download a file at the same time: both would append to the same part.

    Raises:
        OSError: another one does.
    """
    lock = path.with_name(f'.{path.name}.lock')
    with lock.open('a') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(f'another process is downloading {path}: wait for its end') from error
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _obtain(path: Path, urls: Sequence[str], expected: Mapping[str, int | str],
            get: Callable[[Sequence[str], Path], None] | None) -> int:
    there, sources = path.exists(), ' or '.join(urls)
    file = path if there else path.with_name(f'{path.name}.part')
    if not there:
        (get or fetch_from_any)(urls, file)
    print(f'checking {path}' if expected or get else f'{path}: no size or checksum is published, so it is not checked',
          file=sys.stderr)
    differs = difference(file, expected)
    if differs and there:
        raise Differs(f'{path} {differs}: it is truncated, or another file. Delete it, and get it again from {sources}')
    if differs:
        file.unlink()
        raise Differs(f'the download for {path} {differs}, and was deleted. Run this again, or download it by hand '
                      f'from {sources}')
    file.replace(path)
    return path.stat().st_size


def difference(path: Path, expected: Mapping[str, int | str]) -> str | None:
    """Compare a file with its published facts; a web page is never the file.

    Args:
        expected: 'size' in bytes and hashes in hexadecimal by their names in `hashlib`, as far as they are known.

    Returns:
        the first difference as the end of a sentence, 'has ..., expected ...', or None.
    """
    with path.open('rb') as file:
        if file.read(CHUNK).lstrip().lower().startswith(PAGE):
            return 'is a web page (the network may ask for a login, or the server refuses the file)'
    size = path.stat().st_size
    if expected.get('size', size) != size:
        return f'has {size:,} bytes, expected {expected["size"]:,}'
    for name in [name for name in expected if name != 'size']:
        found = hash_of(path, name)
        if found != expected[name]:
            return f'has the {name.upper().replace("SHA", "SHA-")} {found}, expected {expected[name]}'
    return None


def hash_of(path: Path, name: str = 'sha256') -> str:
    """Compute the hash of a file in hexadecimal, by its name in `hashlib`."""
    digest = hashlib.new(name)
    with path.open('rb') as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def require_space(length: int, folder: Path) -> None:
    """Raise an OSError if the disk of a folder has less than `length` bytes left."""
    free = shutil.disk_usage(folder).free
    if length > free:
        raise OSError(errno.ENOSPC, f'{length / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free in {folder}')


def fetch(url: str, part: Path) -> None:
    """Request the rest of `part` once, and append it.

    Raises:
        one of `DROPPED`: the connection ended too early.
        OSError: the disk has too little space.
    """
    have = part.stat().st_size if part.exists() else 0
    try:
        response = urlopen(Request(url, headers={'Range': f'bytes={have}-'} if have else {}), timeout=TIMEOUT)
    except HTTPError as error:
        if have and error.code == 416:  # nothing is left to send; the hash tells whether the part is right
            return
        raise
    with response:
        if response.status != 206:  # the server sends the whole file
            part.unlink(missing_ok=True)
            have = 0
        length = int(response.headers['Content-Length'] or 0)
        require_space(length, part.parent)
        total = have + length if length else None
        with progress_bar(total, have) as bar, part.open('ab') as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
    if total and have < total:
        raise ConnectionError(f'the connection ended after {have} of {total} bytes')


def fetch_from_any(urls: Sequence[str], part: Path) -> None:
    """Fetch the rest of `part` from the first address that works; dropped connections are resumed after `RETRY_WAITS`.

    Raises:
        OSError: no address works, or the disk is full.
    """
    failures = []
    for url in urls:
        print(f'downloading {url} to {part}', file=sys.stderr)
        for wait in (*RETRY_WAITS, None):
            try:
                return fetch(url, part)
            except (OSError, HTTPException, ValueError) as error:
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                    raise OSError(error.errno, error.strerror, str(part)) from error
                if wait is None or isinstance(error, HTTPError) or not isinstance(error, DROPPED):
                    failures.append(f'{url}: {error}')
                    break
                print(f'{error}; trying again in {wait} s', file=sys.stderr)
                time.sleep(wait)
    raise OSError(f'cannot download {"; ".join(failures)}. Run this again to resume, or download the file by hand to '
                  f'{part.with_suffix("")}')
