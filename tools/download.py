#!/usr/bin/env python3
"""Download OpenAI's CLIP files: `python tools/download.py` fetches ViT-B/16, which the published models start from.

It needs nothing but Python. An interrupted download is kept beside its target as `ViT-B-16.pt.part` and resumed; only
a file with the right SHA-256 gets the final name, and existing files are never overwritten.
"""
import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
if __name__ == '__main__':
    sys.path[0] = str(REPOSITORY)
from tools.engine import downloads

MODELS = runpy.run_path(str(REPOSITORY / 'models/weights/openai_files.py'))['MODELS']  # name -> SHA-256


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
        url, path = args.url.replace('{name}', name).replace('{sha256}', MODELS[name]), args.out / f'{name}.pt'
        try:
            downloads.obtain(path, [url], {'sha256': MODELS[name]})
        except OSError as error:
            sys.exit(f'error: {error}; --out names another folder, and --url a mirror')
        except KeyboardInterrupt:
            print('interrupted; run this again to resume', file=sys.stderr)
            sys.exit(130)
        print(f'{path} is there, and its SHA-256 is right')


if __name__ == '__main__':
    main()
