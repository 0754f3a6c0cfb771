#!/usr/bin/env python3
"""Download OpenAI's CLIP files: `python tools/download.py` fetches ViT-B/16, which the published models start from.

It needs nothing but Python. An interrupted download is kept beside its target as `ViT-B-16.pt.part` and resumed; only
a file with the right SHA-256 gets the final name, and existing files are never overwritten.
"""
import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
if __name__ == '__main__':
    sys.path[0] = str(REPOSITORY)
from tools.engine import downloads

MODELS = runpy.run_path(str(REPOSITORY / 'models/weights/openai_files.py'))['MODELS']  # name -> SHA-256


def download(name: str, folder: Path, url: str) -> None:
    """Download a model to `folder/NAME.pt` and check its SHA-256.

    Raises:
        SystemExit: the file that is there, or that the server sends, has another hash.
        OSError, HTTPException, ValueError: the download fails; `url` is invalid.
    """
    out, expected = folder / f'{name}.pt', {'sha256': MODELS[name]}
    if out.exists():
        if differs := downloads.difference(out, expected):
            sys.exit(f'error: {out} is another file: it {differs}; delete it, or name another folder with --out')
        print(f'{out} is already there, and its SHA-256 is right')
        return
    folder.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f'{out.name}.part')
    print(f'downloading {url} to {out}', file=sys.stderr)
    downloads.fetch_with_retries(url, part)
    if differs := downloads.difference(part, expected):
        part.unlink()
        sys.exit(f'error: the file from {url} {differs}, and was deleted; run this again, name a mirror with --url, or '
                 f'download it by hand to {out}')
    os.replace(part, out)
    print(f'{out} is there, and its SHA-256 is right')


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Download OpenAI's CLIP files; interrupted downloads are resumed.")
    parser.add_argument('models', nargs='*', metavar='MODEL', help=f'{", ".join(MODELS)} (default: ViT-B-16)')
    parser.add_argument('--out', type=Path, metavar='DIR', default=REPOSITORY / 'pretrained',
                        help='folder for MODEL.pt (default: %(default)s)')
    parser.add_argument('--url', default='https://openaipublic.azureedge.net/clip/models/{sha256}/{name}.pt',
                        help='address of a mirror; {name} and {sha256} stand for those of the model')
    args = parser.parse_args(argv)
    if unknown := [name for name in args.models if name not in MODELS]:
        parser.error(f'unknown model {", ".join(unknown)}; there are {", ".join(MODELS)}')
    for name in args.models or ['ViT-B-16']:
        url = args.url.replace('{name}', name).replace('{sha256}', MODELS[name])
        try:
            download(name, args.out, url)
        except (OSError, HTTPException, ValueError) as error:
            sys.exit(f'error: cannot download {url} to {args.out}: {error}; run this again to resume, name another '
                     f'folder with --out, or download the file by hand to {args.out / name}.pt')
        except KeyboardInterrupt:
            print('interrupted; run this again to resume', file=sys.stderr)
            sys.exit(130)


if __name__ == '__main__':
    main()
