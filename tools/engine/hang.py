"""Report a process that makes no progress: its stacks go to stderr. With --end-on-hang it then ends with status 1.

Progress is a training iteration, with its logs, checkpoint and evaluation, or a tested image. Preparations before the
first one do not count. A slow disk, a compilation and a suspended job look like a hang, so the process continues unless
the user asked for its end. Of several processes, those that show a collective operation (`agreed`, `all_reduce`,
`backward`) wait for the one that shows something else.
"""
import faulthandler
import os
from argparse import Namespace
from datetime import timedelta

from tools.engine.errors import AT_END

STDERR = 2
_timeout, _ends = 0, False


def watch(args: Namespace) -> None:
    """Set the time-out, and whether it ends the process, by the arguments of `add_hang_arguments`."""
    global _timeout, _ends
    _timeout, _ends = args.hang_timeout, args.end_on_hang
    AT_END.callback(_stop)


def progressed() -> None:
    """Start the time-out, or start it anew."""
    if _timeout > 0:
        apart = 0.5 * int(os.environ.get('LOCAL_RANK', 0))  # seconds, so that the reports of processes do not mix
        faulthandler.dump_traceback_later(_timeout + apart, repeat=True, exit=_ends, file=STDERR)


def _stop() -> None:
    global _timeout
    _timeout = 0
    faulthandler.cancel_dump_traceback_later()


def group_timeout(args: Namespace) -> timedelta:
    """Return how long a collective operation waits for a lost process: longer than the reports take."""
    return timedelta(seconds=3600 + args.hang_timeout)
