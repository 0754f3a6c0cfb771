#!/usr/bin/env python3
"""Print what a checkpoint is: `python tools/inspect_checkpoint.py FILE`.

Reads CLIP-RC's files, official and our own, and CLIP's: metadata and sizes. Builds no model, needs no GPU, runs no
code of the file.
"""
import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, not another package's
from tools.engine.errors import run


def main() -> None:
    parser = argparse.ArgumentParser(description='Print what a checkpoint is: kind, sizes and metadata.')
    parser.add_argument('file', metavar='FILE', help='.pth, .pt or .safetensors, or a name of tools/download.py')
    parser.add_argument('--json', action='store_true', help='print everything as JSON')
    args = parser.parse_args()
    from models.weights import files
    from tools.results.inspection import inspect, lines
    facts = inspect(files.read(args.file))
    if args.json:
        print(json.dumps(facts, indent=1))
    else:
        print('\n'.join(f'{name:19}{text}' for name, text in lines(facts)))


if __name__ == '__main__':
    run(main)
