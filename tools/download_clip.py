#!/usr/bin/env python3
"""Fetch OpenAI's CLIP ViT-B/16 to `pretrained/ViT-B-16.pt`, the weights that every model here starts from.

The script needs nothing but Python, so it can run before the environment is there. A download that was cut off is
kept next to its goal as `ViT-B-16.pt.part` and goes on from there; only a file with the right SHA-256 gets the final
name, and a file that already has that name is never overwritten.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

if __package__:
    from tools import downloads
else:  # run as a script: `tools` itself would ask for the environment
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import downloads

SHA256 = '5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f'
URL = f'https://openaipublic.azureedge.net/clip/models/{SHA256}/ViT-B-16.pt'
OUT = Path(__file__).resolve().parents[1] / 'pretrained' / 'ViT-B-16.pt'


class DownloadError(Exception):
    """A failure whose message already says what to do."""


def download(url: str, out: Path, sha256: str) -> None:
    """Make `out` the file at `url`, if that file has the hash `sha256`."""
    expected = {'sha256': sha256}
    if out.exists():
        differs = downloads.difference(out, expected)
        if differs:
            raise DownloadError(f'{out} is another file: it {differs}; delete it or name another place with --out')
        print(f'{out} is already there, and its SHA-256 is right')
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f'{out.name}.part')
    print(f'downloading {url} to {out}', file=sys.stderr)
    downloads.fetch_with_retries(url, part)
    differs = downloads.difference(part, expected)
    if differs:
        part.unlink()
        raise DownloadError(f'what came from {url} {differs}, and was deleted; run this again, name a mirror with '
                            f'--url, or download it by hand to {out}')
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
