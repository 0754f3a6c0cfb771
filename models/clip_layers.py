"""The transformer block of both CLIP encoders (CLIP, Radford et al. 2021, section 2.4).

Parameter names are those of OpenAI's checkpoints (`attn.in_proj_weight`, `mlp.c_fc.weight`, ...).
B batch, N tokens, P prompts, W width, H heads.
"""
from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import UserError
from .precision import upcast


class LayerNorm(nn.LayerNorm):
    """LayerNorm that computes in at least float32, for inputs of any type."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(upcast(x), self.normalized_shape, upcast(self.weight), upcast(self.bias),
                            self.eps).to(x.dtype)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation that OpenAI's CLIP was trained with: silu(1.702 x) / 1.702."""

    SLOPE = 1.702

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.SLOPE * x) / self.SLOPE


GELUS = {'quick': QuickGELU, 'plain': nn.GELU}  # plain: x times the normal distribution function of x


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between them; QuickGELU's factors are folded into biases and smaller tensors."""

    def __init__(self, width: int, gelu: str = 'quick'):
        if gelu not in GELUS:
            raise UserError(f'gelu={gelu!r} is neither quick nor plain.')
        super().__init__(OrderedDict(
            c_fc=nn.Linear(width, 4 * width), gelu=GELUS[gelu](), c_proj=nn.Linear(4 * width, width)))

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.gelu, QuickGELU):
            return super().forward(x)
        slope = QuickGELU.SLOPE
        hidden = F.linear(slope * x, self.c_fc.weight, slope * self.c_fc.bias)
        hidden = F.silu(hidden, inplace=not torch.is_grad_enabled())
        return torch.add(self.c_proj.bias, F.linear(hidden, self.c_proj.weight), alpha=1 / slope)


class Widening(NamedTuple):
    """An attention mask as X further columns of every head: q @ k.T is 0 where a token attends, else far below."""
    q: Tensor  # (N, X)
    kv: Tensor  # (P + N, 2, X), zeros in v


class SelfAttention(nn.Module):
    """Multi-head self-attention with the parameter names of `nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise UserError(f'a width of {width} cannot be divided among {heads} attention heads.')
        self.heads, self.head_width = heads, width // heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, visible: Tensor | Widening | None = None, prompts: Tensor | None = None) -> Tensor:
        """Attend from the tokens to the prompts and the tokens; prompts serve as keys and values only.

        Args:
            x: (B, N, W).
            visible: attention mask (N, P + N), bool (True: attends) or additive (0: attends, -inf: does not), or as
                columns.
            prompts: (B, P, W).
        """
        q, k, v = self._project(x, visible, prompts)
        if isinstance(visible, Widening):
            mixed = F.scaled_dot_product_attention(q, k, v, scale=self.head_width**-0.5)[..., :self.head_width]
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)  # (B, H, N, W/H)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, visible: Tensor | Widening, prompts: Tensor | None = None, *, rows: slice) -> Tensor:
        """Compute the attention weights of selected tokens, (B, H, rows, P + N); each row sums to 1.

        Args:
            x, visible, prompts: as in `forward`; a mask is additive.
            rows: the selected ones of the N tokens.
        """
        q, k, _ = self._project(x, visible, prompts)
        scores = upcast(q[:, :, rows] * self.head_width**-0.5 @ k.transpose(2, 3))
        return (scores if isinstance(visible, Widening) else scores + visible[rows]).softmax(dim=3)

    def _project(self, x: Tensor, visible: Tensor | Widening | None,
                 prompts: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Project tokens to q, (B, H, N, W/H [+ X]), prompts and tokens to k and v, (B, H, P + N, W/H [+ X])."""
        context = x if prompts is None else torch.cat([prompts, x], dim=1)
        width = x.shape[2]
        q = F.linear(x, self.in_proj_weight[:width], self.in_proj_bias[:width]).unflatten(2, (self.heads, -1))
        kv = F.linear(context, self.in_proj_weight[width:], self.in_proj_bias[width:])  # (B, P + N, 2W)
        kv = kv.unflatten(2, (2, self.heads, -1))
        if isinstance(visible, Widening):
            q, kv = (torch.cat([each, columns.unsqueeze(-2).expand(*each.shape[:-1], -1)], dim=-1)
                     for each, columns in ((q, visible.q), (kv, visible.kv)))
        return q.transpose(1, 2), *(each.transpose(1, 2) for each in kv.unbind(2))


class ResidualAttentionBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, gelu: str = 'quick'):
        super().__init__()
        self.attn = SelfAttention(width, heads)
        self.ln_1 = LayerNorm(width)
        self.mlp = FeedForward(width, gelu)
        self.ln_2 = LayerNorm(width)

    def forward(self, x: Tensor, visible: Tensor | Widening | None = None, prompts: Tensor | None = None) -> Tensor:
        """Transform tokens (B, N, W); `visible` and `prompts` as in `SelfAttention`."""
        x = x + self.attn(self.ln_1(x), visible, None if prompts is None else self.ln_1(prompts))
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks, named as in CLIP's checkpoints: `resblocks.<i>`."""

    def __init__(self, width: int, layers: int, heads: int, gelu: str = 'quick'):
        super().__init__()
        self.resblocks = nn.ModuleList(ResidualAttentionBlock(width, heads, gelu) for _ in range(layers))
