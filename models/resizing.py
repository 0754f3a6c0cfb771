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

    def by_rows(self, maps: Tensor, rows: slice) -> Tensor:
        """Resize maps (C, h, w) to some rows of (C, H, W), in memory (rows, C, W), which `best_class` takes fastest."""
        with without_autocast(maps.device):
            narrow = self.rows[rows] @ maps.transpose(0, 1).flatten(1)  # (rows, C*w)
            return (narrow.unflatten(1, (len(maps), -1)) @ self.columns.T).transpose(0, 1)

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
    """Find the best class of every pixel in chunks (B, classes, H, W) of its maps; of equal values the first class."""
    best = index = None
    start = 0
    for chunk in maps:
        # A chunk of a large image is one class.
        values, indices = _max(chunk) if chunk.shape[1] > 1 else (chunk[:, 0], chunk.new_zeros(1))
        if best is None:
            best, index = values, indices.float().expand_as(values).clone()
        else:
            better = torch.gt(values, best, out=torch.empty_like(index))
            index.lerp_(indices.float() + start, better)  # exact, as `better` is 0 or 1
            best = torch.maximum(best, values)
        start += chunk.shape[1]
    return Best(index.long(), best)


def _max(chunk: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the largest of finite values (B, classes, H, W) and the first classes with them, both (B, H, W).

    On a CPU `max` goes through pixels one by one: max pooling takes a tenth of the time.
    """
    if chunk.device.type != 'cpu':
        return chunk.max(dim=1)
    rows = chunk.transpose(1, 2).contiguous().flatten(0, 1)  # (B*H, classes, W)
    pooled = F.max_pool2d(rows[:, :, None].permute(0, 3, 1, 2), (chunk.shape[1], 1), return_indices=True)
    return tuple(each.view(len(chunk), *chunk.shape[2:]) for each in pooled)


def top_classes(maps: Iterable[Tensor], count: int) -> Best:
    """Find the best classes of every pixel, best first, in chunks (B, classes, H, W) of its maps, which change.

    Of equal values the first class comes first, as in a stable sort. No more than `count` classes and a chunk are kept.
    """
    best, start = None, 0
    for values in maps:
        index = torch.arange(start, start + values.shape[1], device=values.device)[:, None, None].expand_as(values)
        start += values.shape[1]
        if best is not None:
            values, index = torch.cat([best.value, values], dim=1), torch.cat([best.index, index], dim=1)
        found = []
        for _ in range(min(count, values.shape[1])):  # for a few classes quicker than a stable sort
            found.append(_max(values))
            values.scatter_(1, found[-1][1][:, None], -torch.inf)
        value, order = (torch.stack(each, dim=1) for each in zip(*found, strict=True))
        best = Best(index.gather(1, order), value)
    return best


def resized_in_chunks(maps: Tensor, resizing: Resizing) -> Iterator[Tensor]:
    """Resize maps (B, C, h, w) and give them chunk by chunk, (B, classes of the chunk, H, W)."""
    pixels = len(resizing.rows) * len(resizing.columns)
    for chunk in map_chunks(maps.shape[1], len(maps) * pixels, maps.device):
        yield resizing(maps[:, chunk])
