"""Repairs of mmcv 1.7.2 for torch 2, each with the version that it serves. `apply` makes them."""
from typing import IO, Any

import mmcv.parallel._functions as scattering
import mmcv.runner.checkpoint as saving
import mmcv.utils.config as configs
import torch
from mmcv.parallel import DataContainer, MMDataParallel, MMDistributedDataParallel
from torch import Tensor, nn


def get_stream(device: int | torch.device) -> torch.Stream | None:
    """torch >= 2.1: `_get_stream` takes a `torch.device`; mmcv calls it with the index of a GPU."""
    from torch.nn.parallel._functions import _get_stream  # needed on a GPU alone
    return _get_stream(torch.device('cuda', device) if isinstance(device, int) else device)


class CPUDataParallel(MMDataParallel):
    """torch's `DataParallel` takes a GPU whenever it sees one; this stays on the CPU and unpacks data containers."""

    def __init__(self, module: nn.Module):
        nn.Module.__init__(self)
        self.module = module
        self.device_ids = []  # for mmcv: there is no GPU
        self.dim = 0


class CPUDistributedDataParallel(MMDistributedDataParallel):
    """mmcv 1.7.2 unpacks the loaders' data containers for GPUs only; without one they are unpacked here."""

    def train_step(self, *inputs, **kwargs):
        inputs, kwargs = self.scatter(inputs, kwargs, [-1])
        return super().train_step(*inputs[0], **kwargs[0])

    def _run_ddp_forward(self, *inputs, **kwargs):
        inputs, kwargs = self.scatter(inputs, kwargs, [-1])
        return super()._run_ddp_forward(*inputs[0], **kwargs[0])


def pin_memory(container: DataContainer) -> DataContainer:
    """torch >= 0.4: loaders pin objects that have a `pin_memory`; mmcv's containers do not, and copies would wait."""
    if container.cpu_only:
        return container
    return DataContainer(_pinned(container.data), container.stack, container.padding_value, container.cpu_only,
                         container.pad_dims)


def _pinned(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_pinned(item) for item in value]
    return value.pin_memory() if isinstance(value, Tensor) else value


def open_config(file: str, mode: str = 'r', encoding: str = 'utf-8') -> IO[str]:
    """mmcv 1.7.2 cannot read configs with the byte-order mark that editors on Windows write."""
    return open(file, mode, encoding='utf-8-sig' if mode == 'r' else encoding)


def apply() -> None:
    """Make the repairs; calling it again does no harm."""
    scattering._get_stream = get_stream
    configs.open = open_config
    DataContainer.pin_memory = pin_memory
    # torch >= 1.5: mmcv's own copy of this method also saves the buffers that are declared non-persistent.
    saving._save_to_state_dict = nn.Module._save_to_state_dict
    # torch >= 2.1 has no replicated tensors any more; mmcv's distributed forward still asks whether to use them.
    MMDistributedDataParallel._use_replicated_tensor_module = False
