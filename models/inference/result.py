"""The result of segmenting one image: labels and scores, and how to show and save them.

C class names, H x W pixels of the image.
"""
import io
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ..colours import UNLABELLED, class_colours
from ..errors import UserError
from ..label_format import label_format
from ..sliding_window import Stitched
from . import drawing

MAX_LEGEND_LINES = 30
TOP_SIDE = 64  # cells of the longer side of the map of best classes in a JSON file
NUMBERS = re.compile(r'\[\n([-+.\de,\s]+)\]')  # a list of numbers in indented JSON, whose strings have no line ends
MAX_REPR_CLASSES = 6
NOTEBOOK_SIDES = 384, 1024  # pixels: shortest and longest of an image's longer side in a notebook
MIN_TOP_SCORE = 0.1  # the miniature's model reached at most 0.07 on photographs, and at least 0.14 in its own world


class Result:
    """One segmented image.

    Attributes:
        image: (H, W, 3) uint8, RGB, upright.
        class_names: in the order of their labels; "sofa, couch" is one class with two names.
        labels: (H, W), the index of each pixel's class, or `unlabelled`. uint8; uint16 for more than 255 classes.
        unlabelled: the label of pixels without a class: 255, or 65535.
        palette: [red, green, blue] of each class, see `class_colours`.
        best: (H, W) float32, the highest score of each pixel, also where it is below the threshold.
        highest: the highest score of any pixel, before the seen penalty.
        warning: why the labels are unreliable, with the model's `note`; None if there is no reason.
        settings: the options of `Segmenter.segment`: prompts, background, threshold.
    """

    def __init__(self, image: np.ndarray, class_names: Sequence[str], stitched: Stitched, *,
                 threshold: float | None = None, settings: dict | None = None, penalty: Sequence[float] = (),
                 note: str = ''):
        self.image, self.class_names, self.settings = image, list(class_names), settings or {}
        dtype, self.unlabelled = label_format(len(class_names))
        self.palette = [list(colour) for colour in class_colours(tuple(class_names))]
        self._stitched = stitched
        best = stitched.best()
        self.best = best.value[0].float().cpu().numpy()
        labels = best.index[0].cpu().numpy()
        self.highest = float((self.best + np.array(penalty)[labels]).max() if len(penalty) else self.best.max())
        self.warning = None if self.highest >= MIN_TOP_SCORE else (
            f'the highest score is {max(0, self.highest):.2f}: the model recognises none of these classes in this '
            f'image, and the labels are unreliable.{note and " "}{note}')
        unlabelled = labels >= len(class_names)  # background classes
        if threshold is not None:
            unlabelled |= self.best < threshold
        self.labels = np.where(unlabelled, self.unlabelled, labels).astype(dtype)

    def __repr__(self) -> str:
        """Describe the result in a line: size, share of each class that has pixels, largest first, and threshold."""
        percent = self._percent()
        found = [index for index in np.argsort(-percent[:len(self.class_names)], kind='stable') if percent[index]]
        parts = [f'{drawing.shorten(self.class_names[index])} {percent[index]:.1f} %'
                 for index in found[:MAX_REPR_CLASSES]]
        if rest := found[MAX_REPR_CLASSES:]:
            parts.append(f'{more_classes(len(rest))} {percent[rest].sum():.1f} %')
        if percent[self.unlabelled]:
            parts.append(f'unlabelled {percent[self.unlabelled]:.1f} %')
        if absent := len(self.class_names) - len(found):
            parts.append(f'{absent} without pixels')
        height, width = self.labels.shape
        threshold = self.settings.get('threshold')
        ends = [f'{width} x {height} pixels', ', '.join(parts)]
        ends += [] if threshold is None else [f'threshold {threshold:g}']
        ends += ['unreliable, see .warning'] if self.warning else []
        return f'<Result: {"; ".join(ends)}>'

    def _repr_png_(self) -> bytes:
        """Draw the overlay and its legend as a PNG file, which a notebook shows; small images are enlarged."""
        shortest, longest = NOTEBOOK_SIDES
        file = io.BytesIO()
        self.overlay(side=min(max(shortest, *self.labels.shape), longest)).save(file, 'PNG')
        return file.getvalue()

    def _percent(self) -> np.ndarray:
        """Return the share of the image of each label, in percent; that of `unlabelled` is the last."""
        return 100 * np.bincount(self.labels.ravel(), minlength=self.unlabelled + 1) / self.labels.size

    @cached_property
    def scores(self) -> np.ndarray:
        """(C, H, W) float32: the score of each class at each pixel, from 0 to 1, minus the seen penalty for classes
        that were trained with masks. Computed on first use, as it takes 4 bytes per class and pixel."""
        return self._stitched.all(count=len(self.class_names))[0].float().cpu().numpy()

    def small_scores(self, longest: int) -> np.ndarray:
        """Compute `scores` at a smaller size (C, h, w): sides of at most `longest` pixels, of the image's proportions.

        Takes little memory, however large the image is.
        """
        return self._stitched.all(self._size(longest), count=len(self.class_names))[0].float().cpu().numpy()

    def top(self, count: int, *, longest: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the best classes of each pixel, best first -> their labels (count, h, w) and `scores` (count, h, w).

        Of equal scores the first class comes first. Like `scores` it has no background classes and no threshold. Takes
        the memory of `count` classes, however many there are.

        Args:
            longest: pixels of the longer side, as in `small_scores`; without it the image's size.

        Raises:
            UserError: the count is not from 1 to the number of classes.
        """
        check_top(count, len(self.class_names))
        best = self._stitched.top(count, None if longest is None else self._size(longest), count=len(self.class_names))
        return best.index[0].cpu().numpy().astype(self.labels.dtype), best.value[0].float().cpu().numpy()

    def _size(self, longest: int) -> tuple[int, int]:
        """Return the image's (height, width), reduced so that the longer side is at most `longest`."""
        scale = min(1, longest / max(self.labels.shape))
        return tuple(max(1, round(scale * side)) for side in self.labels.shape)

    def summary(self, *, top: int | None = None) -> dict:
        """Describe the result in plain JSON values.

        `classes` has, for each class, its share of the image (`area`, a fraction) and the mean score of its pixels
        (None if it has none).

        Args:
            top: add `top`, the `labels` and `scores` of so many best classes in each cell of a grid with at most
                `TOP_SIDE` cells on the longer side, as the method `top` gives them.
        """
        counts = np.bincount(self.labels.ravel(), minlength=self.unlabelled + 1)
        sums = np.bincount(self.labels.ravel(), weights=self.best.ravel(), minlength=self.unlabelled + 1)
        height, width = self.labels.shape
        classes = [{'name': name, 'label': index, 'colour': self.palette[index], 'pixels': int(counts[index]),
                    'area': round(float(counts[index] / self.labels.size), 6),
                    'mean_score': round(float(sums[index] / counts[index]), 4) if counts[index] else None}
                   for index, name in enumerate(self.class_names)]
        unlabelled = {'label': self.unlabelled, 'pixels': int(counts[self.unlabelled]),
                      'area': round(float(counts[self.unlabelled] / self.labels.size), 6)}
        maps = {}
        if top is not None:
            labels, scores = self.top(top, longest=TOP_SIDE)
            maps = {'top': {'labels': labels.tolist(), 'scores': scores.astype(float).round(4).tolist()}}
        return {'width': width, 'height': height, 'class_names': self.class_names, 'classes': classes,
                'unlabelled': unlabelled, 'warning': self.warning, **self.settings, **maps}

    def overlay(self, *, opacity: float = 0.5, legend: bool = True, side: int | None = None) -> Image.Image:
        """Draw the colours of the classes over the image, and the legend below it.

        Args:
            opacity: of the colours, from 0 to 1.
            side: pixels of the image's longer side as drawn; without it the image keeps its size.

        Raises:
            UserError: the opacity is not from 0 to 1, or the side is not positive.
        """
        if not 0 <= opacity <= 1:
            raise UserError(f'opacity={opacity} is not between 0 and 1.')
        if side is not None and side < 1:
            raise UserError(f'side={side}: at least 1 pixel is needed.')
        image, labels = self.image, self.labels
        if side is not None and side != max(labels.shape):
            height, width = (max(1, round(length * side / max(labels.shape))) for length in labels.shape)
            rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int)
                             for new, old in zip((height, width), labels.shape))
            image, labels = np.asarray(Image.fromarray(image).resize((width, height))), labels[np.ix_(rows, columns)]
        drawn = drawing.overlay(image, labels, self.palette, opacity)
        return drawing.stack([drawn, self.legend(drawn.size)]) if legend else drawn

    def legend(self, size: tuple[int, int] | None = None) -> Image.Image:
        """Draw the classes beside their colours, largest first, with their share of the image in percent.

        See `legend_lines` for more than `MAX_LEGEND_LINES` classes.

        Args:
            size: (width, height) in pixels of the image above the legend, by default that of the result.
        """
        percent = self._percent()
        shown, others = legend_lines(percent[:len(self.class_names)])
        entries = [(f'{drawing.shorten(self.class_names[index])} {percent[index]:.1f} %', self.palette[index])
                   for index in shown]
        if percent[self.unlabelled]:
            entries.append((f'(unlabelled) {percent[self.unlabelled]:.1f} %', UNLABELLED))
        if others:
            entries.append((f'({more_classes(len(others))}) {percent[others].sum():.1f} %', UNLABELLED))
        width, height = size or self.labels.shape[::-1]
        return drawing.legend(entries, width, size=max(12, min(width, height) // 28))

    def label_image(self) -> Image.Image:
        """Return the labels as an image: 8 bits with a palette, or 16 bits for more than 255 classes."""
        image = Image.fromarray(self.labels)
        if self.labels.dtype == np.uint8:
            colours = np.zeros((256, 3), np.uint8)  # with fewer than 256, Pillow would store fewer bits
            colours[:len(self.palette)] = self.palette
            image.putpalette(colours.tobytes())
        return image

    def save(self, folder: str | Path, name: str = 'result', *, opacity: float | None = 0.5,
             top: int | None = None) -> list[Path]:
        """Write `NAME.overlay.png` (unless opacity is None), `NAME.labels.png` and, last, `NAME.json` (`summary`).

        Makes the folder if needed and returns the paths.

        Args:
            top: see `summary`.

        Raises:
            UserError: the name contains a slash, or `top` is more than the number of classes.
        """
        if '/' in name or '\0' in name:
            raise UserError(f'name={name!r} must not contain a slash: give the folder separately.')
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        overlay, labels, summary = files = [folder / f'{name}.{part}' for part in ('overlay.png', 'labels.png', 'json')]
        if opacity is not None:
            self.overlay(opacity=opacity).save(overlay)
        self.label_image().save(labels)
        text = json.dumps(self.summary(top=top), indent=1, ensure_ascii=False)
        text = NUMBERS.sub(lambda found: f'[{" ".join(found[1].split())}]', text)
        summary.write_text(f'{text}\n', encoding='utf-8',
                           errors='backslashreplace')  # a file name that is not UTF-8 is escaped as in JSON
        return files if opacity is not None else files[1:]


def check_top(count: int, classes: int) -> None:
    """Check the number of best classes that are asked for.

    Raises:
        UserError: it is not from 1 to the number of classes.
    """
    if not (isinstance(count, int) and 1 <= count <= classes):
        raise UserError(f'the {count} best of {classes:,} classes: from 1 to {classes:,} are possible.')


def legend_lines(sizes: Sequence[float]) -> tuple[list[int], list[int]]:
    """Sort classes into those that a legend or a log names, largest first, and those that it only counts.

    Up to `MAX_LEGEND_LINES` classes are all named; of more, so many of the largest that have pixels.
    """
    order = sorted(range(len(sizes)), key=lambda index: -sizes[index])
    if len(order) <= MAX_LEGEND_LINES:
        return order, []
    named = sum(sizes[index] > 0 for index in order[:MAX_LEGEND_LINES])
    return order[:named], order[named:]


def more_classes(count: int) -> str:
    return f'{count:,} more class{"" if count == 1 else "es"}'
