"""A process that hangs is named, with what it was at; one that is slow is left alone."""
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def blocks(said: str) -> dict[int, str]:
    """The report of each rank."""
    heads = {int(rank): head for head, rank in re.findall(r'^(error: rank (\d+) of .*)$', said, re.MULTILINE)}
    return {rank: '\n'.join([head, *re.findall(rf'^\[rank {rank}\] .*$', said, re.MULTILINE)])
            for rank, head in heads.items()}


def fails(run, config: Path, folder: Path, *options) -> str:
    """What two processes said, the patience of which is 5 seconds, and which are to fail."""
    done = run('dist_train.sh', config, folder, 2, '--seed', 3, '--hang-timeout', 5, '--end-on-hang', *options,
               check=False, env={'PORT': str(free_port())}, timeout=200)
    assert done.returncode == 1, done.stdout + done.stderr
    assert 'Traceback' not in done.stderr, done.stderr
    return done.stderr


FILES = r'loads \S+/JPEGImages/\w+\.jpg, \S+/SegmentationClass\w*/\w+\.png, for \d+ s'


def test_a_process_that_hangs_in_its_data(run, troubled, tmp_path):
    said = blocks(fails(run, troubled('sleeps_for_ever', rank=1), tmp_path / 'work', '--no-validate'))
    assert 'rank 1 of 2 on ' in said[1] and 'nothing moved for 5 s; it is loading the images of iteration ' in said[1]
    assert 'in sleeps_for_ever' in said[1] and 'the others wait for this process' in said[1]
    assert re.search(f'it {FILES}', said[1])
    assert 'in a collective operation: it waits' in said[0] and 'sleeps_for_ever' not in said[0]


def test_a_loader_worker_that_hangs(run, troubled, tmp_path):
    said = blocks(fails(run, troubled('sleeps_for_ever', rank=0, workers=1), tmp_path / 'work', '--no-validate'))
    assert re.search(fr'loader worker 0 \(process \d+\) {FILES}', said[0])
    assert 'in sleeps_for_ever' in said[0] and 'the others wait for this process' in said[0]
    assert 'loader worker 0' in said[1] and 'loads nothing; its last were /' in said[1]
    assert 'in a collective operation: it waits' in said[1]


def test_a_call_that_holds_the_interpreter(run, troubled, tmp_path):
    text = fails(run, troubled('sleeps_in_c', rank=1), tmp_path / 'work', '--no-validate')
    said = blocks(text)
    assert 'nothing moved for 5 s, and a call outside of Python lets nothing else run' in said[1]
    assert 'in sleeps_in_c' in said[1] and 'in a collective operation: it waits' in said[0]


def test_an_evaluation_that_hangs(run, troubled, tmp_path):
    config = troubled('sleeps_for_ever', rank=1, part='val', after=1)
    said = blocks(fails(run, config, tmp_path / 'work', '--cfg-options', 'evaluation.interval=2'))
    assert 'it is testing images, 1 of 2 done' in said[1] and 'in sleeps_for_ever' in said[1]
    assert 'the others wait for this process' in said[1] and 'it waits for another process' in said[0]
    assert re.search(r'it loads \S+/JPEGImages/val_\w+\.jpg, for 5 s', said[1])


def test_what_is_slow_but_moves_is_left_alone(run, troubled, tmp_path):
    """Each image takes 2 of the 5 seconds of patience, the whole evaluation more than all."""
    one_thread = {'OMP_NUM_THREADS': '1'}  # several threads wait for each other where the machine is busy
    config = troubled('sleeps_a_while', part='val', after=0)
    done = run('tools/train.py', config, '--work-dir', tmp_path / 'work', '--hang-timeout', 5, '--cfg-options',
               'evaluation.interval=2', 'runner.max_iters=2', env=one_thread)
    assert 'nothing moved' not in done.stderr and 'mIoU unseen' in done.stderr
    done = run('test.py', config, tmp_path / 'work/latest.pth', '--eval', 'mIoU', '--hang-timeout', 5,
               env=one_thread)
    assert 'nothing moved' not in done.stderr


ONE = f'''
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
import ctypes
import time
import torch
from tools.engine import hang
from tools.engine.process import Place
hang.Watchdog(Place(torch.device('cpu')), int(sys.argv[1]), ends='end' in sys.argv)
time.sleep(3)  # preparations do not count
hang.alive('dwelling')
(ctypes.PyDLL(None).sleep if 'in_c' in sys.argv else time.sleep)(int(sys.argv[2]))
hang.alive('living on')
time.sleep(1)
'''


@pytest.fixture
def dwells(tmp_path):
    """Runs Python code that starts a watchdog of so many seconds, dwells for a while and goes on."""
    (tmp_path / 'main.py').write_text(ONE)

    def dwells(*arguments):
        return subprocess.run([sys.executable, tmp_path / 'main.py', *map(str, arguments)], capture_output=True,
                              text=True, timeout=60)

    return dwells


def test_one_process_that_goes_on_after_its_report(dwells):
    done, never = dwells(2, 3), dwells(0, 3)
    assert done.returncode == never.returncode == 0 and never.stderr == ''
    first, *_, last = done.stderr.splitlines()
    assert re.match(r'warning: process \d+ on \S+: nothing moved for 2 s; it is dwelling', first)
    assert 'main.py", line 12 in <module>' in done.stderr and 'collective' not in done.stderr
    assert last.endswith('goes on, living on.')


@pytest.mark.parametrize('where', ['in_python', 'in_c'])
def test_it_ends_only_where_that_is_asked_for(dwells, where):
    """A slow phase of thrice the patience, which a report and its grace do not cover."""
    slow, ended = dwells(2, 6, where), dwells(2, 6, where, 'end')
    assert slow.returncode == 0 and slow.stderr.startswith('warning: ') and 'nothing moved for 2 s' in slow.stderr
    assert 'It ends' not in slow.stderr and 'in <module>' in slow.stderr
    assert ended.returncode == 1 and ended.stderr.startswith('error: ') and 'It ends' in ended.stderr


def test_patience_is_a_number(run, tiny_configs):
    done = run('tools/train.py', tiny_configs['inductive'], '--hang-timeout', 'long', check=False)
    assert done.returncode == 2 and "argument --hang-timeout: 'long' is no whole number of seconds" in done.stderr
