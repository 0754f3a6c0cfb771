"""Number formats of the products (autocast), and activation checkpointing."""
import timeit
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def supported(dtype: torch.dtype | None, device: torch.device) -> torch.dtype | None:
    """Give `dtype`, or float16 for bfloat16 on a GPU without it. Training in float16 needs loss scaling."""
    unsupported = device.type == 'cuda' and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if unsupported and dtype is torch.bfloat16 else dtype


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """Compute linear layers, convolutions and attention in `dtype`; None changes nothing."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=supported(dtype, device))


@cache
def cpu_has(dtype: torch.dtype) -> bool:
    """Tell whether this CPU has instructions for products in `dtype`; without them they are emulated.

    Emulated products take 30 times as long as products in float32. They are timed here, because the processor's flags
    do not show which of them PyTorch uses: `ONEDNN_MAX_CPU_ISA` limits it, and not every system lists flags.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads would wait for each other on a busy machine
    try:
        seconds = [min(timeit.repeat(partial(torch.matmul, matrix, matrix), number=1, repeat=10))
                   for matrix in (torch.ones(256, 256), torch.ones(256, 256, dtype=dtype))]
    finally:
        torch.set_num_threads(threads)
    return seconds[1] < 8 * seconds[0]


def autocasts(device: torch.device) -> bool:
    """Tell whether `autocast` is on; there is none for meta tensors."""
    return device.type != 'meta' and torch.is_autocast_enabled(device.type)


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Compute products in the type of their operands, also inside `autocast`."""
    return torch.autocast(device.type, enabled=False) if autocasts(device) else nullcontext()


def product_dtype(x: Tensor) -> torch.dtype:
    """Give the type in which linear layers and attention compute: that of `autocast`, or that of x."""
    return torch.get_autocast_dtype(x.device.type) if autocasts(x.device) else x.dtype


def checkpointed(module: nn.Module, *inputs: Tensor) -> Tensor:
    """Run the module with activation checkpointing: the backward pass computes its activations again."""
    return checkpoint(module, *inputs, use_reentrant=False)


def upcast(x: Tensor) -> Tensor:
    """Convert x to float32, unless its type is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
