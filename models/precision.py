"""What a pass through the network costs and keeps: short number formats for products, activation checkpointing."""
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CPUINFO = Path('/proc/cpuinfo')


def supported(dtype: torch.dtype | None, device: torch.device) -> torch.dtype | None:
    """`dtype`; float16 instead of bfloat16 on a GPU that has none. Training in float16 needs its losses scaled."""
    lacks_it = device.type == 'cuda' and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if lacks_it and dtype is torch.bfloat16 else dtype


def short_products(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """Linear layers, convolutions and attention in `dtype`; None leaves everything as it is."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=supported(dtype, device))


def cpu_has_bfloat16() -> bool:
    """Whether this processor has instructions for products in bfloat16. Without them they are slow."""
    flags = CPUINFO.read_text() if CPUINFO.exists() else ''
    return not {'avx512_bf16', 'amx_bf16', 'bf16'}.isdisjoint(flags.split())


def full_products(device: torch.device) -> AbstractContextManager:
    """Products in the type of their operands, also inside of `short_products`."""
    in_short = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if in_short else nullcontext()


def checkpointed(module: nn.Module, *inputs: Tensor) -> Tensor:
    """The module's output; what it computed on the way is forgotten, and computed again for the backward pass."""
    return checkpoint(module, *inputs, use_reentrant=False)


def widened(x: Tensor) -> Tensor:
    """x in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
