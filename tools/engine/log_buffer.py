"""Logged values stay on their device until they are logged."""
import torch
import torch.distributed as dist
from mmcv.runner import LogBuffer
from torch import Tensor

from models.precision import upcast
from tools.engine.process import Place

LIMIT = 10_000  # values that wait on the device if nothing is ever logged


class DeviceLogBuffer(LogBuffer):
    """mmcv's buffer for losses that are tensors without dimensions, on the device of the model.

    When loggers ask for averages, all tensors since the last time are averaged over processes and moved to the host
    together: one all-reduce and one transfer. So all processes must call `update` and `average` alike.
    """

    def __init__(self, place: Place):
        super().__init__()
        self.place, self.waiting = place, []  # lists of the history, and the indices of tensors in them

    def update(self, vars: dict, count: int = 1) -> None:
        super().update(vars, count)
        self.waiting += [(history, len(history) - 1) for name in vars
                         if isinstance((history := self.val_history[name])[-1], Tensor)]
        if len(self.waiting) >= LIMIT:
            self.fetch()

    def clear(self) -> None:
        super().clear()
        self.waiting.clear()

    def average(self, n: int = 0) -> None:
        self.fetch()
        super().average(n)

    def fetch(self) -> None:
        """Replace the waiting tensors by numbers.

        Raises:
            RuntimeError: processes have logged different numbers of values.
        """
        if not self.waiting:
            return
        values = upcast(torch.stack([history[index] for history, index in self.waiting]))
        if self.place.distributed:
            most = torch.tensor([len(values), -len(values)])
            dist.all_reduce(most, dist.ReduceOp.MAX, group=self.place.control)
            if most.sum():
                raise RuntimeError(f'a process logs {len(values)} losses, another one {-most.min()} to {most.max()}')
            dist.all_reduce(values.div_(self.place.world_size))
        for (history, index), value in zip(self.waiting, values.tolist(), strict=True):
            history[index] = value
        self.waiting.clear()
