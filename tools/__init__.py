"""The scripts and what they share. Importing this quietens notices of mmcv and torch that users can't fix."""
import ctypes
import importlib.util
import logging
import os
import signal
import sys
import warnings
from types import TracebackType

if importlib.util.find_spec('mmcv') is None:
    raise SystemExit('error: this Python has no environment for CLIP-RC. Make and use it:\n'
                     '    bash tools/setup_env.sh && source .venv/bin/activate')
LAUNCHED = 'TORCHELASTIC_RUN_ID' in os.environ  # by torchrun
JOB_BEGAN = 'CLIPRC_JOB_BEGAN'  # in the environment of launched processes: when, in seconds as `time.time`


def say_stopped(kind: type[BaseException] = KeyboardInterrupt, error: BaseException | None = None,
                trace: TracebackType | None = None) -> None:
    """Ctrl-C is no error and needs no trace, not even in the midst of imports. Of several processes the launcher says
    it; of other exceptions it learns, by torch's own way, that the process did not end itself."""
    if issubclass(kind, KeyboardInterrupt):
        if not LAUNCHED:
            sys.stderr.write('stopped.\n')
        return
    sys.__excepthook__(kind, error, trace)
    if LAUNCHED:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler
        get_error_handler().record_exception(error)


def end_with_launcher() -> None:
    """A killed launcher cannot end its processes any more: Linux does it."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if LAUNCHED and sys.platform == 'linux':
    end_with_launcher()
sys.excepthook = say_stopped
warnings.filterwarnings('ignore', message='On January 1, 2023, MMCV will release')
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
warnings.filterwarnings('ignore', message='`torch.jit.script` is deprecated')  # fvcore does, torch 2.15 minds
logging.getLogger('torch.utils.cpp_extension').setLevel(logging.ERROR)  # mmcv's operators ask for a CUDA compiler
