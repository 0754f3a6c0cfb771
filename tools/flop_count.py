"""Parameters and FLOPs of a model, part by part, with fvcore. A multiply-add is one FLOP."""
from math import prod
from typing import NamedTuple

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import nn

from models import CLIPRC

# Part -> prefixes of the names of its modules.
PARTS = {
    'vision encoder': ('backbone',),
    'query and pixel projections': ('decode_head.q_proj', 'decode_head.lateral_proj'),
    'two-stream decoder': ('decode_head.decoder_q', 'decode_head.decoder_v'),
    'recovery decoder (training)': ('decode_head.recovery_decoder',),
}
REST = 'region alignment, mask scores'


class Count(NamedTuple):
    """Of one part of the model, for one picture."""
    parameters: int
    trainable: int
    flops: int


def attention_flops(inputs: list, outputs: list) -> int:
    """fvcore's handler of `scaled_dot_product_attention`: q (..., Nq, d), k (..., Nk, d), v (..., Nk, e)."""
    query, key, value = (get_shape(tensor) for tensor in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


class _Window(nn.Module):
    """One window through the model in testing."""

    def __init__(self, model: CLIPRC):
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model.encode_decode(image, None)


def count(model: CLIPRC, size: tuple[int, int]) -> dict[str, Count]:
    """Counts of every part of the model for one picture of `size` (height, width) that goes through it whole.

    The model must have text embeddings; their values do not matter. The sum over the parts is the model's.
    """
    analysis = FlopCountAnalysis(_Window(model.eval()), torch.zeros(1, 3, *size))
    analysis.set_op_handle('aten::scaled_dot_product_attention', attention_flops)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings('none')
    by_module = analysis.by_module()
    counts = {}
    for part, prefixes in PARTS.items():
        parameters = [parameter for name, parameter in model.named_parameters()
                      if name.startswith(tuple(f'{prefix}.' for prefix in prefixes))]
        counts[part] = Count(sum(p.numel() for p in parameters),
                             sum(p.numel() for p in parameters if p.requires_grad),
                             int(sum(by_module[f'model.{prefix}'] for prefix in prefixes)))
    whole = Count(sum(p.numel() for p in model.parameters()),
                  sum(p.numel() for p in model.parameters() if p.requires_grad), int(analysis.total()))
    counts[REST] = Count(*(total - sum(values) for total, values in zip(whole, zip(*counts.values()), strict=True)))
    return counts
