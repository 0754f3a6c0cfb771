"""Writes the exports of tools/export.py, each compared with the checkpoint, on request, before it gets its name."""
import json
from argparse import Namespace
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from mmseg.utils import get_root_logger
from safetensors.torch import save

from models.errors import UserError
from models.inference import Segmenter, load_model, read_image
from models.weights import cliprc, files
from models.weights.files import Checkpoint
from tools.engine.config import load_config
from tools.engine.files import atomic_path
from tools.exporting import onnx_models, slim

ONNX_PACKAGES = ('onnx', 'onnxruntime', 'onnxscript')
MIN_AGREEMENT = 0.98  # fraction of the pixels that must keep their label
MAX_DIFFERENCE = 1e-3  # of scores and of unit embeddings, onnxruntime against PyTorch
TRY_OTHER_VERSIONS = 'Nothing is written. Try other versions: pip install --upgrade -r tools/export_requirements.txt'
NOT_CHECKED = '%s is not compared with the checkpoint (--no-check)'
NEW_PROMPTS = ['an image that shows {}']  # in no prompt set, so that the text tower computes the embeddings


def require_onnx() -> None:
    """Raise a UserError that names the missing packages, if any."""
    if missing := [name for name in ONNX_PACKAGES if find_spec(name) is None]:
        raise UserError(f'ONNX needs {", ".join(missing)}:\n    pip install -r tools/export_requirements.txt')


def load(args: Namespace) -> tuple[Checkpoint, Segmenter, list[np.ndarray]]:
    """Load the checkpoint, its model, and the images to compare results on (none with --no-check)."""
    checkpoint = files.read(args.checkpoint)
    cliprc.check_clip_rc(checkpoint)
    config = None if args.config is None else load_config(args.config)
    checkpoint = slim.with_metadata(checkpoint, config)
    model = load_model(checkpoint, config, clip=args.clip, device='cpu')
    if args.no_check:
        return checkpoint, model, []
    return checkpoint, model, [read_image(file) for file in args.image] or draw_images(model.model.decode_head.img_size)


def draw_images(side: int) -> list[np.ndarray]:
    """Draw two images (side, 4/3 side, 3) of coloured boxes on noise, the same in every run."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, side, side * 4 // 3, 3), dtype=np.uint8)
    for image in images:
        for _ in range(12):
            top, left = random.integers(0, side * 3 // 4, 2)
            height, width = random.integers(side // 8, side // 2, 2)
            image[top:top + height, left:left + width] = random.integers(0, 256, 3)
    return [*images]


def write_slim(file: Path, checkpoint: Checkpoint, model: Segmenter, images: Sequence[np.ndarray], *, dtype: str,
               text_tower: bool) -> None:
    """Write a slim checkpoint and log its size; without images its labels are not compared.

    Raises:
        UserError: it cannot be made, or its labels differ from those of the checkpoint; no file is left then.
    """
    logger, tower = get_root_logger(), model.tower if text_tower else None
    logger.info('%s: converting the weights to %s', file.name, dtype)
    weights = slim.slim_weights(model.model, tower, slim.DTYPES[dtype])
    with atomic_path(file) as part:
        meta = json.dumps(slim.portable_meta(checkpoint, dtype=dtype), ensure_ascii=False)
        part.write_bytes(save(weights, {'format': 'pt', 'meta': meta}))  # save_file would hide it from other users
        if images:
            exported = load_model(part, device=model.device)
            agreement = min(_agreement(model, exported, images, prompts) for prompts in
                            ([None, NEW_PROMPTS] if text_tower else [None]))
            if agreement < MIN_AGREEMENT:
                raise UserError(f'with {dtype} only {100 * agreement:.2f} % of the pixels keep their label, and '
                                f'{100 * MIN_AGREEMENT:.0f} % are required: nothing is written. Try another --dtype, '
                                'or images like those of the training: --image FILE ...')
            logger.info('%.3f %% of the pixels of %d images keep their label', 100 * agreement, len(images))
        else:
            logger.warning(NOT_CHECKED, file.name)
    logger.info('%s: %s (%s: %s), %s, %s', file, _megabytes(file), checkpoint.path, _megabytes(checkpoint.path), dtype,
                f'with the text tower of {tower.source}' if text_tower else 'without a text tower')


def _agreement(original: Segmenter, exported: Segmenter, images: Sequence[np.ndarray],
               prompts: Sequence[str] | None) -> float:
    """Return the fraction of pixels to which both models give the same class of the training."""
    equal = []
    for number, image in enumerate(images, 1):
        get_root_logger().info('comparing labels with those of the checkpoint: image %d of %d, %s', number, len(images),
                               'embeddings of the checkpoint' if prompts is None else 'embeddings by the text tower')
        equal.append(original.segment(image, prompts=prompts).labels == exported.segment(image, prompts=prompts).labels)
    return sum(int(pixels.sum()) for pixels in equal) / sum(pixels.size for pixels in equal)


def write_onnx(file: Path, model: Segmenter, images: Sequence[np.ndarray]) -> None:
    """Write the ONNX model of windows and the JSON file beside it, and log how it compares; not without images.

    Raises:
        UserError: onnxruntime gives other labels than PyTorch; no file is left then.
    """
    logger, facts = get_root_logger(), onnx_models.facts(model)
    with atomic_path(file.with_suffix('.json')) as json_part, atomic_path(file) as part:
        logger.info('%s: tracing the vision encoder and the head', file.name)
        scores = onnx_models.export_windows(model.model, part)
        if images:
            windows = onnx_models.windows_of(images, model)
            logger.info('comparing scores of %d windows, onnxruntime against PyTorch, for several numbers of classes',
                        len(windows))
            compared = onnx_models.compare_windows(scores, part, windows, torch.tensor(facts['text']))
        else:
            logger.warning(NOT_CHECKED, file.name)
            compared = ()
        for classes, others, difference in compared:
            comparison = (f'of {windows[:, 0].numel()} pixels, {others} labels differ; scores differ by at most '
                          f'{difference:.1e}')
            logger.info('%d classes: %s', classes, comparison)
            if others or difference > MAX_DIFFERENCE:
                raise UserError(f'onnxruntime gives other labels than PyTorch with {classes} classes: {comparison}. '
                                f'{TRY_OTHER_VERSIONS}')
        json_part.write_text(json.dumps(facts, ensure_ascii=False) + '\n', encoding='utf-8')
    logger.info('%s: %s; what its user must know: %s', file, _megabytes(file), file.with_suffix('.json'))


def write_onnx_text(file: Path, model: Segmenter, *, check: bool) -> None:
    """Write the ONNX model of the text tower, and log how it compares if `check`.

    Raises:
        UserError: there is no text tower, or onnxruntime gives other embeddings; no file is left then.
    """
    logger, encoder = get_root_logger(), model.tower.load()
    with atomic_path(file) as part:
        logger.info('%s: tracing the text tower', file.name)
        onnx_models.export_text(encoder, part)
        if check:
            texts = [f'a photo of a {name}' for name in model.class_names]
            logger.info('comparing the embeddings of %d texts, onnxruntime against PyTorch', len(texts))
            difference = onnx_models.compare_text(encoder, part, texts)
            if not difference < MAX_DIFFERENCE:
                raise UserError('onnxruntime gives other text embeddings than PyTorch: they differ by '
                                f'{difference:.1e}. {TRY_OTHER_VERSIONS}')
            logger.info('embeddings differ by at most %.1e', difference)
        else:
            logger.warning(NOT_CHECKED, file.name)
    logger.info('%s: %s, the text tower of %s', file, _megabytes(file), model.tower.source)


def _megabytes(file: str | Path) -> str:
    return f'{Path(file).stat().st_size / 1e6:.1f} MB'
