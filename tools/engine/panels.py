"""Images of a dataset's results: input, truth and prediction side by side, with a legend of the classes."""
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from datasets import ClassSplit
from models.inference.drawing import caption, legend, overlay, stack

MARGIN = 8  # pixels
LINE = 22  # pixels, of a title


def result_image(image: np.ndarray, truth: np.ndarray | None, prediction: np.ndarray, *, split: ClassSplit,
                 palette: Sequence[Sequence[int]], opacity: float = 0.5) -> Image.Image:
    """Draw an image, its truth if known, and the prediction side by side, with a legend.

    Args:
        image: (H, W, 3) uint8, RGB.
        truth, prediction: (H, W) class indices; larger values are drawn without a colour.
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
    """Draw titled panels in a row, and below them a legend of the classes whose indices are in `present`."""
    titles = [caption(title, size=LINE * 2 // 3) for title in panels]
    widths = [max(panel.width, title.width) for panel, title in zip(panels.values(), titles, strict=True)]
    total = sum(widths) + MARGIN * (len(panels) + 1)
    row = Image.new('RGB', (total, LINE + max(panel.height for panel in panels.values()) + MARGIN), 'white')
    left = MARGIN
    for title, panel, width in zip(titles, panels.values(), widths, strict=True):
        row.paste(title, (left, 0))
        row.paste(panel, (left, LINE))
        left += width + MARGIN
    entries = [(f'{split.names[index]} (unseen)' if index in split.unseen else split.names[index], palette[index])
               for index in sorted(present) if index < len(split.names)]
    return stack([row, legend(entries, total)])
