"""How a command ends: an error that a user can fix is one line, Ctrl-C is not an error, a bug shows its trace."""
import errno
import importlib.util
import logging
import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import ExitStack

LAUNCHED = 'TORCHELASTIC_RUN_ID' in os.environ  # by torchrun
AT_END = ExitStack()  # closed by `run` when a command ends
LOST = re.compile(r'Connection (closed|reset) by peer|remote process exited|NCCL communicator was aborted')
WORKER_DIED = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (is killed by signal: [^.]+|[^.]+)')
REMEDIES = {
    'Killed': 'Most likely the machine or the job ran out of memory (see dmesg). Use fewer workers, --cfg-options '
              'data.workers_per_gpu=N, or ask for more memory.',
    'Bus error': 'Most likely /dev/shm is full (df -h /dev/shm; in Docker --shm-size=8g enlarges it). Use fewer '
                 'workers, --cfg-options data.workers_per_gpu=N; 0 needs no /dev/shm.',
    '': 'The machine or the job may have run out of memory (see dmesg). With --cfg-options data.workers_per_gpu=0 the '
        'images are loaded in the main process, which shows the cause.',
}
GPU_IS_FULL = ('Less memory takes --cfg-options amp.dtype=bfloat16; in training also model.backbone.with_cp=True '
               'model.decode_head.with_cp=True, or data.samples_per_gpu=N with --total-batch-size; in tests '
               'model.test_cfg.windows_per_batch=N.')


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end, and it has left things in order."""

    def __init__(self, asked: signal.Signals):
        super().__init__(asked.name)
        self.signal = asked


def run(main: Callable[[], None]) -> None:
    """Run a command's `main`; an error that a user can fix becomes one `error:` line and exit status 1.

    Import torch and mmcv inside `main`, so that `--help` is quick and Ctrl-C during imports shows no trace. Set
    CLIPRC_TRACEBACK=1 to see where an error came from. Under torchrun the trace of any other exception is also part
    of torchrun's summary.
    """
    if importlib.util.find_spec('mmcv') is None:
        sys.exit('error: this Python has no environment for CLIP-RC. Make and use it:\n'
                 '    bash tools/setup_env.sh && source .venv/bin/activate')
    sys.stdout.reconfigure(errors='backslashreplace')  # file names need not be UTF-8; stderr does so by itself
    warnings.filterwarnings('ignore', module='mmcv')
    warnings.filterwarnings('ignore', message='.*pkg_resources.*')
    warnings.filterwarnings('ignore', message='`torch.jit.script` is deprecated')  # fvcore calls it
    logging.getLogger('torch.utils.cpp_extension').setLevel(logging.ERROR)  # mmcv asks for a CUDA compiler
    if LAUNCHED:
        from torch.distributed.elastic.multiprocessing.errors import record
        record(_run)(main)
    else:
        _run(main)


def _run(main: Callable[[], None]) -> None:
    try:
        try:
            main()
        except (ConnectionError, EOFError):  # of a dead loader worker: its signal comes next, and raises a clear error
            time.sleep(1)
            raise
    except Exception as error:
        from models import plugins
        from models.errors import UserError
        lost = distributed() and LOST.search(str(error))
        ours = not (isinstance(error, (UserError, OSError)) or gpu_is_full(error) or WORKER_DIED.search(str(error)))
        if not lost and ours and not plugins.where(error):
            raise
        if os.environ.get('CLIPRC_TRACEBACK'):
            traceback.print_exc()
        if lost:
            sys.stderr.write(f'process {os.environ.get("RANK", 0)} ends because another one has ended.\n')
            sys.exit(1)
        if os.environ.get('RANK', '0') != '0':
            time.sleep(3)  # the first process most likely prints the same error; its launcher then ends this one
        kind = f'{type(error).__name__}: ' if ours else ''
        sys.exit(f'error: {kind}{plain_message(error)}{plugins.where(error)}')
    except KeyboardInterrupt as stop:
        if os.environ.get('RANK', '0') == '0':
            sys.stderr.write('stopped.\n')
        sys.exit(128 + getattr(stop, 'signal', signal.SIGINT))
    finally:
        AT_END.close()
        if distributed():
            leave(sys.exc_info()[1])


def gpu_is_full(error: Exception) -> bool:
    """Tell whether there was not enough memory on a GPU."""
    torch = sys.modules.get('torch')
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def distributed() -> bool:
    """Tell whether this process has joined others."""
    dist = sys.modules.get('torch.distributed')
    return dist is not None and dist.is_available() and dist.is_initialized()


def leave(error: BaseException | None) -> None:
    """Leave the other processes at the end of `main`, with the error that ended it.

    NCCL's end is collective: after an error of this process alone it would wait for the others, which wait for this
    one, and the error would never be shown. So NCCL is left as it is then: the end of the process is its end, too.
    """
    dist = sys.modules['torch.distributed']
    together = error is None or isinstance(error.__context__, Stopped)
    if together or dist.get_backend() != 'nccl':
        dist.destroy_process_group()


def plain_message(error: Exception) -> str:
    """Return the message without the prefixes of loader workers and mmcv's registries, and with a remedy where known.

    Control characters, which texts from a file may contain, do not reach the terminal.
    """
    from models.weights.checks import CONTROL
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = 'the disk is full' if error.errno == errno.ENOSPC else 'your disk quota is used up'
        return f'{reason}{f" ({error.filename})" if error.filename else ""}. Make room and run this '\
               'again; a training continues with --auto-resume.'
    if gpu_is_full(error):
        return f'{str(error).split(" If reserved but")[0]} {GPU_IS_FULL}'
    message = CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(error))
    if died := WORKER_DIED.search(message):
        killer = died[2].removeprefix('is killed by signal: ')
        return f'loader worker (process {died[1]}) {died[2].strip()}. {REMEDIES.get(killer, REMEDIES[""])}'
    if 'Original Traceback' in message:  # raised in a loader worker
        message = re.split(r'\n(?:(?:models|datasets|tools)\.[\w.]+|\w*Error): ', message)[-1].strip()
    return re.sub(r'^(\w+: )+(?=[^\n])', '', message) if re.match(r'^[A-Z]\w+: ', message) else message
