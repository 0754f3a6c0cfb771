"""The transformer block that both CLIP towers share (CLIP, Radford et al. 2021, section 2.4).

Parameter names are those of OpenAI's checkpoints (`attn.in_proj_weight`, `mlp.c_fc.weight`, ...).
B batch, N tokens, P prompts, W width, H heads.
"""
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import UserError
from .linear import Linear, linear
from .precision import upcast


class LayerNorm(nn.LayerNorm):
    """LayerNorm that computes in float32 at least, whatever the type of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(upcast(x), self.normalized_shape, upcast(self.weight), upcast(self.bias),
                            self.eps).to(x.dtype)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation that OpenAI's CLIP was trained with: silu(1.702 x) / 1.702."""

    SLOPE = 1.702

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.SLOPE * x) / self.SLOPE


GELUS = {'quick': QuickGELU, 'plain': nn.GELU}  # plain: x times the normal distribution's integral up to x


class FeedForward(nn.Sequential):
    """The two products with GELU between; QuickGELU's factors are multiplied where there is less to multiply."""

    def __init__(self, width: int, gelu: str = 'quick'):
        if gelu not in GELUS:
            raise UserError(f'gelu={gelu!r} is neither quick nor plain.')
        super().__init__(OrderedDict(
            c_fc=Linear(width, 4 * width), gelu=GELUS[gelu](), c_proj=Linear(4 * width, width)))

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.gelu, QuickGELU):
            return super().forward(x)
        slope = QuickGELU.SLOPE
        hidden = linear(slope * x, self.c_fc.weight, slope * self.c_fc.bias)
        hidden = F.silu(hidden, inplace=not torch.is_grad_enabled())
        return torch.add(self.c_proj.bias, linear(hidden, self.c_proj.weight), alpha=1 / slope)


class SelfAttention(nn.Module):
    """Multi-head self-attention with the parameter names of `nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise UserError(f'a width of {width} cannot be divided among {heads} attention heads.')
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, visible: Tensor | None = None, prompts: Tensor | None = None) -> Tensor:
        """Tokens see each other and the prompts, of which nothing else is asked.

        Args:
            x: (B, N, W).
            visible: (N, P + N), True (or 0, of True and False or 0 and -inf) where a token sees a prompt or a token.
            prompts: (B, P, W).
        """
        mixed = F.scaled_dot_product_attention(*self._project(x, prompts), attn_mask=visible)  # (B, H, N, W/H)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, visible: Tensor, prompts: Tensor | None = None, *, rows: slice) -> Tensor:
        """How much some of the tokens look at each: (B, H, rows, P + N), a row adds up to 1.

        Args:
            x, visible, prompts: as in `forward`; `visible` of 0 and -inf.
            rows: which of the N tokens.
        """
        q, k, _ = self._project(x, prompts)
        return (upcast(q[:, :, rows] * q.shape[3]**-0.5 @ k.transpose(2, 3)) + visible[rows]).softmax(dim=3)

    def _project(self, x: Tensor, prompts: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """q of the tokens, (B, H, N, W/H), k and v of prompts and tokens, (B, H, P + N, W/H)."""
        seen = x if prompts is None else torch.cat([prompts, x], dim=1)
        width = x.shape[2]
        q = linear(x, self.in_proj_weight[:width], self.in_proj_bias[:width])
        kv = linear(seen, self.in_proj_weight[width:], self.in_proj_bias[width:])  # (B, P + N, 2W)
        q, k, v = (each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (q, *kv.chunk(2, dim=2)))
        return q, k, v


class ResidualAttentionBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, gelu: str = 'quick'):
        super().__init__()
        self.attn = SelfAttention(width, heads)
        self.ln_1 = LayerNorm(width)
        self.mlp = FeedForward(width, gelu)
        self.ln_2 = LayerNorm(width)

    def forward(self, x: Tensor, visible: Tensor | None = None, prompts: Tensor | None = None) -> Tensor:
        """(B, N, W) -> (B, N, W); `visible` and `prompts` as in `SelfAttention`."""
        x = x + self.attn(self.ln_1(x), visible, None if prompts is None else self.ln_1(prompts))
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks, named as in CLIP's checkpoints: `resblocks.<i>`."""

    def __init__(self, width: int, layers: int, heads: int, gelu: str = 'quick'):
        super().__init__()
        self.resblocks = nn.ModuleList(ResidualAttentionBlock(width, heads, gelu) for _ in range(layers))
