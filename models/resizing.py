"""Maps of many classes at the size of an image, some classes at a time: all of them together are never needed.

B batch, C classes, h x w the map that the model gives, H x W pixels.
"""
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import without_autocast

# Elements of the maps that are worked on together: what a processor's cache holds, or what keeps a GPU busy.
AT_ONCE = {'cpu': 2**20, 'cuda': 2**24}


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), bilinear (align_corners=False), as everywhere in this model."""
    return x if tuple(x.shape[2:]) == tuple(size) else F.interpolate(
        x, size=tuple(size), mode='bilinear', align_corners=False)


class Resizing:
    """Bilinear resizing through several sizes, as one product from each side: maps (..., h, w) -> (..., H, W).

    Args:
        sizes: (h, w), those between, (H, W).
        like: maps of this type and on this device will be resized.
    """

    def __init__(self, *sizes: tuple[int, int], like: Tensor):
        self.rows, self.columns = (self._weights(lengths, like) for lengths in zip(*sizes, strict=True))

    @staticmethod
    def _weights(lengths: tuple[int, ...], like: Tensor) -> Tensor:
        """(last length, first length): what each old element gives to a new one."""
        weights = torch.eye(lengths[0], dtype=like.dtype, device=like.device)[None]
        for length in lengths[1:]:
            if length != weights.shape[2]:
                weights = F.interpolate(weights, size=length, mode='linear', align_corners=False)
        return weights[0].T.contiguous()

    def __call__(self, maps: Tensor) -> Tensor:
        with without_autocast(maps.device):
            return self.rows @ maps @ self.columns.T

    def gradient(self, d_resized: Tensor) -> Tensor:
        """Gradient to the resized maps (..., H, W) -> to the maps (..., h, w)."""
        with without_autocast(d_resized.device):
            return self.rows.T @ d_resized @ self.columns


def class_chunks(num_classes: int, elements: int, device: torch.device) -> list[slice]:
    """All classes in order, cut where the maps of a slice, `elements` each, are enough to work on."""
    step = max(1, AT_ONCE.get(device.type, AT_ONCE['cpu']) // elements)
    return [slice(start, min(start + step, num_classes)) for start in range(0, num_classes, step)]


class Best(NamedTuple):
    """The best class of every pixel, and its value."""
    index: Tensor  # (B, H, W) int64
    value: Tensor  # (B, H, W)


def best_class(maps: Iterable[Tensor]) -> Best:
    """Maps (B, classes, H, W) of some classes after the other -> the best of all.

    The first of several that are best, as `argmax` takes it.
    """
    best = index = None
    start = 0
    for some in maps:
        values, indices = some.max(dim=1)
        if best is None:
            best, index = values, indices
        else:
            better = values > best
            index = torch.where(better, indices + start, index)
            best = torch.where(better, values, best)
        start += some.shape[1]
    return Best(index, best)


def resized_in_chunks(maps: Tensor, resizing: Resizing) -> Iterator[Tensor]:
    """Maps (B, C, h, w) -> (B, some classes, H, W), one after the other."""
    pixels = len(resizing.rows) * len(resizing.columns)
    for some in class_chunks(maps.shape[1], len(maps) * pixels, maps.device):
        yield resizing(maps[:, some])
