"""Which number format the products are in: autocast to a short one where wanted, and out of it where digits count."""
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def short_products(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """Linear layers, convolutions and attention in `dtype`; None leaves everything as it is."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def full_products(device: torch.device) -> AbstractContextManager:
    """Products in the type of their operands, also inside of `short_products`."""
    in_short = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if in_short else nullcontext()


def widened(x: Tensor) -> Tensor:
    """x in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
