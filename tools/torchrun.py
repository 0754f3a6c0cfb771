#!/usr/bin/env python3
"""torchrun whose last words are the failed process's own: `python tools/torchrun.py OPTIONS SCRIPT ARGUMENTS`.

torchrun ends a failure with a stack trace of its own, which buries the line that says what to do.
"""
import logging
import os
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `tools`, whoever else has one
import tools

# isort: split
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

if __name__ == '__main__':
    logging.disable(logging.ERROR)  # of torch's launcher
    options = parse_args(sys.argv[1:])
    os.environ.setdefault('CLIPRC_LAUNCHED', str(time.time()))  # what is saved later is of this job
    if options.nproc_per_node.isdecimal():  # else torchrun warns, and gives each process one thread
        os.environ.setdefault('OMP_NUM_THREADS', str(max(1, os.cpu_count() // int(options.nproc_per_node))))
    try:
        run(options)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode not in (1, 2):  # killed: it could not say why itself
            print(error, file=sys.stderr)
        sys.exit(1)
    except SignalException as caught:
        tools.say_stopped()
        sys.exit(128 + caught.sigval)
