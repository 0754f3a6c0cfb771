"""Number formats of the products (autocast, TF32), determinism, and activation checkpointing."""
import os
import timeit
import warnings
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


def set_tf32(allowed: bool) -> None:
    """Choose whether NVIDIA GPUs, from Ampere on, round the factors of float32 products to TF32, for this process.

    That is 10 bits of mantissa instead of 23, in matrix products and in convolutions. PyTorch's own default is TF32 for
    convolutions only; until 1.11 it was TF32 for both.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch 2.9: these names will go. With the new ones its own compiler fails.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def use_deterministic_algorithms() -> None:
    """Let this process compute the same numbers each time; an operator that cannot is an error.

    Call it before anything is computed on a GPU, because cuBLAS reads its setting then.
    """
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it is never read here, and filling it takes time
    torch.backends.cudnn.benchmark = False  # it chooses algorithms by their time


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
