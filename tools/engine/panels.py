"""Images of a dataset side by side, with the colours of their labels and a legend of the classes."""
import numpy as np
from PIL import Image

from datasets import ZeroShotDataset
from models.inference.drawing import caption, legend, overlay, stack

MARGIN = 8  # pixels
LINE = 22  # pixels, of a title


def side_by_side(panels: dict[str, tuple[np.ndarray, np.ndarray | None]], dataset: ZeroShotDataset, opacity: float
                 ) -> Image.Image:
    """Draw titled images in a row, and below them a legend of the classes in their labels.

    Args:
        panels: title -> image (H, W, 3) uint8, RGB, and class indices (H, W) to draw over it, or None; indices that
            are no class are drawn without a colour.
        opacity: of the colours over the image, in (0, 1].
    """
    split, palette = dataset.facts.split, dataset.PALETTE
    drawn = {title: Image.fromarray(image) if labels is None else overlay(image, labels, palette, opacity)
             for title, (image, labels) in panels.items()}
    titles = [caption(title, size=LINE * 2 // 3) for title in panels]
    widths = [max(panel.width, title.width) for panel, title in zip(drawn.values(), titles, strict=True)]
    total = sum(widths) + MARGIN * (len(panels) + 1)
    row = Image.new('RGB', (total, LINE + max(panel.height for panel in drawn.values()) + MARGIN), 'white')
    left = MARGIN
    for title, panel, width in zip(titles, drawn.values(), widths, strict=True):
        row.paste(title, (left, 0))
        row.paste(panel, (left, LINE))
        left += width + MARGIN
    present = sorted({index for _, labels in panels.values() if labels is not None for index in np.unique(labels)})
    entries = [(f'{split.names[index]} (unseen)' if index in split.unseen else split.names[index], palette[index])
               for index in present if index < len(split.names)]
    return stack([row, legend(entries, total)])
