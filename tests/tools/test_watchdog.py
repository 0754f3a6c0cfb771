"""A process that hangs is named, with what it was at; one that is slow is left alone."""
import re
import socket
import subprocess
import sys
from pathlib import Path

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
    done = run('dist_train.sh', config, folder, 2, '--seed', 3, '--hang-timeout', 5, *options, check=False,
               env={'PORT': str(free_port())}, timeout=200)
    assert done.returncode == 1, done.stdout + done.stderr
    assert 'Traceback' not in done.stderr, done.stderr
    return done.stderr


FILES = r'loads \S+/JPEGImages/\w+\.jpg, \S+/SegmentationClass\w*/\w+\.png, for \d+ s'


def test_a_process_that_hangs_in_its_data(run, troubled, tmp_path):
    said = blocks(fails(run, troubled('sleeps_for_ever', rank=1), tmp_path / 'work', '--no-validate'))
    assert 'rank 1 of 2 on ' in said[1] and 'nothing moved for 5 s; it is loading the pictures of iteration ' in said[1]
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
    config = troubled('sleeps_for_ever', rank=1, part='val', after=2)  # its picture, then its labels
    said = blocks(fails(run, config, tmp_path / 'work', '--cfg-options', 'evaluation.interval=2'))
    assert 'it is testing pictures, 1 of 2 done' in said[1] and 'in sleeps_for_ever' in said[1]
    assert 'the others wait for this process' in said[1] and 'it waits for another process' in said[0]
    assert re.search(r'it loads \S+/JPEGImages/val_\w+\.jpg, for 5 s', said[1])


def test_what_is_slow_but_moves_is_left_alone(run, troubled, tmp_path):
    """Each picture takes 2 of the 5 seconds of patience, the whole evaluation more than all."""
    one_thread = {'OMP_NUM_THREADS': '1'}  # several threads wait for each other where the machine is busy
    config = troubled('sleeps_a_while', part='val', after=0)
    done = run('tools/train.py', config, '--work-dir', tmp_path / 'work', '--hang-timeout', 5, '--cfg-options',
               'evaluation.interval=2', 'runner.max_iters=2', env=one_thread)
    assert 'nothing moved' not in done.stderr and 'mIoU unseen' in done.stderr
    done = run('test.py', config, tmp_path / 'work/latest.pth', '--eval', 'mIoU', '--hang-timeout', 5,
               env=one_thread)
    assert 'nothing moved' not in done.stderr


def test_one_process_that_goes_on_after_its_report(tmp_path):
    """Python code that starts a watchdog of 2 seconds, dwells for 3 and goes on."""
    main = tmp_path / 'main.py'
    main.write_text(f'''
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
import time
import torch
from tools import watchdog
from tools.launch import Place
watchdog.Watchdog(Place(torch.device('cpu')), int(sys.argv[1]))
time.sleep(3)  # preparations do not count
watchdog.alive('dwelling')
time.sleep(3)
watchdog.alive('living on')
time.sleep(1)
''')
    done, never = (subprocess.run([sys.executable, main, patience], capture_output=True, text=True, timeout=60)
                   for patience in '20')
    assert done.returncode == never.returncode == 0 and never.stderr == ''
    first, *_, last = done.stderr.splitlines()
    assert re.match(r'error: process \d+ on \S+: nothing moved for 2 s; it is dwelling', first)
    assert 'main.py", line 11 in <module>' in done.stderr and 'collective' not in done.stderr
    assert last.endswith('goes on, living on.')


def test_patience_is_a_number(run, tiny_configs):
    done = run('tools/train.py', tiny_configs['inductive'], '--hang-timeout', 'long', check=False)
    assert done.returncode == 2 and "argument --hang-timeout: 'long' is no whole number of seconds" in done.stderr
