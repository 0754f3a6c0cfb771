"""Measures time and memory, and describes the machine."""
import ctypes
import gc
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from models.precision import cpu_has
from tools.engine.process import Place

Job = Callable[[], object]


def seconds(job: Job, device: torch.device) -> float:
    """Time one run, including the device's work."""
    wait = torch.cuda.synchronize if device.type == 'cuda' else lambda device: None
    wait(device)
    started = time.perf_counter()
    job()
    wait(device)
    return time.perf_counter() - started


def measure(jobs: dict[str, Job], yardstick: Job, repeats: int, device: torch.device
            ) -> tuple[dict[str, dict], list[float]]:
    """Time all jobs in turn; give the median and the spread of each, and all times of the yardstick.

    Each job, warmed up before by `peak_memory`, is timed between two runs of the yardstick, so that a machine that
    becomes slower or faster shifts both. Times are in seconds, and ratios of the mean of these two.
    """
    yardstick()
    times = {name: {'seconds': [], 'ratio': []} for name in jobs}
    all_yardsticks = []
    for name in tqdm([*jobs] * repeats, unit='measurement', disable=None):
        before, took, after = (seconds(each, device) for each in (yardstick, jobs[name], yardstick))
        times[name]['seconds'].append(took)
        times[name]['ratio'].append(2 * took / (before + after))
        all_yardsticks += [before, after]
    return {name: {key: statistics.median(values) for key, values in taken.items()} |
            {f'{key}_spread': [min(values), max(values)] for key, values in taken.items()}
            for name, taken in times.items()}, all_yardsticks


def peak_memory(job: Job, device: torch.device) -> int | None:
    """Measure the peak memory of one run in bytes: on a GPU PyTorch's share, else that of the whole process.

    None where the system does not provide it.
    """
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        job()
        return torch.cuda.max_memory_allocated(device)
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path('/proc/self/clear_refs').write_text('5')  # the peak is counted from here
        job()
        status = Path('/proc/self/status').read_text()
    except (OSError, AttributeError):
        return None
    return 1024 * int(status.split('VmHWM:')[1].split()[0])


@torch.no_grad()
def matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int = 5) -> float:
    """Measure the multiply-adds per second of a large matrix product, the best of several runs."""
    side = 8192 if device.type == 'cuda' else 2048 if cpu_has(dtype) else 256  # emulated, 2048 take a minute
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return side**3 / min(seconds(lambda: a @ b, device) for _ in range(repeats + 1))


def machine(place: Place) -> dict[str, str | int | bool]:
    """Describe the machine and its software."""
    return {'name': f'{place.device.type.upper()}: {_name(place.device)}', 'threads': torch.get_num_threads(),
            'cpu_capability': torch.backends.cpu.get_cpu_capability(), 'cpu_has_bfloat16': cpu_has(torch.bfloat16),
            'torch': torch.__version__, 'python': platform.python_version()}


def _name(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    info = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').exists() else ''
    models = [line.split(':', 1)[1].strip() for line in info.splitlines() if line.startswith('model name')]
    return models[0] if models else platform.machine()
