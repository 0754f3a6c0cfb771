"""Logged values stay on their device until they are logged."""
import torch
import torch.distributed as dist
from mmcv.runner import LogBuffer
from torch import Tensor

from models.precision import upcast
from tools.engine.process import Place


class DeviceLogBuffer(LogBuffer):
    """mmcv's buffer for losses that are tensors without dimensions, on the device of the model.

    When a logger asks for averages, the tensors since the last time are averaged over processes and moved to the host
    together: one all-reduce and one transfer. All processes must log the same.

    Attributes:
        kept: the number of the latest values of each name that are kept: as many as a logger averages.
    """

    def __init__(self, place: Place):
        super().__init__()
        self.place, self.kept = place, 1

    def update(self, vars: dict, count: int = 1) -> None:
        super().update(vars, count)
        for history in (*(self.val_history[name] for name in vars), *(self.n_history[name] for name in vars)):
            del history[:-self.kept]

    def average(self, n: int = 0) -> None:
        """Average the latest `n` values of each name, or all.

        Raises:
            RuntimeError: processes have logged different numbers of losses.
        """
        waiting = [(history, index) for history in self.val_history.values()
                   for index in range(-min(n or len(history), len(history)), 0) if isinstance(history[index], Tensor)]
        if waiting:
            values = upcast(torch.stack([history[index] for history, index in waiting]))
            if self.place.distributed:
                counts = torch.tensor([len(values), -len(values)])
                dist.all_reduce(counts, dist.ReduceOp.MAX, group=self.place.control)
                if counts.sum():
                    raise RuntimeError(f'a process logs {len(values)} losses, others {-counts[1]} to {counts[0]}')
                dist.all_reduce(values.div_(self.place.world_size))
            for (history, index), value in zip(waiting, values.tolist(), strict=True):
                history[index] = value
        super().average(n)
