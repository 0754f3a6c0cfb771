#!/usr/bin/env python3
"""Download a model by its name: `python tools/download.py voc12-inductive`; `--list` shows all names.

There are OpenAI's CLIP files, which need nothing but Python, and the checkpoints of CLIP-RC's authors on Google Drive,
which need gdown (tools/setup_env.sh installs it). Every command takes such a name where it takes a checkpoint. An
interrupted download is kept beside its target and resumed; only a file that was checked gets the final name, and
existing files are never overwritten.
"""
import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
if __name__ == '__main__':
    sys.path[0] = str(REPOSITORY)
from tools.downloading import authors
from tools.engine import downloads

PUBLISHED = runpy.run_path(str(REPOSITORY / 'models/weights/published_files.py'))
MODELS, CHECKPOINTS, FILES = (PUBLISHED[name] for name in ('MODELS', 'CHECKPOINTS', 'FILES'))
OF_OPENAI = 'https://openaipublic.azureedge.net/clip/models/{sha256}/{name}.pt'
SIZES = {'ViT-B-16': '350 MB', 'ViT-B-32': '350 MB', 'ViT-L-14': '930 MB', 'ViT-L-14-336px': '930 MB'}  # about


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description='Download CLIP files and the authors\' checkpoints; interrupted '
                                                 'downloads are resumed.')
    parser.add_argument('models', nargs='*', metavar='NAME',
                        help=f'a CLIP: {", ".join(MODELS)}; a checkpoint: {", ".join(CHECKPOINTS)} (default: ViT-B-16)')
    parser.add_argument('--list', action='store_true', help='show names, sizes and files, and download nothing')
    parser.add_argument('--out', type=Path, metavar='DIR', default=REPOSITORY / PUBLISHED['FOLDER'],
                        help='folder for the files; commands find NAME in the default only (default: %(default)s)')
    parser.add_argument('--url', help='address of a mirror; {name} and {sha256} stand for those of the model')
    args = parser.parse_args(argv)
    if unknown := [name for name in args.models if name not in FILES]:
        parser.error(f'unknown model {", ".join(unknown)}; there are {", ".join(FILES)}')
    if args.list:
        show_list(args.out)
        return
    for name in args.models or ['ViT-B-16']:
        path = args.out / FILES[name]
        url = args.url and args.url.replace('{name}', name).replace('{sha256}', MODELS.get(name, ''))
        try:
            if name in MODELS:
                url = url or OF_OPENAI.format(name=name, sha256=MODELS[name])
                size = downloads.obtain(path, [url], {'sha256': MODELS[name]})
            else:
                authors.obtain(path, PUBLISHED['page_of'](name), CHECKPOINTS[name][1], url)
        except OSError as error:
            reason = f'{error.strerror} ({error.filename})' if error.errno else error
            sys.exit(f'error: {reason}; --out names another folder, and --url a mirror')
        except KeyboardInterrupt:
            print('interrupted; run this again to resume', file=sys.stderr)
            sys.exit(130)
        if name in MODELS:
            print(f'{path} is there, and its SHA-256 is right: {size:,} bytes, {MODELS[name]}')
        else:
            usable = name if args.out.resolve() == (REPOSITORY / PUBLISHED['FOLDER']).resolve() else path
            print(f'use it: python tools/demo.py IMAGE --classes "cat, sofa" --checkpoint {usable}\n'
                  f'test it: python test.py configs/{CHECKPOINTS[name][0]}.py {usable} --eval mIoU')


def show_list(folder: Path) -> None:
    """Print the name, the size and the file of every download, and whether it is there."""
    print(f'to {folder}:')
    for name, file in FILES.items():
        path = folder / file
        there = path.is_file()
        size = f'{path.stat().st_size / 1e6:,.0f} MB' if there else SIZES.get(name) or 'size not published'
        print(f'{name:18} {size:>18}  {file:22} {"there" if there else "not there"}')


if __name__ == '__main__':
    main()
