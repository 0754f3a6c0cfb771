#!/usr/bin/env python3
"""Fetch OpenAI's CLIP ViT-B/16 to `pretrained/ViT-B-16.pt`, the weights that models here start from, or another ViT.

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
    from tools.engine import downloads
else:  # run as a script: `tools` itself would ask for the environment
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import downloads

MODELS = {  # name -> SHA-256 of the file, which its address names too
    'ViT-B-16': '5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f',
    'ViT-B-32': '40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af',
    'ViT-L-14': 'b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836',
    'ViT-L-14-336px': '3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02',
}
URL = 'https://openaipublic.azureedge.net/clip/models/{sha256}/{name}.pt'
FOLDER = Path(__file__).resolve().parents[1] / 'pretrained'


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
