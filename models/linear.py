"""Linear layers by the faster of PyTorch's two libraries for a CPU.

PyTorch gives float32 products to MKL, which on a processor that is not Intel's leaves its AVX-512 units idle. oneDNN,
which it has too, uses them: measured on two AMD cores, 15 % faster forward and 20 % backward to the input.
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_onednn = getattr(torch.ops.mkldnn, '_linear_pointwise', None) if torch.backends.mkldnn.is_available() else None
FASTER = _onednn is not None and torch.backends.cpu.get_cpu_capability() == 'AVX512'


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: (..., in), (out, in), (out,) -> (..., out)."""
    # oneDNN is slow, not fast, with a part of a larger weight; counters and compilers know F.linear alone
    fits = x.device.type == 'cpu' and x.dtype == weight.dtype == torch.float32 and weight.is_contiguous()
    watched = torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.is_autocast_enabled('cpu')
    if FASTER and fits and not watched:
        return OneDNNLinear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class OneDNNLinear(torch.autograd.Function):
    """Output and gradient to the input by oneDNN."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return _onednn(x.contiguous(), weight, bias, 'none', [], '')

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows = d_out.flatten(0, -2)
        return (_onednn(d_out.contiguous(), weight.T, None, 'none', [], '') if for_x else None,
                rows.T @ x.flatten(0, -2) if for_weight else None,
                rows.sum(dim=0) if for_bias else None)
