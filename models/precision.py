"""What a pass through the network costs and keeps: short number formats for products, activation checkpointing."""
import timeit
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def supported(dtype: torch.dtype | None, device: torch.device) -> torch.dtype | None:
    """`dtype`; float16 instead of bfloat16 on a GPU that has none. Training in float16 needs its losses scaled."""
    lacks_it = device.type == 'cuda' and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if lacks_it and dtype is torch.bfloat16 else dtype


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """Linear layers, convolutions and attention in `dtype`; None leaves everything as it is."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=supported(dtype, device))


@cache
def cpu_has(dtype: torch.dtype) -> bool:
    """Tell whether this CPU has instructions for products in `dtype`; without them they are emulated.

    Emulated products take 30 times as long as products in float32. They are timed here, because the flags of the
    processor do not tell what PyTorch makes of them: `ONEDNN_MAX_CPU_ISA` limits it, and other systems list no flags.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other where other processes are busy
    try:
        seconds = [min(timeit.repeat(partial(torch.matmul, matrix, matrix), number=1, repeat=10))
                   for matrix in (torch.ones(256, 256), torch.ones(256, 256, dtype=dtype))]
    finally:
        torch.set_num_threads(threads)
    return seconds[1] < 8 * seconds[0]


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Products in the type of their operands, also inside of `autocast`."""
    in_short = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if in_short else nullcontext()


def checkpointed(module: nn.Module, *inputs: Tensor) -> Tensor:
    """The module's output; what it computed on the way is forgotten, and computed again for the backward pass."""
    return checkpoint(module, *inputs, use_reentrant=False)


def upcast(x: Tensor) -> Tensor:
    """x in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
