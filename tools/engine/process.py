"""Processes and devices: rank and device of this process, and values that processes share."""
import ctypes
import os
import signal
import subprocess
import sys
from argparse import Namespace
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from mmcv.parallel import MMDataParallel, MMDistributedDataParallel
from torch import nn

from models import mmcv_compat
from models.errors import UserError
from tools.engine.errors import LAUNCHED

JOB_BEGAN = 'CLIPRC_JOB_BEGAN'  # environment variable of dist_train.sh: the start of the job, in seconds as `time.time`
# Variables of launchers: rank of a process, number of processes, and rank on its machine.
RANKS = {'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
         'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK')}


class Place(NamedTuple):
    """The device of this process, and its rank among all processes."""
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


def end_with_parent() -> None:
    """Let Linux kill this process when its parent has ended, for example by SIGKILL."""
    PR_SET_PDEATHSIG = 1
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def join_job(launcher: str, gpus: int) -> None:
    """Set the variables that torchrun sets, from those of srun or of Open MPI's mpirun.

    Raises:
        UserError: the process was not started by this launcher, or MASTER_ADDR is missing.
    """
    if missing := [name for name in RANKS[launcher] if name not in os.environ]:
        raise UserError(f'--launcher {launcher}: {missing[0]} is missing. Start the processes with '
                        f'{"srun" if launcher == "slurm" else "mpirun of Open MPI"}, or use dist_train.sh.')
    rank, size, local_rank = (os.environ[name] for name in RANKS[launcher])
    if launcher == 'slurm':
        local_rank = str(int(local_rank) % max(gpus, 1))  # srun may show each process its own GPU only
        if 'MASTER_ADDR' not in os.environ:
            hosts = subprocess.check_output(['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']], text=True)
            os.environ['MASTER_ADDR'] = hosts.split()[0]
    if 'MASTER_ADDR' not in os.environ:
        raise UserError(f'--launcher {launcher} needs MASTER_ADDR: the host of the first process.')
    os.environ.update(RANK=rank, WORLD_SIZE=size, LOCAL_RANK=local_rank)
    os.environ.setdefault('MASTER_PORT', '29500')


def start(args: Namespace, *, timeout: timedelta | None = None) -> Place:
    """Join the other processes and choose the device, by the arguments of `arguments.add_launch_arguments`.

    Args:
        timeout: of collective operations; None is torch's own.

    Raises:
        UserError: there is no such GPU, or the process was not started by the launcher.
    """
    if LAUNCHED:
        end_with_parent()
    gpus = torch.cuda.device_count()
    if args.launcher in RANKS:
        join_job(args.launcher, gpus)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    local_rank = int(os.environ['LOCAL_RANK'])
    wanted = args.gpu_id if args.gpu_id is not None else local_rank if args.launcher != 'none' else 0
    if gpus == 0 and args.device != 'cpu' and (args.device == 'cuda' or args.gpu_id is not None):
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
    if 'RANK' not in os.environ:
        raise UserError('--launcher pytorch is for processes that torchrun started: use dist_train.sh, or '
                        '`torchrun --nproc_per_node N ... --launcher pytorch`.')
    dist.init_process_group('nccl' if use_cuda else 'gloo', timeout=timeout, device_id=device if use_cuda else None)
    control = dist.new_group(backend='gloo', timeout=timeout) if use_cuda else None
    return Place(device, dist.get_rank(), dist.get_world_size(), control)


def wrap(model: nn.Module, place: Place, *, find_unused_parameters: bool = False) -> nn.Module:
    """Move the model to its device and into mmcv's wrapper, which unpacks the loaders' data containers."""
    model = model.to(place.device)
    options = {'broadcast_buffers': False, 'find_unused_parameters': find_unused_parameters}
    if place.device.type == 'cpu':
        return mmcv_compat.CPUDistributedDataParallel(model, **options) if place.distributed else \
            mmcv_compat.CPUDataParallel(model)
    ids = [place.device.index]
    return MMDistributedDataParallel(model, device_ids=ids, **options) if place.distributed else \
        MMDataParallel(model, device_ids=ids)


def gather(value: Any, place: Place) -> list | None:
    """Collect the values of all processes, by rank, on the first process; None on the others. All must call it."""
    if not place.distributed:
        return [value]
    values = [None] * place.world_size if place.rank == 0 else None
    dist.gather_object(value, values, group=place.control)
    return values


def of_first(value: Any, place: Place) -> Any:
    """Return the first process's value in every process."""
    values = [value]
    if place.distributed:
        dist.broadcast_object_list(values, src=0, group=place.control)
    return values[0]


def restarted_job(place: Place) -> float | None:
    """Return the start of the job (as `time.time`) on the first process if torchrun has restarted the job; else None.

    A replaced machine has a new launcher, so one process that knows of a restart is enough; the earliest start counts.
    """
    restarts, starts = int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)), float(os.environ.get(JOB_BEGAN, 'inf'))
    restarted, began = zip(*gather((restarts > 0, starts), place) or [(False, starts)])
    return min(began) if any(restarted) and min(began) < float('inf') else None
