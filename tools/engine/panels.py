"""Images of results: input, truth where known, prediction, and a legend that names the classes."""
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets import ClassSplit
from models.inference.drawing import overlay

MARGIN = 8  # pixels
LINE = 22  # pixels of a legend line


def result_image(image: np.ndarray, truth: np.ndarray | None, prediction: np.ndarray, *, split: ClassSplit,
                   palette: Sequence[Sequence[int]], opacity: float = 0.5) -> Image.Image:
    """Side by side: the image, its truth where known, the prediction; under them the legend.

    Args:
        image: (H, W, 3) uint8, RGB.
        truth, prediction: (H, W) class indices; a larger value is no class.
        opacity: of the colours over the image, in (0, 1].
    """
    panels = {'image': Image.fromarray(image)}
    if truth is not None:
        panels['truth'] = overlay(image, truth, palette, opacity)
    panels['prediction'] = overlay(image, prediction, palette, opacity)
    present = set(np.unique(prediction)) | (set() if truth is None else set(np.unique(truth)))
    return side_by_side(panels, present, split=split, palette=palette)


def side_by_side(panels: dict[str, Image.Image], present: Iterable[int], *, split: ClassSplit,
                 palette: Sequence[Sequence[int]]) -> Image.Image:
    """Titled panels in a row, and under them a legend of the classes whose indices are in `present`."""
    present = set(present)
    entries = [(index, name) for index, name in enumerate(split.names) if index in present]
    font = ImageFont.load_default(size=15)
    widths = [max(panel.width, int(font.getlength(title)) + 1) for title, panel in panels.items()]
    total = sum(width + MARGIN for width in widths) + MARGIN
    height = max(panel.height for panel in panels.values())
    names = [f'{name} (unseen)' if index in split.unseen else name for index, name in entries]
    column = max([int(font.getlength(name)) for name in names], default=0) + LINE + 3 * MARGIN
    columns = max(1, (total - MARGIN) // column)
    rows = -(-len(entries) // columns)
    canvas = Image.new('RGB', (total, LINE + height + MARGIN + rows * LINE + MARGIN), 'white')
    draw = ImageDraw.Draw(canvas)
    left = MARGIN
    for width, (title, panel) in zip(widths, panels.items(), strict=True):
        draw.text((left, 2), title, fill='black', font=font)
        canvas.paste(panel, (left, LINE))
        left += width + MARGIN
    for place, ((index, _), name) in enumerate(zip(entries, names, strict=True)):
        left, top = MARGIN + place % columns * column, LINE + height + MARGIN + place // columns * LINE
        draw.rectangle((left, top + 2, left + LINE - 6, top + LINE - 4), fill=tuple(palette[index]), outline='black')
        draw.text((left + LINE, top), name, fill='black', font=font)
    return canvas
