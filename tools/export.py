#!/usr/bin/env python3
"""Carries a model elsewhere: `python tools/export.py CHECKPOINT --slim OUT.safetensors --onnx OUT.onnx`.

A slim checkpoint holds what inference needs, in a short number format, and is loaded by everything that loads a `.pth`.
An ONNX model scores windows of a fixed size for any number of classes; `tools/exporting/onnx_example.py` runs it.
What is written is loaded again and compared with the checkpoint before it is said to be done.
"""
import argparse
import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, whoever else has one
import numpy as np
import torch
from mmseg.utils import get_root_logger

from models.errors import UserError
from models.inference import Segmenter, load_model, read_image
from models.weights import cliprc, files
from models.weights.files import Checkpoint
from tools.engine import process
from tools.engine.config import IS_RUN, load_config
from tools.engine.progress import MB
from tools.exporting import onnx_models, slim

LEAST_AGREEMENT = 0.98  # share of the pixels that must keep their label
LARGEST_DIFFERENCE = 1e-3  # of scores and of unit embeddings, onnxruntime against PyTorch
OTHER_VERSIONS = 'pip install --upgrade -r tools/export_requirements.txt'
OTHER_PROMPTS = ['an image that shows {}']  # of no prompt set: such embeddings come from the text tower alone


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Export a checkpoint, ours or an official one.')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='.pth of ours or of the authors, or a slim one')
    parser.add_argument('--slim', type=Path, metavar='OUT.safetensors',
                        help='write a slim checkpoint: no optimizer, no recovery decoder, short numbers')
    parser.add_argument('--dtype', choices=slim.DTYPES, default='float16',
                        help='of the slim checkpoint\'s weights (default: float16); what float16 holds exactly is '
                             'float16 in each')
    parser.add_argument('--no-text-tower', action='store_true',
                        help='leave CLIP\'s text tower out of the slim checkpoint: new words then need the CLIP file')
    parser.add_argument('--onnx', type=Path, metavar='OUT.onnx',
                        help='write an ONNX model of windows, and OUT.json with what its user must know (float32)')
    parser.add_argument('--onnx-text', type=Path, metavar='OUT.onnx',
                        help='write an ONNX model of the text tower, from tokens of CLIP to embeddings (float32)')
    parser.add_argument('--config', metavar='CONFIG',
                        help=f'config of its training; {IS_RUN} (default: the one that it carries, which is read as '
                             'data)')
    parser.add_argument('--clip', metavar='FILE', help="CLIP file whose text tower is taken, where the checkpoint has "
                                                       "none (default: the config's)")
    parser.add_argument('--image', nargs='+', metavar='FILE', default=[],
                        help='what the export is compared on (default: drawn shapes on noise)')
    args = parser.parse_args()
    wanted = {'--slim': (args.slim, '.safetensors'), '--onnx': (args.onnx, '.onnx'),
              '--onnx-text': (args.onnx_text, '.onnx')}
    if not any(file for file, _ in wanted.values()):
        raise UserError('nothing to write: use --slim OUT.safetensors, --onnx OUT.onnx or --onnx-text OUT.onnx.')
    for option, (file, suffix) in wanted.items():
        if file is not None and file.suffix != suffix:
            raise UserError(f'{option} {file}: the name must end in {suffix}.')
    if args.onnx and args.onnx == args.onnx_text:
        raise UserError(f'--onnx and --onnx-text are two files, and both are named {args.onnx}.')
    if args.onnx or args.onnx_text:
        onnx_models.require_packages()
    return args


@contextmanager
def unfinished(file: Path) -> Iterator[Path]:
    """Where to write what is `file` when all went well; else nothing is left of it."""
    process.make_folder(file.absolute().parent)
    part = file.with_name(f'.{file.stem}.part{file.suffix}')
    try:
        yield part
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def drawn_images(side: int) -> list[np.ndarray]:
    """Two images (side, 4/3 side, 3) of coloured boxes on noise, the same in every run."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, side, side * 4 // 3, 3), dtype=np.uint8)
    for image in images:
        for _ in range(12):
            top, left = random.integers(0, side * 3 // 4, 2)
            height, width = random.integers(side // 8, side // 2, 2)
            image[top:top + height, left:left + width] = random.integers(0, 256, 3)
    return [*images]


def agreement(original: Segmenter, exported: Segmenter, images: Sequence[np.ndarray],
              prompts: Sequence[str] | None = None) -> float:
    """Share of the pixels to which both models give the same class of the training, named in these prompts."""
    same = [original.segment(image, prompts=prompts).labels == exported.segment(image, prompts=prompts).labels
            for image in images]
    return sum(int(equal.sum()) for equal in same) / sum(equal.size for equal in same)


def write_slim(checkpoint: Checkpoint, original: Segmenter, images: Sequence[np.ndarray],
               args: argparse.Namespace) -> None:
    """Writes the slim checkpoint and says what it is.

    Raises:
        UserError: it can't be made, or it segments otherwise than the checkpoint; no file is left then.
    """
    tower = None if args.no_text_tower else original.tower
    weights = slim.slim_weights(original.model, tower, slim.DTYPES[args.dtype])
    meta = slim.portable_meta(checkpoint, dtype=args.dtype)
    with unfinished(args.slim) as part:
        slim.write(part, weights, meta)
        exported = load_model(part, device=original.device)
        share = agreement(original, exported, images)
        if tower is not None:
            share = min(share, agreement(original, exported, images, OTHER_PROMPTS))
        if share < LEAST_AGREEMENT:
            raise UserError(f'in {args.dtype} only {100 * share:.2f} % of the pixels keep their label, and '
                            f'{100 * LEAST_AGREEMENT:.0f} % are asked for: nothing is written. Try another --dtype, '
                            'or images such as those of the training: --image FILE ...')
    text = 'without a text tower' if tower is None else f'with the text tower of {tower.source}'
    logger = get_root_logger()
    logger.info('%.3f %% of the pixels of %d images keep their label', 100 * share, len(images))
    logger.info('%s: %s (%s: %s), %s, %s', args.slim, megabytes(args.slim), checkpoint.path, megabytes(checkpoint.path),
                args.dtype, text)


def write_onnx(model: Segmenter, images: Sequence[np.ndarray], file: Path) -> None:
    """Writes the ONNX model of windows and its JSON, and says how it compares.

    Raises:
        UserError: onnxruntime gives other labels than PyTorch; no file is left then.
    """
    about = onnx_models.about(model)
    windows = onnx_models.windows_of(images, model)
    with unfinished(file.with_suffix('.json')) as part_of_json, unfinished(file) as part:
        scores = onnx_models.export_windows(model.model, part)
        for classes, found in onnx_models.compare_windows(scores, part, windows, torch.tensor(about['text'])).items():
            get_root_logger().info('%d classes, onnxruntime against PyTorch: %s', classes, found)
            if found.other_labels or found.difference > LARGEST_DIFFERENCE:
                raise UserError(f'onnxruntime segments otherwise than PyTorch, with {classes} classes: {found}. '
                                f'Nothing is written. Other versions may help: {OTHER_VERSIONS}')
        part_of_json.write_text(json.dumps(about, ensure_ascii=False) + '\n', encoding='utf-8')
    get_root_logger().info('%s: %s; what its user must know: %s', file, megabytes(file), file.with_suffix('.json'))


def write_onnx_text(model: Segmenter, file: Path) -> None:
    """Writes the ONNX model of the text tower, and says how it compares.

    Raises:
        UserError: there is no text tower, or onnxruntime gives other embeddings; no file is left then.
    """
    encoder = model.tower.load()
    with unfinished(file) as part:
        onnx_models.export_text(encoder, part)
        difference = onnx_models.compare_text(encoder, part, [f'a photo of a {word}' for word in model.class_names])
        if not difference < LARGEST_DIFFERENCE:
            raise UserError(f'onnxruntime embeds texts otherwise than PyTorch, by {difference:.1e}: nothing is '
                            f'written. Other versions may help: {OTHER_VERSIONS}')
    get_root_logger().info('%s: %s, the text tower of %s; embeddings differ by %.1e at most', file, megabytes(file),
                           model.tower.source, difference)


def megabytes(file: str | Path) -> str:
    return f'{Path(file).stat().st_size / MB:.1f} MB'


def main() -> None:
    args = parse_arguments()
    checkpoint = files.read(args.checkpoint)
    cliprc.check_clip_rc(checkpoint)
    config = None
    if args.config is not None:
        config = load_config(Namespace(config=args.config, data_root=None, options=[], cfg_options=[]))
    checkpoint = slim.described(checkpoint, config)
    original = load_model(checkpoint, config, clip=args.clip, device='cpu')
    images = [read_image(file) for file in args.image] or drawn_images(original.model.decode_head.img_size)
    if args.slim:
        write_slim(checkpoint, original, images, args)
    if args.onnx:
        write_onnx(original, images, args.onnx)
    if args.onnx_text:
        write_onnx_text(original, args.onnx_text)


if __name__ == '__main__':
    process.run(main)
