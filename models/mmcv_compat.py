"""What mmcv 1.7.2 lacks to run on torch 2, and for our checkpoints, each repair with what it serves. `apply` makes all.

Three more traps of mmcv 1.7.2 and mmseg 0.30.0 are not repaired but not met, because the calls that have them are
not used: `build_ddp` refuses a CPU, `train_segmentor` needs `cfg.device`, and mmseg's loader asks for persistent
workers even where there are none.
"""
import builtins
import io
import os
from pathlib import Path
from urllib.parse import urlparse

import mmcv.parallel._functions as scattering
import mmcv.runner.checkpoint as saving
import mmcv.utils.config as configs
import torch
from mmcv.parallel import DataContainer, MMDataParallel, MMDistributedDataParallel
from torch import nn
from torch.hub import download_url_to_file, get_dir
from torch.nn.parallel._functions import _get_stream as torch_get_stream
from torch.utils.data._utils.pin_memory import pin_memory as pin

from .colours import palette
from .text_files import read_text
from .weights import files


def get_stream(device: int | torch.device) -> torch.Stream | None:
    """torch >= 2.1: `_get_stream` takes a `torch.device`; mmcv calls it with the index of a GPU."""
    return torch_get_stream(torch.device('cuda', device) if isinstance(device, int) else device)


class CPUDataParallel(MMDataParallel):
    """torch's `DataParallel` takes a GPU whenever it sees one; this stays on the CPU and unpacks data containers."""

    def __init__(self, module: nn.Module):
        nn.Module.__init__(self)
        self.module = module
        self.device_ids = []  # how mmcv knows that there is no GPU
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
    """torch >= 0.4: its loaders pin what says how; mmcv's containers do not, so that copies to the GPU would wait."""
    if container.cpu_only:
        return container
    return DataContainer(pin(container.data), container.stack, container.padding_value, container.cpu_only,
                         container.pad_dims)


def save_to_state_dict(module: nn.Module, destination: dict, prefix: str, keep_vars: bool) -> None:
    """torch >= 1.5: mmcv's own copy of this torch method also saves the buffers that are declared non-persistent."""
    module._save_to_state_dict(destination, prefix, keep_vars)


def load_from_local(filename: str, map_location: str | None = None) -> dict:
    """mmcv's reading of a local checkpoint, by ours, which runs nothing.

    Tensors are on the CPU, whatever `map_location` says: models and optimizers take them to where they are.
    """
    content = files.read_content(os.path.expanduser(filename))
    meta = content['meta']
    if meta.get('CLASSES'):
        meta.setdefault('PALETTE', palette(len(meta['CLASSES'])))
    else:
        meta |= {'CLASSES': None, 'PALETTE': None}  # which mmseg's `init_segmentor` takes, whatever the file
    return content


def load_url(url: str, model_dir: str | None = None, map_location: str | None = None) -> dict:
    """Download a checkpoint to where torch keeps them, if it is not there, and read it as a local one.

    mmcv's `https://`, `open-mmlab://` and the like come here. torch's own reading knows no safetensors, and without
    `weights_only` runs what the file asks for.

    Raises:
        OSError: it cannot be downloaded.
        UserError: as `load_from_local`.
    """
    file = Path(model_dir or Path(get_dir(), 'checkpoints'), Path(urlparse(url).path).name)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(url, str(file), progress=False)
    return load_from_local(str(file), map_location)


def open_config(file: str, mode: str = 'r', **options):
    """mmcv takes a config for UTF-8 without a byte-order mark; this reads what editors on Windows write, too."""
    return io.StringIO(read_text(file)) if mode == 'r' else builtins.open(file, mode, **options)


def apply() -> None:
    """Makes the repairs; more than once does no harm."""
    scattering._get_stream = get_stream
    saving.load_url = load_url
    configs.open = open_config
    saving.CheckpointLoader.register_scheme('', load_from_local, force=True)
    DataContainer.pin_memory = pin_memory
    saving._save_to_state_dict = save_to_state_dict
    # torch >= 2.1 has no replicated tensors any more; mmcv's distributed forward still asks whether to use them.
    MMDistributedDataParallel._use_replicated_tensor_module = False
    # mmcv puts a function into every module of torch that has a `_check_balance`. `torch.ops` makes a namespace of any
    # name that is asked for, and torch 2.6 walks through these when it compiles or exports.
    vars(torch.ops).pop('_check_balance', None)
