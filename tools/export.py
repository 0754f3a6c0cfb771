#!/usr/bin/env python3
"""Exports a checkpoint for other programs: `python tools/export.py CKPT --slim --onnx --onnx-text --out FOLDER`.

--slim writes model.safetensors, a checkpoint with only what inference needs, in half precision; every tool that loads
a `.pth` loads it. --onnx writes model.onnx, which scores windows of a fixed size for any number of classes, and
model.json with what its user must know; tools/exporting/onnx_example.py runs it. --onnx-text writes text.onnx, the text
tower. Each file is loaded again and compared with the checkpoint before it gets its name, unless --no-check skips that.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # so that this repository's packages come first
from tools.engine.errors import run
from tools.engine.model_arguments import add_source_arguments


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Export a checkpoint of this project or an official one.')
    parser.add_argument('checkpoint', metavar='CKPT',
                        help='a .pth of this project or of the authors, a slim one, or a name of tools/download.py')
    parser.add_argument('--out', type=Path, metavar='FOLDER', default='work_dirs/export', help='(default: %(default)s)')
    parser.add_argument('--slim', action='store_true',
                        help='write model.safetensors: no optimizer, no recovery decoder, half precision')
    parser.add_argument('--dtype', choices=['float16', 'bfloat16', 'float32'], default='float16',
                        help='of the weights in model.safetensors (default: float16); weights that float16 holds '
                             'exactly are always float16')
    parser.add_argument('--no-text-tower', action='store_true',
                        help='leave CLIP\'s text tower out of model.safetensors; new class names then need the CLIP '
                             'file')
    parser.add_argument('--onnx', action='store_true', help='write model.onnx and model.json (float32)')
    parser.add_argument('--onnx-text', action='store_true',
                        help='write text.onnx, from CLIP\'s tokens to embeddings (float32)')
    add_source_arguments(parser)
    parser.add_argument('--image', nargs='+', metavar='FILE', default=[],
                        help='images to compare results on (default: drawn shapes on noise)')
    parser.add_argument('--no-check', action='store_true', help='do not compare the files with the checkpoint')
    args = parser.parse_args()
    if args.no_check and args.image:
        parser.error('--image: --no-check compares nothing on images')
    if not (args.slim or args.onnx or args.onnx_text):
        parser.error('nothing to write: give --slim, --onnx or --onnx-text')
    return args


def main() -> None:
    args = parse_arguments()
    from mmseg.utils import get_root_logger

    from tools.engine.files import make_folder
    from tools.exporting import checked_export
    if args.onnx or args.onnx_text:
        checked_export.require_onnx()
    checkpoint, model, images = checked_export.load(args)
    folder = make_folder(args.out)
    if args.slim:
        checked_export.write_slim(folder / 'model.safetensors', checkpoint, model, images, dtype=args.dtype,
                                  text_tower=not args.no_text_tower)
    for name, written in (('model.onnx', args.onnx), ('text.onnx', args.onnx_text)):
        if not written and (folder / name).exists() and (args.onnx or args.onnx_text):
            get_root_logger().warning('%s is of an earlier export: use it with the new file only if both are of the '
                                      'same checkpoint', folder / name)
    if args.onnx:
        checked_export.write_onnx(folder / 'model.onnx', model, images)
    if args.onnx_text:
        checked_export.write_onnx_text(folder / 'text.onnx', model, check=not args.no_check)


if __name__ == '__main__':
    run(main)
