"""Bilinear resizing of class maps to the size of an image, in chunks of classes to bound memory.

B batch, C classes, h x w the map that the model gives, H x W pixels.
"""
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import without_autocast

# Elements in a chunk of class maps: as many as fit into a CPU's cache, or keep a GPU busy.
CHUNK_ELEMENTS = {'cpu': 2**21, 'cuda': 2**24}


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, h, w) to (B, C, *size), bilinear (align_corners=False), as everywhere in this model."""
    return x if tuple(x.shape[2:]) == tuple(size) else F.interpolate(
        x, size=tuple(size), mode='bilinear', align_corners=False)


class Resizing:
    """Resize maps (..., h, w) to (..., H, W), bilinear, through any sizes between, by one matrix product per side.

    Args:
        sizes: (h, w), the sizes between, (H, W).
        like: a tensor of the type and device of the maps.
    """

    def __init__(self, *sizes: tuple[int, int], like: Tensor):
        self.rows, self.columns = (self._weights(lengths, like) for lengths in zip(*sizes, strict=True))

    @staticmethod
    def _weights(lengths: tuple[int, ...], like: Tensor) -> Tensor:
        """Compute the weight of each old element in each new one, (last length, first length)."""
        weights = torch.eye(lengths[0], dtype=like.dtype, device=like.device)[None]
        for length in lengths[1:]:
            if length != weights.shape[2]:
                weights = F.interpolate(weights, size=length, mode='linear', align_corners=False)
        return weights[0].T.contiguous()

    def __call__(self, maps: Tensor) -> Tensor:
        with without_autocast(maps.device):
            return self.rows @ maps @ self.columns.T

    def gradient(self, d_resized: Tensor) -> Tensor:
        """Turn the gradient of the resized maps (..., H, W) into that of the maps (..., h, w)."""
        with without_autocast(d_resized.device):
            return self.rows.T @ d_resized @ self.columns


def map_chunks(count: int, elements: int, device: torch.device, limits: dict[str, int] = CHUNK_ELEMENTS) -> list[slice]:
    """Split maps, of classes or of images, in order into chunks.

    Args:
        elements: of one map; a chunk has at least one map.
        limits: elements in a chunk, by type of device.
    """
    step = max(1, limits.get(device.type, limits['cpu']) // elements)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


class Best(NamedTuple):
    """The best class of every pixel, or its best classes, (B, K, H, W), and their values."""
    index: Tensor  # (B, H, W) int64
    value: Tensor  # (B, H, W)


@torch.no_grad()
def best_class(maps: Iterable[Tensor]) -> Best:
    """Find the best class of every pixel in chunks (B, classes, H, W) of its maps, which are changed in place.

    Of equal values the first class is taken, as `argmax` does. On a CPU `argmax`, `max` with indices, comparisons to
    bool and `where` go through pixels one by one, and new tensors of this size cost page faults: so indices are
    computed in the numbers of the maps, in half of the time or less.
    """
    best = index = None
    start = 0
    for chunk in maps:
        values, count = chunk.amax(dim=1), chunk.shape[1]
        numbers = torch.arange(count, dtype=torch.float32, device=chunk.device)[:, None, None]
        other = chunk.sub_(values[:, None]).sign_().float()  # 0 for the best class, -1 for others
        indices = torch.add(numbers, other, alpha=-count, out=other).amin(dim=1).add_(start)
        if best is None:
            best, index = values, indices
        else:
            better = torch.gt(values, best, out=torch.empty_like(indices))
            index.lerp_(indices, better)  # exact, as `better` is 0 or 1
            best = torch.maximum(best, values)
        start += count
    return Best(index.long(), best)


def top_classes(maps: Iterable[Tensor], count: int) -> Best:
    """Find the best classes of every pixel, best first, in chunks (B, classes, H, W) of its maps.

    Of equal values the first class comes first, as in a stable sort. No more than `count` classes and a chunk are kept.
    """
    best, start = None, 0
    for values in maps:
        index = torch.arange(start, start + values.shape[1], device=values.device)[:, None, None].expand_as(values)
        start += values.shape[1]
        if best is not None:
            values, index = torch.cat([best.value, values], dim=1), torch.cat([best.index, index], dim=1)
        values, order = values.sort(dim=1, descending=True, stable=True)
        best = Best(index.gather(1, order[:, :count]), values[:, :count])
    return best


def resized_in_chunks(maps: Tensor, resizing: Resizing) -> Iterator[Tensor]:
    """Resize maps (B, C, h, w) and give them chunk by chunk, (B, classes of the chunk, H, W)."""
    pixels = len(resizing.rows) * len(resizing.columns)
    for chunk in map_chunks(maps.shape[1], len(maps) * pixels, maps.device):
        yield resizing(maps[:, chunk])
