"""How a command ends: an error that a user can fix is one line, Ctrl-C is no error, a fault of ours shows its trace."""
import errno
import importlib.util
import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable

LAUNCHED = 'TORCHELASTIC_RUN_ID' in os.environ  # by torchrun
JOB_BEGAN = 'CLIPRC_JOB_BEGAN'  # in the environment of launched processes: when, in seconds as `time.time`
AT_END: list[Callable[[], None]] = []  # what `run` does when a command has ended, the last one first
LOST = re.compile(r'Connection (closed|reset) by peer|remote process exited|NCCL communicator was aborted')


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end, and it has left things in order."""

    def __init__(self, asked: signal.Signals):
        super().__init__(asked.name)
        self.signal = asked


def run(main: Callable[[], None]) -> None:
    """Run a command's `main`; an error that a user can fix becomes one `error:` line and exit status 1.

    Import torch and mmcv inside `main`, so that `--help` is quick and Ctrl-C during imports shows no trace. Set
    CLIPRC_TRACEBACK=1 to see where an error came from.
    """
    if importlib.util.find_spec('mmcv') is None:
        sys.exit('error: this Python has no environment for CLIP-RC. Make and use it:\n'
                 '    bash tools/setup_env.sh && source .venv/bin/activate')
    sys.stdout.reconfigure(errors='backslashreplace')  # file names need not be UTF-8; stderr does so by itself
    warnings.filterwarnings('ignore', module='mmcv')
    warnings.filterwarnings('ignore', message='.*pkg_resources.*')
    warnings.filterwarnings('ignore', message='`torch.jit.script` is deprecated')  # fvcore calls it
    try:
        main()
    except Exception as error:
        from models import plugins
        from models.errors import UserError
        lost = distributed() and LOST.search(str(error))
        if not lost and not isinstance(error, (UserError, OSError)) and not plugins.where(error):
            raise  # ours to fix
        if os.environ.get('CLIPRC_TRACEBACK'):
            traceback.print_exc()
        if lost:
            sys.stderr.write(f'process {os.environ.get("RANK", 0)} ends, as another one has ended.\n')
            sys.exit(os.EX_TEMPFAIL)  # it has no error of its own
        if os.environ.get('RANK', '0') != '0':
            time.sleep(3)  # the first process most likely says the same; its launcher then ends this one
        kind = '' if isinstance(error, (UserError, OSError)) else f'{type(error).__name__}: '
        sys.exit(f'error: {kind}{plain_message(error)}{plugins.where(error)}')
    except KeyboardInterrupt as stop:
        if not LAUNCHED:  # of several processes the launcher says it
            sys.stderr.write('stopped.\n')
        sys.exit(128 + getattr(stop, 'signal', signal.SIGINT))
    finally:
        while AT_END:
            AT_END.pop()()
        if distributed():
            sys.modules['torch.distributed'].destroy_process_group()


def distributed() -> bool:
    """Tell whether this process has joined others."""
    dist = sys.modules.get('torch.distributed')
    return dist is not None and dist.is_available() and dist.is_initialized()


def plain_message(error: Exception) -> str:
    """Give the message without what loader workers and mmcv's registries put around it; a remedy for a full disk.

    Control characters, which the texts of a file may have, do not reach the terminal.
    """
    from models.weights.checks import CONTROL
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = 'the disk is full' if error.errno == errno.ENOSPC else 'your share of the disk is used up'
        return f'{what}{f" ({error.filename})" if error.filename else ""}. Make room and run this '\
               'again; a training goes on with --auto-resume.'
    message = CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(error))
    if 'Original Traceback' in message:  # raised in a loader worker
        message = re.split(r'\n(?:(?:models|datasets|tools)\.[\w.]+|\w*Error): ', message)[-1].strip()
    return re.sub(r'^(\w+: )+(?=[^\n])', '', message) if re.match(r'^[A-Z]\w+: ', message) else message
