"""What a model says of an image and a list of words: labels, scores, and how to see and keep them.

W words, H x W0 pixels of the image as it is shown.
"""
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ..colours import palette
from ..errors import UserError
from ..label_format import label_format
from ..sliding_window import Stitched
from . import drawing

MOST_LINES = 30  # of a legend
UNSURE = 0.1  # the miniature's model: on photographs with their words no pixel had more than 0.07, on its own drawn
# world with a word of the scene some pixel always had 0.14


class Result:
    """One image, segmented.

    Attributes:
        image: (H, W0, 3) uint8, RGB, as it is shown.
        words: in the order of their labels; "sofa, couch" is one with two names.
        labels: (H, W0), index of each pixel's word; `nothing` where none fits. uint8; uint16 for more than 255 words.
        nothing: the label of pixels that take no word: 255, or 65535.
        best: (H, W0) float32, the score of the best word of each pixel, also where that is not good enough.
        highest: the score of the pixel that a word fits best, before the seen penalty.
        warning: why the labels mean little, or None; with what the model says of itself, `note`.
        settings: what was asked for: prompts, threshold, ...
    """

    def __init__(self, image: np.ndarray, words: Sequence[str], stitched: Stitched, *, threshold: float | None = None,
                 settings: dict | None = None, penalty: Sequence[float] = (), note: str = ''):
        self.image, self.words, self.settings = image, list(words), settings or {}
        dtype, self.nothing = label_format(len(words))
        self.palette = palette(len(words))
        self._pasted = stitched
        best = stitched.best()
        self.best = best.value[0].float().cpu().numpy()
        labels = best.index[0].cpu().numpy()
        self.highest = float((self.best + np.array(penalty)[labels]).max() if len(penalty) else self.best.max())
        self.warning = None if self.highest >= UNSURE else (
            f'no pixel scores more than {max(0, self.highest):.2f}: the model recognises none of these words here, and '
            f'the labels mean little.{note and " "}{note}')
        unnamed = labels >= len(words)  # those of "anything else"
        if threshold is not None:
            unnamed |= self.best < threshold
        self.labels = np.where(unnamed, self.nothing, labels).astype(dtype)

    @cached_property
    def scores(self) -> np.ndarray:
        """(W, H, W0) float32: how much each word fits each pixel, from 0 to 1; less the seen penalty for a word whose
        masks training has shown. Made when asked for: 4 bytes a word and pixel."""
        return self._pasted.all()[0, :len(self.words)].float().cpu().numpy()

    def summary(self) -> dict:
        """Plain values for JSON: the words with their share of the image and the mean score of their pixels (None
        without any), and the `warning`."""
        counts = np.bincount(self.labels.ravel(), minlength=self.nothing + 1)
        sums = np.bincount(self.labels.ravel(), weights=self.best.ravel(), minlength=self.nothing + 1)
        height, width = self.labels.shape
        words = [{'word': word, 'label': index, 'colour': self.palette[index], 'pixels': int(counts[index]),
                  'area': round(float(counts[index] / self.labels.size), 6),
                  'mean_score': round(float(sums[index] / counts[index]), 4) if counts[index] else None}
                 for index, word in enumerate(self.words)]
        nothing = {'label': self.nothing, 'pixels': int(counts[self.nothing]),
                   'area': round(float(counts[self.nothing] / self.labels.size), 6)}
        return {'width': width, 'height': height, 'words': words, 'nothing': nothing, 'warning': self.warning,
                **self.settings}

    def overlay(self, *, opacity: float = 0.5, legend: bool = True, words: Sequence[str] | None = None) -> Image.Image:
        """The words' colours over the image; under it the legend.

        Args:
            opacity: of the colours, from 0 to 1.
            words: those to be shown, of `self.words`; all without it.

        Raises:
            UserError: an opacity out of range, or a word that is none of this result.
        """
        if not 0 <= opacity <= 1:
            raise UserError(f'opacity={opacity} is not from 0 to 1.')
        shown = self._shown(words)
        labels = np.where(np.isin(self.labels, shown), self.labels, self.nothing)
        image = drawing.overlay(self.image, labels, self.palette, opacity)
        return drawing.under(image, self.legend(words=words)) if legend else image

    def legend(self, *, words: Sequence[str] | None = None) -> Image.Image:
        """The words, largest first, beside their colours, with their share of the image in percent. Of more than
        `MOST_LINES` words, those that no pixel took are only counted."""
        counts = np.bincount(self.labels.ravel(), minlength=self.nothing + 1)
        shown = sorted(self._shown(words), key=lambda index: -counts[index])
        absent = [index for index in shown if not counts[index]] if len(shown) > MOST_LINES else []
        shown = shown[:len(shown) - len(absent)]
        entries = [(f'{self.words[index]} {100 * counts[index] / self.labels.size:.1f} %', self.palette[index])
                   for index in shown]
        if counts[self.nothing]:
            entries.append((f'(no word) {100 * counts[self.nothing] / self.labels.size:.1f} %', (255, 255, 255)))
        if absent:
            entries.append((f'({len(absent)} more words) 0.0 %', (255, 255, 255)))
        height, width = self.labels.shape
        return drawing.legend(entries, width, size=max(12, min(width, height) // 28))

    def label_image(self) -> Image.Image:
        """The labels as a PNG keeps them: 8 bits with the words' colours, or 16 bits for more than 255 words."""
        if self.labels.dtype != np.uint8:
            return Image.fromarray(self.labels)
        image = Image.fromarray(self.labels)
        shades = [*self.palette, *[(0, 0, 0)] * (256 - len(self.palette))]  # of fewer, Pillow would keep fewer bits
        image.putpalette(bytes(value for shade in shades for value in shade))
        return image

    def save(self, folder: str | Path, name: str = 'result', *, opacity: float | None = 0.5) -> list[Path]:
        """Writes `NAME.overlay.png` (unless opacity is None), `NAME.labels.png` (indices), and last `NAME.json`
        (`summary`) into the folder, which is made; returns their paths.

        Raises:
            UserError: a name that leads into another folder.
        """
        if '/' in name or '\0' in name:
            raise UserError(f'name={name!r} leads into another folder: name that in folder.')
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        overlay, labels, summary = files = [folder / f'{name}.{part}' for part in ('overlay.png', 'labels.png', 'json')]
        if opacity is not None:
            self.overlay(opacity=opacity).save(overlay)
        self.label_image().save(labels)
        summary.write_text(json.dumps(self.summary(), indent=1, ensure_ascii=False) + '\n', encoding='utf-8',
                           errors='backslashreplace')  # of a file name that is not UTF-8 JSON's own escape
        return files if opacity is not None else files[1:]

    def _shown(self, words: Sequence[str] | None) -> list[int]:
        if words is None:
            return list(range(len(self.words)))
        strangers = [word for word in words if word not in self.words]
        if strangers:
            raise UserError(f'no word of this result: {", ".join(strangers)}. Its words: {"; ".join(self.words)}.')
        return [self.words.index(word) for word in words]
