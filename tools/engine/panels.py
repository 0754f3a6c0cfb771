"""Images of a dataset as they are and as the model gets them, with the colours of their labels and a legend."""
from collections.abc import Sequence

import numpy as np
from PIL import Image

from datasets import ZeroShotDataset
from models.inference.drawing import caption, legend, overlay, shorten, stack

MARGIN, TITLE = 8, 14  # pixels; the size of a title's letters


def beside(images: Sequence[Image.Image], margin: int = MARGIN) -> Image.Image:
    """Put images beside each other, on white, with a margin between, above, left and right of them."""
    size = sum(image.width + margin for image in images) + margin, margin + max(image.height for image in images)
    canvas, left = Image.new('RGB', size, 'white'), margin
    for image in images:
        canvas.paste(image, (left, margin))
        left += image.width + margin
    return canvas


def side_by_side(panels: dict[str, tuple[np.ndarray, np.ndarray | None]], dataset: ZeroShotDataset, opacity: float,
                 height: int | None = None) -> Image.Image:
    """Draw titled images in a row, and below them a legend of the classes in their labels.

    Args:
        panels: title -> image (H, W, 3) uint8, RGB, and class indices (H, W) to draw over it, or None; indices that
            are no class are drawn without a colour.
        opacity: of the colours over the image, in (0, 1].
        height: of all images in pixels; None: as they are.
    """
    split, palette = dataset.facts.scored, dataset.PALETTE
    row = beside([stack([caption(title, size=TITLE), with_height(
        Image.fromarray(image) if labels is None else overlay(image, labels, palette, opacity), height)])
        for title, (image, labels) in panels.items()])
    present = sorted({index for _, labels in panels.values() if labels is not None for index in np.unique(labels)})
    entries = [(shorten(split.names[index]) + ' (unseen)' * (index in split.unseen), palette[index])
               for index in present if index < len(split.names)]
    return stack([row, legend(entries, row.width)])


def with_height(image: Image.Image, height: int | None) -> Image.Image:
    """Resize an image to a height in pixels; a whole factor shows its pixels as squares."""
    if height in (None, image.height):
        return image
    method = Image.Resampling.LANCZOS if height % image.height else Image.Resampling.NEAREST
    return image.resize((max(1, round(image.width * height / image.height)), height), method)


def model_input(sample: dict) -> tuple[np.ndarray, np.ndarray | None]:
    """Undo the normalisation of a sample: image (H, W, 3) uint8, RGB, and, in training, its mask (H, W)."""
    image, meta = sample['img'], sample['img_metas']
    image, meta = (image[0], meta[0]) if isinstance(image, list) else (image, meta)  # a test pipeline's list of views
    pixels, norm = image.data.numpy().transpose(1, 2, 0), meta.data['img_norm_cfg']
    shown = np.round(pixels * norm['std'] + norm['mean']).clip(0, 255).astype(np.uint8)
    shown = shown if norm['to_rgb'] else shown[..., ::-1]
    height, width = meta.data['img_shape'][:2]
    shown[height:] = shown[:, width:] = 0  # padding
    labels = sample.get('gt_semantic_seg')
    return shown, None if labels is None else labels.data.numpy()[0]
