"""A process that makes no progress prints its stacks, and ends only if asked to; dead loader workers are explained."""
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

ONE = f'''
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
import ctypes
import time
from argparse import Namespace
from tools.engine import hang
hang.watch(Namespace(hang_timeout=int(sys.argv[1]), end_on_hang='end' in sys.argv))
time.sleep(2)  # preparations do not count
hang.progressed()
(ctypes.PyDLL(None).sleep if 'in_c' in sys.argv else time.sleep)(int(sys.argv[2]))
hang.progressed()
'''


@pytest.fixture
def dwells(tmp_path):
    """Run Python code that watches itself with a time-out, stands still for some seconds and continues."""
    (tmp_path / 'main.py').write_text(ONE)

    def dwells(*arguments):
        return subprocess.run([sys.executable, tmp_path / 'main.py', *map(str, arguments)], capture_output=True,
                              text=True, timeout=60)

    return dwells


@pytest.mark.parametrize('where', ['in_python', 'in_c'])
def test_it_ends_only_if_asked_to(dwells, where):
    """Also where a C function holds the interpreter."""
    slow, ended, never = dwells(1, 3, where), dwells(1, 3, where, 'end'), dwells(0, 2, where)
    assert slow.returncode == 0 and slow.stderr.count('Timeout (0:00:01)!') >= 2
    assert 'main.py", line 11 in <module>' in slow.stderr
    assert ended.returncode == 1 and 'main.py", line 11 in <module>' in ended.stderr
    assert never.returncode == 0 and never.stderr == ''


def test_a_process_of_two_that_hangs(run, troubled, tmp_path):
    """Both report: one waits for the other, whose stack shows the cause."""
    done = run('dist_train.sh', troubled('sleeps_for_ever', rank=1), tmp_path / 'work', 2, '--hang-timeout', 5,
               '--end-on-hang', '--no-validate', check=False, timeout=200)
    assert done.returncode == 1
    assert done.stderr.count('Timeout (0:00:05)!') >= 1 and 'in sleeps_for_ever' in done.stderr


def test_slow_progress_is_left_alone(run, troubled, tmp_path):
    """Each image takes 2 of the 5 seconds, the whole evaluation more than all."""
    config = troubled('sleeps_a_while', part='val', after=0)
    done = run('tools/train.py', config, '--work-dir', tmp_path / 'work', '--hang-timeout', 5, '--end-on-hang',
               '--cfg-options', 'evaluation.interval=2', 'runner.max_iters=2', env={'OMP_NUM_THREADS': '1'})
    assert 'Timeout' not in done.stderr and 'mIoU unseen' in done.stderr


def test_a_loader_worker_that_dies(run, troubled, tmp_path):
    """PyTorch names the signal, unless it meets the worker's death while it receives a batch."""
    done = run('tools/train.py', troubled('is_killed', workers=1), '--work-dir', tmp_path / 'work', '--no-validate',
               check=False)
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith('error: loader worker (process ')
    assert ('Killed. Most likely the machine' if 'Killed' in error else 'exited unexpectedly. The machine') in error
    assert 'out of memory (see dmesg)' in error
    assert 'data.workers_per_gpu=' in error and 'no checkpoint was written' in done.stderr
