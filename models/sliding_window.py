"""Sliding windows of an image, and the stitching of their mask logits to the image's scores and labels.

n windows, C classes, h x w the map of a window's logits, H x W pixels of the image, H0 x W0 of the original.
"""
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import UserError
from .resizing import Best, Resizing, best_class, map_chunks, resize, top_classes

BAND = 32  # rows whose scores are computed together on a CPU: so a chunk has many classes, and fits into the cache


class Window(NamedTuple):
    """Place and size of a window in an image, in pixels."""
    top: int
    left: int
    height: int
    width: int

    def of(self, image: Tensor) -> Tensor:
        """Cut the window out of an image (..., H, W)."""
        return image[..., self.top:self.top + self.height, self.left:self.left + self.width]


def sliding(size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]) -> list[Window]:
    """Place windows of `crop` every `stride` pixels; the last of a row or column is shifted inward to stay whole.

    Raises:
        UserError: the stride is not from 1 to the crop size.
    """
    if not all(0 < step <= side for step, side in zip(stride, crop, strict=True)):
        raise UserError(f'test_cfg: windows of {crop[0]}x{crop[1]} pixels every {stride[0]}x{stride[1]} pixels do not '
                        'cover an image: the stride must be from 1 to the crop_size.')
    starts = []
    for length, side, step in zip(size, crop, stride, strict=True):
        count = max(length - side + step - 1, 0) // step + 1
        starts.append([min(i * step, max(length - side, 0)) for i in range(count)])
    return [Window(top, left, min(crop[0], size[0]), min(crop[1], size[1])) for top in starts[0] for left in starts[1]]


class Stitched:
    """Computes the scores of an image from the mask logits of its windows, averaged where they overlap.

    It keeps tensors only, and no reference to the model's classes: other classes set later do not change its scores.

    Args:
        logits: (n, C, h, w).
        windows: their places in the image.
        size: (H, W) of the image; or less, where it was padded below and on the right.
        original: (H0, W0), to which the averaged scores are resized.
        resizing: from (h, w) to a window's size.
        scores: turns mask logits (classes, H, W), perhaps in place, and their penalty (classes, 1, 1) into scores.
        penalty: (C, 1, 1).
    """

    def __init__(self, logits: Tensor, windows: Sequence[Window], *, size: tuple[int, int], original: tuple[int, int],
                 resizing: Resizing, scores: Callable[[Tensor, Tensor], Tensor], penalty: Tensor):
        self.logits, self.windows, self.size, self.original = logits, windows, size, original
        self.resizing, self.scores, self.penalty = resizing, scores, penalty
        bottom = max(window.top + window.height for window in windows)
        right = max(window.left + window.width for window in windows)
        self.share = logits.new_zeros(bottom, right)  # a window's share in the average: 1 / number of windows there
        for window in windows:
            window.of(self.share).add_(1)
        self.share.reciprocal_()

    def bands(self, size: tuple[int, int] | None = None, *, count: int | None = None) -> Iterator[Iterator[Tensor]]:
        """Compute the scores in bands of rows, and each band in chunks of classes, (1, classes, rows, size[1]).

        Args:
            size: by default (H0, W0).
            count: of the first classes, to leave out the others.
        """
        size, height = size or self.original, self.size[0]
        step = BAND if size == self.size and self.logits.device.type == 'cpu' else height  # resizing needs all rows
        for start in range(0, height, step):
            yield self._chunks(slice(start, min(start + step, height)), size, count or self.logits.shape[1])

    def _chunks(self, rows: slice, size: tuple[int, int], count: int) -> Iterator[Tensor]:
        """Compute the scores of a band of rows, or of all of them resized to `size`, in chunks of classes."""
        height, width = rows.stop - rows.start, self.share.shape[1]
        new = height if size == self.size else size[0], size[1]
        for chunk in map_chunks(count, max(height * width, new[0] * new[1]), self.logits.device):
            yield resize(self._averaged(chunk, rows)[None, :, :, :self.size[1]], new)

    def _averaged(self, classes: slice, rows: slice) -> Tensor:
        """Compute the windows' average scores of some classes in some rows, (classes, rows, columns)."""
        if len(self.windows) == 1:
            return self._of_window(0, classes, rows)
        shape = rows.stop - rows.start, classes.stop - classes.start, self.share.shape[1]
        averaged = self.logits.new_zeros(shape).transpose(0, 1)
        for index, window in enumerate(self.windows):
            top, bottom = max(rows.start, window.top), min(rows.stop, window.top + window.height)
            if top < bottom:
                scores = self._of_window(index, classes, slice(top - window.top, bottom - window.top))
                Window(top - rows.start, window.left, bottom - top, window.width).of(averaged).add_(scores)
        return averaged.mul_(self.share[rows])

    def _of_window(self, index: int, classes: slice, rows: slice) -> Tensor:
        """Compute the scores of some classes in some rows of a window, (classes, rows, columns)."""
        return self.scores(self.resizing.by_rows(self.logits[index, classes], rows), self.penalty[classes])

    def best(self) -> Best:
        """Find the best class of every pixel and its score, (1, H0, W0)."""
        return _joined(best_class(band) for band in self.bands())

    def labels(self) -> Tensor:
        """Find the best class of every pixel, (H0, W0) int64."""
        return self.best().index[0]

    def top(self, classes: int, size: tuple[int, int] | None = None, *, count: int | None = None) -> Best:
        """Find the best `classes` of every pixel and their scores, (1, classes, *size), best first; see `bands`."""
        return _joined(top_classes(band, classes) for band in self.bands(size, count=count))

    def all(self, size: tuple[int, int] | None = None, *, count: int | None = None) -> Tensor:
        """Compute the scores of all classes, (1, C, *size); see `bands`."""
        return torch.cat([torch.cat(list(band), dim=1) for band in self.bands(size, count=count)], dim=2)


def _joined(bands: Iterable[Best]) -> Best:
    return Best(*(torch.cat(parts, dim=-2) for parts in zip(*bands, strict=True)))
