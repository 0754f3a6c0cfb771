"""Windows of an image, and their mask logits -> the image's scores and labels, some classes at a time.

n windows, C classes, h x w the map of a window's logits, H x W pixels of the image, H0 x W0 of the original.
"""
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import UserError
from .resizing import Best, Resizing, best_class, class_chunks, resize


class Window(NamedTuple):
    """A part of an image, in pixels."""
    top: int
    left: int
    height: int
    width: int

    def of(self, image: Tensor) -> Tensor:
        """The part of (..., H, W)."""
        return image[..., self.top:self.top + self.height, self.left:self.left + self.width]


def sliding(size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]) -> list[Window]:
    """Windows of `crop` every `stride` pixels; the last of a row or column is shifted inward so that it stays whole.

    Raises:
        UserError: a stride that leaves pixels between the windows, or is none.
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
    """The scores of an image from the mask logits of its windows, averaged where they overlap.

    Args:
        logits: (n, C, h, w).
        windows: their places.
        size: (H, W) of the image; or less, where it was padded below and on the right.
        original: (H0, W0), to which the averaged scores are resized.
        resizing: from (h, w) to a window's size.
        scores: mask logits of the classes of a slice -> scores.
    """

    def __init__(self, logits: Tensor, windows: Sequence[Window], *, size: tuple[int, int], original: tuple[int, int],
                 resizing: Resizing, scores: Callable[[Tensor, slice], Tensor]):
        self.logits, self.windows, self.size, self.original = logits, windows, size, original
        self.resizing, self.scores = resizing, scores
        bottom = max(window.top + window.height for window in windows)
        right = max(window.left + window.width for window in windows)
        self.share = logits.new_zeros(bottom, right)  # of a window in the average
        for window in windows:
            window.of(self.share).add_(1)
        self.share.reciprocal_()

    def slices(self) -> Iterator[Tensor]:
        """Scores (1, some classes, H0, W0), one after the other."""
        pixels = max(self.share.numel(), self.original[0] * self.original[1])
        for some in class_chunks(self.logits.shape[1], pixels, self.logits.device):
            summed = self.logits.new_zeros(some.stop - some.start, *self.share.shape)
            for window, logits in zip(self.windows, self.logits[:, some], strict=True):
                window.of(summed).add_(self.scores(self.resizing(logits), some))
            averaged = summed.mul_(self.share) if len(self.windows) > 1 else summed
            yield resize(averaged[None, :, :self.size[0], :self.size[1]], self.original)

    def best(self) -> Best:
        """Class of every pixel and its score, (1, H0, W0)."""
        return best_class(self.slices())

    def labels(self) -> Tensor:
        """Class of every pixel, (H0, W0) int64."""
        return self.best().index[0]

    def all(self) -> Tensor:
        """Scores (1, C, H0, W0)."""
        return torch.cat(list(self.slices()), dim=1)
