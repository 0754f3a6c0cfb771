#!/usr/bin/env python3
"""Fetch OpenAI's CLIP ViT-B/16 to `pretrained/ViT-B-16.pt`, the weights that models here start from, or another ViT.

The script needs nothing but Python, so it can run before the environment is there. A download that was cut off is
kept next to its goal as `ViT-B-16.pt.part` and goes on from there; only a file with the right SHA-256 gets the final
name, and a file that already has that name is never overwritten.
"""

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

if __package__:
    from tools.engine import downloads
else:  # run as a script: `tools` itself would ask for the environment
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import downloads

REPOSITORY = Path(__file__).resolve().parents[1]
MODELS = runpy.run_path(str(REPOSITORY / 'models/weights/openai_files.py'))['MODELS']  # name -> SHA-256
URL = 'https://openaipublic.azureedge.net/clip/models/{sha256}/{name}.pt'
FOLDER = REPOSITORY / 'pretrained'


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
    parser = argparse.ArgumentParser(description="Fetch one of OpenAI's CLIPs; a download that was cut off goes on.")
    parser.add_argument('model', nargs='?', default='ViT-B-16', choices=MODELS, help='(default: %(default)s)')
    parser.add_argument('--out', type=Path, metavar='FILE', help=f'where to put it (default: {FOLDER}/MODEL.pt)')
    parser.add_argument('--url', help='where to get it (default: from OpenAI)')
    parser.add_argument('--sha256', type=str.lower, help="its expected hash (default: the model's)")
    args = parser.parse_args(argv)
    args.out = args.out or FOLDER / f'{args.model}.pt'
    args.sha256 = args.sha256 or MODELS[args.model]
    args.url = args.url or URL.format(sha256=MODELS[args.model], name=args.model)
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
