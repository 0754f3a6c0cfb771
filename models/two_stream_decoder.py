"""CLIP-RC's two-stream decoder, whose queries and pixels attend to each other, and its recovery decoder.

B batch, Q queries (region-major: R*C), N pixels (cells of the patch grid), E width, H heads.
"""
import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .clip_layers import LayerNorm
from .dropped_attention import Dropout, attention
from .errors import UserError
from .precision import checkpointed, upcast
from .resizing import map_chunks

# Elements of a chunk's hidden layer in testing: on a CPU a part of its cache, on a GPU enough to keep it busy. On a CPU
# of many cores a chunk must not be much smaller, nor those of the pixels, which read all keys and values again.
CHUNK_ELEMENTS = {'cpu': 2**22, 'cuda': 2**26}


class CrossAttention(nn.Module):
    """Multi-head attention of one stream to the other."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        if width % heads:
            raise UserError(f'a width of {width} cannot be divided among {heads} attention heads.')
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.attention_dropout = nn.Dropout(dropout)
        self.proj = nn.Linear(width, width)

    def forward(self, stream: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend from a stream (B, Nq, E) to what `keys_and_values` makes of the other one."""
        dropout = self.attention_dropout.p if self.training else 0.
        attended = attention(self._by_head(self.q(stream)), keys, values, dropout)
        return self.proj(attended.transpose(1, 2).flatten(2))

    def keys_and_values(self, other: Tensor) -> tuple[Tensor, Tensor]:
        """Project the other stream (B, Nk, E) to its keys and values, each (B, H, Nk, E/H)."""
        return self._by_head(self.k(other)), self._by_head(self.v(other))

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class CrossAttentionLayer(nn.Module):
    """Attention to the other stream, then a feed-forward block, each with a residual and a norm after it.

    `norm2` and `norm3` are the names in published checkpoints, whose `norm1` and `self_attn` are unused and not built.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.1):
        super().__init__()
        self.multihead_attn = CrossAttention(width, heads, dropout)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.norm2 = LayerNorm(width)
        self.norm3 = LayerNorm(width)
        self.attended_dropout = Dropout(dropout)
        self.hidden_dropout = Dropout(dropout)
        self.output_dropout = Dropout(dropout)

    def forward(self, stream: Tensor, other: Tensor) -> Tensor:
        """Transform a stream (B, N, E); in testing in chunks of N, as its elements do not depend on each other."""
        keys, values = self.multihead_attn.keys_and_values(other)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():  # an exported model takes any number of classes
            return self._transform(stream, keys, values)
        out = torch.empty_like(stream)
        for chunk in map_chunks(stream.shape[1], len(stream) * self.linear1.out_features, stream.device,
                                CHUNK_ELEMENTS):
            out[:, chunk] = self._transform(stream[:, chunk], keys, values)
        return out

    def _transform(self, stream: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        stream = self.norm2(stream + self.attended_dropout(self.multihead_attn(stream, keys, values)))
        hidden = self.hidden_dropout(F.relu(self.linear1(stream), inplace=not torch.is_grad_enabled()))
        return self.norm3(stream + self.output_dropout(self.linear2(hidden)))


class DecoderStream(nn.Module):
    """The layers of one stream. They start as identical copies, as in the published code."""

    def __init__(self, width: int, heads: int, num_layers: int):
        super().__init__()
        first = CrossAttentionLayer(width, heads)
        self.layers = nn.ModuleList(copy.deepcopy(first) for _ in range(num_layers))


def exchange(query_layers: nn.ModuleList, pixel_layers: nn.ModuleList, queries: Tensor,
             pixels: Tensor, *, with_cp: bool = False) -> tuple[Tensor, Tensor]:
    """Run both streams, (B, Q, E) and (B, N, E); each layer attends to the other stream's *previous* value."""
    run = checkpointed if with_cp else nn.Module.__call__
    for query_layer, pixel_layer in zip(query_layers, pixel_layers, strict=True):
        queries, pixels = run(query_layer, queries, pixels), run(pixel_layer, pixels, queries)
    return queries, pixels


class RecoveryDecoder(nn.Module):
    """Recovers the decoder's CLIP-space inputs from its outputs, so that training does not lose CLIP's knowledge.

    Used in training only. Initial weights are truncated normal with a deviation of 0.02, biases are zero.
    """

    def __init__(self, width: int, heads: int, num_layers: int = 1):
        super().__init__()
        self.linear_q_in = nn.Linear(width, width)
        self.linear_k_in = nn.Linear(width, width)
        self.decouple_q = nn.ModuleList(CrossAttentionLayer(width, heads) for _ in range(num_layers))
        self.decouple_v = nn.ModuleList(CrossAttentionLayer(width, heads) for _ in range(num_layers))
        self.linear_q_out = nn.Linear(width, 2 * width)
        self.linear_k_out = nn.Linear(width, width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, queries: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Recover aligned queries (B, Q, 2E) and patches (B, N, E) from final queries and pixels, (B, Q or N, E)."""
        queries, pixels = exchange(self.decouple_q, self.decouple_v, upcast(self.linear_q_in(queries)),
                                   upcast(self.linear_k_in(pixels)))
        return self.linear_q_out(queries), self.linear_k_out(pixels)
