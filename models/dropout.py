"""Dropout (Srivastava et al. 2014) and attention with dropout that keep pace on a CPU, and drop the same share.

PyTorch draws a CPU's random floats one by one, which takes longer than the products of a small attention; here 64
random bits of a simple generator decide about four elements. Its fused attention knows no dropout on a CPU and keeps
every weight for the backward pass; here they are made again, a few rows at a time (Dao et al. 2022, algorithm 4).
GPUs have both already.
B batch, H heads, Nq queries, Nk keys, d head width.
"""
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .precision import upcast

ROWS = 512  # queries at a time, whose weights should fit a processor's cache
LANES = 2**16  # generators of random bits, whose states should too


def keep_mask(shape: tuple[int, ...], dropout: float) -> Tensor:
    """1 with probability 1 - dropout, rounded to a multiple of 2**-16, else 0: uint8, which is read fastest.

    Drawn by many xorshift64 generators side by side (Marsaglia 2003), which PyTorch's own generator starts.
    """
    count = torch.Size(shape).numel()
    mask = torch.empty(count, dtype=torch.bool)
    threshold = round(dropout * 2**16) - 2**15
    state = torch.empty(min(LANES, (count + 3) // 4), dtype=torch.int64).random_(1, None)
    for start in range(0, count, 4 * LANES):
        state.bitwise_xor_(state << 13)
        state.bitwise_xor_((state >> 7).bitwise_and_(2**57 - 1))  # a shift that draws in zeros
        state.bitwise_xor_(state << 17)
        part = mask[start:start + 4 * LANES]
        torch.ge(state.view(torch.int16)[:len(part)], threshold, out=part)
    return mask.view(torch.uint8).view(shape)


class Dropout(nn.Dropout):
    """`nn.Dropout`; with `relu`, of the rectified input. torch.compile, which chokes on the mask, has PyTorch's."""

    def forward(self, x: Tensor, *, relu: bool = False) -> Tensor:
        if self.training and self.p and x.device.type == 'cpu' and not torch.compiler.is_compiling():
            return Dropped.apply(x, keep_mask(x.shape, self.p), self.p, relu)
        return super().forward(F.relu(x) if relu else x)


class Dropped(torch.autograd.Function):
    """x, or relu(x), where `keep` is 1, divided by 1 - dropout, else 0.

    After a ReLU the result itself says what was kept, and the layer that follows remembers it anyway.
    """

    @staticmethod
    def forward(ctx, x: Tensor, keep: Tensor, dropout: float, relu: bool) -> Tensor:
        out = keep.to(x.dtype).mul_(x).mul_(1 / (1 - dropout))
        ctx.save_for_backward(out.relu_() if relu else keep)
        ctx.dropout = dropout
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out: Tensor) -> tuple[Tensor | None, ...]:
        kept, = ctx.saved_tensors
        kept = kept if kept.dtype == torch.uint8 else (kept > 0).view(torch.uint8)
        return kept.to(d_out.dtype).mul_(d_out).mul_(1 / (1 - ctx.dropout)), None, None, None


def attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.) -> Tensor:
    """softmax(q k / sqrt(d)) v, its weights dropped out: (B, H, Nq, d), (B, H, Nk, d) twice -> (B, H, Nq, d)."""
    if dropout == 0 or q.device.type != 'cpu':
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    return dropped_attention(q, k, v, dropout)


@torch.compiler.disable
def dropped_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """`attention` with dropout on a CPU, which torch.compile leaves as it is."""
    return DroppedAttention.apply(q, k, v, keep_mask((*q.shape[:3], k.shape[2]), dropout), dropout)


class DroppedAttention(torch.autograd.Function):
    """Attention whose weights are kept where `keep` (B, H, Nq, Nk) is 1, and then divided by 1 - dropout."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, keep: Tensor, dropout: float) -> Tensor:
        out = torch.empty_like(q)
        for head, rows in _tiles(q):
            weights = _weights(q[head][rows], k[head])
            out[head][rows] = weights.mul_(keep[head][rows].to(weights.dtype)).to(v.dtype) @ v[head]
        out.mul_(1 / (1 - dropout))
        ctx.save_for_backward(q, k, v, keep, out)
        ctx.dropout = dropout
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, keep, out = ctx.saved_tensors
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        inner = (d_out * out).sum(dim=3, keepdim=True)
        d_kept = d_out * (1 / (1 - ctx.dropout))
        for head, rows in _tiles(q):
            weights = _weights(q[head][rows], k[head])
            kept = keep[head][rows].to(weights.dtype)
            d_scores = (d_kept[head][rows] @ v[head].T).mul(kept).sub_(inner[head][rows]).mul_(weights).to(q.dtype)
            d_v[head].addmm_(weights.mul_(kept).to(v.dtype).T, d_kept[head][rows])
            d_q[head][rows] = d_scores @ k[head]
            d_k[head].addmm_(d_scores.T, q[head][rows])
        scale = q.shape[-1]**-0.5
        return d_q.mul_(scale), d_k.mul_(scale), d_v, None, None


def _tiles(q: Tensor) -> Iterator[tuple[tuple[int, int], slice]]:
    """Every image and head, and of each some rows at a time."""
    for image in range(q.shape[0]):
        for head in range(q.shape[1]):
            for start in range(0, q.shape[2], ROWS):
                yield (image, head), slice(start, start + ROWS)


def _weights(q: Tensor, k: Tensor) -> Tensor:
    """(rows, d), (Nk, d) -> softmax weights (rows, Nk), in float32 at least."""
    scores = (q * q.shape[-1]**-0.5) @ k.T
    return upcast(scores).softmax(dim=1)
