"""What every script starts with: the device, the processes, the seed, and errors a user can act on."""
import errno
import fcntl
import os
import random
import re
import signal
import sys
import time
import traceback
import warnings
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mmcv
import numpy as np
import torch
import torch.distributed as dist
from mmcv.parallel import MMDataParallel, MMDistributedDataParallel
from mmcv.runner import init_dist
from torch import nn

import tools
from models import mmcv_compat, plugins
from models.errors import UserError
from models.weights.files import CONTROL
from tools.engine.progress import Progress


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


class Stopped(KeyboardInterrupt):
    """The process was asked to end by a signal, and has left things in order."""

    def __init__(self, asked: signal.Signals):
        super().__init__(asked.name)
        self.signal = asked


AT_END: list[Callable[[], None]] = []  # what `run` does when a script has ended, the last one first


def run(main: Callable[[], None]) -> None:
    """Runs a script's `main`: what a user can fix becomes one `error:` line and exit status 1.

    Set CLIPRC_TRACEBACK=1 to see where it came from. Of modules of the user's own the line is said anyway.
    """
    sys.stdout.reconfigure(errors='backslashreplace')  # file names need not be UTF-8; stderr does so by itself
    warnings.filterwarnings('ignore', module='mmcv')
    warnings.filterwarnings('ignore', message='.*pkg_resources.*')
    try:
        main()
    except Exception as error:
        lost = dist.is_available() and dist.is_initialized() and LOST.search(str(error))
        if not lost and not isinstance(error, (UserError, OSError)) and not plugins.where(error):
            raise  # ours to fix
        Progress.end_line()
        if os.environ.get('CLIPRC_TRACEBACK'):
            traceback.print_exc()
        if lost:
            sys.stderr.write(f'process {dist.get_rank()} ends, as another one has ended.\n')
            sys.exit(os.EX_TEMPFAIL)  # it has no error of its own
        if os.environ.get('RANK', '0') != '0':
            time.sleep(3)  # the first process most likely says the same; its launcher then ends this one
        kind = '' if isinstance(error, (UserError, OSError)) else f'{type(error).__name__}: '
        sys.exit(f'error: {kind}{plain_message(error)}{plugins.where(error)}')
    except KeyboardInterrupt as stop:
        Progress.end_line()
        tools.say_stopped()
        sys.exit(128 + getattr(stop, 'signal', signal.SIGINT))
    finally:
        while AT_END:
            AT_END.pop()()
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


LOST = re.compile(r'Connection (closed|reset) by peer|remote process exited|NCCL communicator was aborted')


def plain_message(error: Exception) -> str:
    """The message without what loader workers and mmcv's registries put around it; a remedy for a full disk.

    Control characters, which the texts of a file may have, do not reach the terminal.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = 'the disk is full' if error.errno == errno.ENOSPC else 'your share of the disk is used up'
        return f'{what}{f" ({error.filename})" if error.filename else ""}. Make room and run this '\
               'again; a training goes on with --auto-resume.'
    message = CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(error))
    if 'Original Traceback' in message:  # raised in a loader worker
        message = re.split(r'\n(?:(?:models|datasets|tools)\.[\w.]+|\w*Error): ', message)[-1].strip()
    return re.sub(r'^(\w+: )+(?=[^\n])', '', message) if re.match(r'^[A-Z]\w+: ', message) else message


def add_launch_arguments(parser: ArgumentParser) -> None:
    """The arguments that `start` reads."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='who started the processes; dist_train.sh says pytorch')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by older launchers')
    parser.add_argument('--device', choices=['auto', 'cuda', 'cpu'], default='auto',
                        help='auto: a GPU where there is one, else the CPU')


def at_least_one(text: str) -> int:
    """The `type` of a command line's count."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f'{text!r} is no whole number from 1 up')
    return int(text)


def start(args: Namespace, gpu_id: int | None = None) -> Place:
    """Joins the other processes and chooses the device.

    Args:
        gpu_id: index of the GPU asked for, or None when none was.

    Raises:
        UserError: a GPU was asked for that is not there.
    """
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
    told = bool(int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0))), float(os.environ.get(tools.JOB_BEGAN, 'inf'))
    everyone = [told]
    if place.distributed:
        everyone *= place.world_size
        dist.all_gather_object(everyone, told, group=place.control)
    launched = min(when for _, when in everyone)
    return launched if any(again for again, _ in everyone) and launched < float('inf') else None


def hold(folder: Path, patience: float = 120) -> None:
    """Keeps other runs out of a folder as long as this process lives.

    Args:
        patience: seconds to wait for another run, which may be one that was lost and whose hold has not yet run out.

    Raises:
        UserError: another run does not end meanwhile.
    """
    file = (folder / '.run').open('a')  # which is not closed before the end
    AT_END.append(file.close)
    end, told = time.monotonic() + patience, False
    while True:
        try:
            return fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # loader workers do not inherit it
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):  # a file system that knows no such thing
                return None
        if time.monotonic() > end:
            raise UserError(f'another run writes to {folder}: wait for its end, or name another --work-dir.')
        if not told:
            told = True
            sys.stderr.write(f'another run writes to {folder}: waiting {patience:.0f} s for its end\n')
        time.sleep(1)


def make_folder(path: str | Path) -> Path:
    """Makes a folder that can be written.

    Raises:
        UserError: it can't be.
    """
    path = Path(path)
    try:
        mmcv.mkdir_or_exist(str(path))
        probe = path / f'.write-{os.getpid()}'
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = 'it is a file' if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f'cannot write to the folder {path}: {reason}. Name another one.') from error
    return path
