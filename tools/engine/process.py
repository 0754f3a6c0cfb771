"""Processes and devices: who this process is, on what it runs, and which seed it has."""
import ctypes
import os
import random
import signal
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from mmcv.parallel import MMDataParallel, MMDistributedDataParallel
from mmcv.runner import init_dist
from torch import nn

from models import mmcv_compat
from models.errors import UserError
from tools.engine.arguments import add_launch_arguments, positive_int  # noqa: F401
from tools.engine.errors import AT_END, JOB_BEGAN, LAUNCHED, Stopped, plain_message, run  # noqa: F401
from tools.engine.files import lock_folder, make_folder  # noqa: F401

at_least_one = positive_int  # until every command imports it from there


class Place(NamedTuple):
    """Where this process runs and which of how many it is."""
    device: torch.device
    rank: int = 0
    world_size: int = 1
    control: dist.ProcessGroup | None = None  # of all processes, for values on the CPU; None: torch's default group

    @property
    def distributed(self) -> bool:
        return dist.is_available() and dist.is_initialized()

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == 'cuda' else 'CPU'
        return f'{self.world_size} process{"es" if self.world_size > 1 else ""} on {name}'


def end_with_launcher() -> None:
    """A killed launcher cannot end its processes any more: Linux does it."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start(args: Namespace, gpu_id: int | None = None) -> Place:
    """Joins the other processes and chooses the device.

    Args:
        gpu_id: index of the GPU asked for, or None when none was.

    Raises:
        UserError: a GPU was asked for that is not there.
    """
    if LAUNCHED and sys.platform == 'linux':
        end_with_launcher()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    gpus = torch.cuda.device_count()
    local_rank = int(os.environ['LOCAL_RANK'])
    wanted = gpu_id if gpu_id is not None else local_rank if args.launcher != 'none' else 0
    if gpus == 0 and args.device != 'cpu' and (args.device == 'cuda' or gpu_id is not None):
        raise UserError('a GPU was asked for, but PyTorch sees none. Check nvidia-smi and CUDA_VISIBLE_DEVICES, or '
                        'use --device cpu.')
    use_cuda = gpus > 0 and args.device != 'cpu'
    if use_cuda and wanted >= gpus:
        raise UserError(f'GPU {wanted} was asked for, but PyTorch sees {gpus}: one process per GPU.')
    device = torch.device('cuda', wanted) if use_cuda else torch.device('cpu')
    if use_cuda:
        torch.cuda.set_device(device)
    if args.launcher == 'none':
        return Place(device)
    if args.launcher == 'pytorch':
        if 'RANK' not in os.environ:
            raise UserError('--launcher pytorch is for processes that torchrun started: use dist_train.sh, or '
                            '`torchrun --nproc_per_node N ... --launcher pytorch`.')
        dist.init_process_group('nccl' if use_cuda else 'gloo')
    else:
        init_dist(args.launcher, backend='nccl' if use_cuda else 'gloo')
    return Place(device, dist.get_rank(), dist.get_world_size(), dist.new_group(backend='gloo') if use_cuda else None)


def wrap(model: nn.Module, place: Place, *, find_unused_parameters: bool = False) -> nn.Module:
    """The model on its device in mmcv's wrapper, which unpacks the loaders' data containers."""
    model = model.to(place.device)
    options = {'broadcast_buffers': False, 'find_unused_parameters': find_unused_parameters}
    if place.device.type == 'cpu':
        return mmcv_compat.CPUDistributedDataParallel(model, **options) if place.distributed else \
            mmcv_compat.CPUDataParallel(model)
    ids = [place.device.index]
    return MMDistributedDataParallel(model, device_ids=ids, **options) if place.distributed else \
        MMDataParallel(model, device_ids=ids)


def set_seed(seed: int, *, deterministic: bool = False) -> None:
    """Seeds Python's, numpy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if deterministic:
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def common_seed(seed: int | None, place: Place) -> int:
    """`seed`, or without one a random number that all processes share."""
    if seed is None:
        seed = int.from_bytes(os.urandom(4), 'little') >> 1
    if not place.distributed:
        return seed
    shared = torch.tensor(seed, dtype=torch.int64, device=place.device)
    dist.broadcast(shared, src=0)
    return int(shared)


def of_first(value: Any, place: Place) -> Any:
    """The first process's value, in all."""
    values = [value]
    if place.distributed:
        dist.broadcast_object_list(values, src=0, group=place.control)
    return values[0]


def restarted_job(place: Place) -> float | None:
    """When the job was launched (as `time.time`), if tools/torchrun.py has restarted it; else None.

    A machine that came back has a new launcher: any process's word counts, and the earliest launch.
    """
    told = bool(int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0))), float(os.environ.get(JOB_BEGAN, 'inf'))
    everyone = [told]
    if place.distributed:
        everyone *= place.world_size
        dist.all_gather_object(everyone, told, group=place.control)
    launched = min(when for _, when in everyone)
    return launched if any(again for again, _ in everyone) and launched < float('inf') else None


def hold(folder: Path, patience: float = 120) -> None:
    """Keep other runs out of a folder as long as this process lives.

    Args:
        patience: seconds to wait for another run, which may be one that was lost and whose lock has not yet run out.

    Raises:
        UserError: another run does not end meanwhile.
    """
    lock = lock_folder(folder, f'another run writes to {folder}: wait for its end, or name another --work-dir.',
                       patience=patience,
                       waiting=f'another run writes to {folder}: waiting {patience:.0f} s for its end')
    AT_END.append(lock.close)
