#!/usr/bin/env python3
"""Fetch OpenAI's CLIP ViT-B/16 to `pretrained/ViT-B-16.pt`, the weights that every model here starts from.

The script needs nothing but Python, so it can run before the environment is there. A download that was cut off is
kept next to its goal as `ViT-B-16.pt.part` and goes on from there; only a file with the right SHA-256 gets the final
name, and a file that already has that name is never overwritten.
"""

import argparse
import hashlib
import os
import shutil
import ssl
import sys
import time
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

SHA256 = '5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f'
URL = f'https://openaipublic.azureedge.net/clip/models/{SHA256}/ViT-B-16.pt'
OUT = Path(__file__).resolve().parents[1] / 'pretrained' / 'ViT-B-16.pt'

CHUNK = 1 << 18  # bytes
MB = 1e6  # bytes
TIMEOUT = 30  # seconds without a byte before a connection counts as dropped
RETRY_WAITS = (1, 2, 4)  # seconds before each new attempt
DROPPED = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


class DownloadError(Exception):
    """A failure whose message already says what to do."""


class Progress:
    """How far the download is, on stderr: one line redrawn on a terminal, otherwise a new line every 10 percent."""

    def __init__(self, have: int, total: int | None) -> None:
        self.first, self.total, self.start = have, total, time.monotonic()
        self.redraw, self.tenths = sys.stderr.isatty(), 0

    def update(self, have: int) -> None:
        tenths = 10 * have // (self.total or 500_000_000)
        if not self.redraw and tenths == self.tenths:
            return
        self.tenths = tenths
        speed = (have - self.first) / max(time.monotonic() - self.start, 1e-3)
        line = f'{have / MB:.1f} MB, {speed / MB:.1f} MB/s'
        if self.total:
            minutes, seconds = divmod(round((self.total - have) / speed), 60)
            line = f'{have / self.total:4.0%} of {self.total / MB:.1f} MB: {line}, {minutes}:{seconds:02d} left'
        print(f'\r{line}\033[K' if self.redraw else line, end='' if self.redraw else '\n', file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.redraw:
            print(file=sys.stderr)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


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
        progress = Progress(have, total)
        try:
            with part.open('ab') as file:
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    progress.update(have)
        finally:
            progress.close()
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


def download(url: str, out: Path, sha256: str) -> None:
    """Make `out` the file at `url`, if that file has the hash `sha256`."""
    if out.exists():
        found = sha256_of(out)
        if found != sha256:
            raise DownloadError(f'{out} is another file: its SHA-256 is {found}, expected {sha256}; '
                                'delete it or name another place with --out')
        print(f'{out} is already there, and its SHA-256 is right')
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f'{out.name}.part')
    print(f'downloading {url} to {out}', file=sys.stderr)
    fetch_with_retries(url, part)
    found = sha256_of(part)
    if found != sha256:
        part.unlink()
        raise DownloadError(f'what came from {url} has the SHA-256 {found}, expected {sha256}, and was deleted; '
                            f'run this again, name a mirror with --url, or download it by hand to {out}')
    os.replace(part, out)
    print(f'{out} is there, and its SHA-256 is right')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script with the given arguments and return its exit code."""
    parser = argparse.ArgumentParser(description="Fetch OpenAI's CLIP ViT-B/16; a download that was cut off goes on.")
    parser.add_argument('--out', type=Path, default=OUT, metavar='FILE', help='where to put it (default: %(default)s)')
    parser.add_argument('--url', default=URL, help='where to get it (default: %(default)s)')
    parser.add_argument('--sha256', type=str.lower, default=SHA256, help='its expected hash (default: %(default)s)')
    args = parser.parse_args(argv)
    try:
        download(args.url, args.out, args.sha256)
    except DownloadError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except (OSError, HTTPException, ValueError) as error:  # ValueError: what is no address at all
        print(f'error: cannot download {args.url} to {args.out}: {error}; run this again to go on, name another place '
              'with --out, or download the file by hand from that address and put it at that path', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; run this again to go on where it stopped', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
