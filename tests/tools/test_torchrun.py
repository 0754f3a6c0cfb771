"""dist_train.sh under the stock torchrun: restarts, user errors, several machines, no orphans."""
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY, logged
from tests.kills import until
from tests.long_run import children
from tests.test_scripts import free_port, losses


def start(folder: Path, *command, **variables) -> subprocess.Popen:
    """Start a command whose output goes to `folder`/output."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in ('MASTER_ADDR', 'PORT')}
    with (folder / 'output').open('w') as stream:
        return subprocess.Popen(list(map(str, command)), stdout=stream, stderr=stream, start_new_session=True, env={
            **kept, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1',
            **{name: str(value) for name, value in variables.items()}})


def alive(process: int) -> bool:
    try:
        return Path(f'/proc/{process}/stat').read_text().split(')')[-1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def iterations(folder: Path) -> list[int]:
    return [entry['iter'] for entry in logged(folder)]


def command(config: Path, folder: Path, processes: int, *settings: str) -> list:
    return ['bash', REPOSITORY / 'dist_train.sh', config, folder, processes, '--seed', 3, '--no-validate',
            '--cfg-options', 'checkpoint_config.interval=4', 'lr_config.power=0', *settings]


def test_a_killed_process_is_restarted_and_resumes(tiny_configs, tmp_path, cache):
    """Both processes begin again from the newest checkpoint, without --auto-resume."""
    run = start(tmp_path, *command(tiny_configs['inductive'], tmp_path / 'work', 2, 'runner.max_iters=40'),
                RESTARTS=1, CLIPRC_CACHE=cache)
    assert until(lambda: 5 in iterations(tmp_path / 'work'), run)
    os.kill(children(run.pid)[1], signal.SIGKILL)
    assert run.wait(timeout=240) == 0, (tmp_path / 'output').read_text()
    done = iterations(tmp_path / 'work')
    again = next(place for place in range(1, len(done)) if done[place] != done[place - 1] + 1)
    assert done[again] % 4 == 1 and 5 <= done[again] <= done[again - 1] + 1 and done[-1] == 40


def test_a_killed_launcher_leaves_no_orphans(tiny_configs, tmp_path, cache):
    run = start(tmp_path, *command(tiny_configs['inductive'], tmp_path / 'work', 2, 'runner.max_iters=1000',
                                   'data.workers_per_gpu=1'), CLIPRC_CACHE=cache)
    assert until(lambda: 1 in iterations(tmp_path / 'work'), run)
    processes = children(run.pid)
    assert len(processes) == 2 and all(map(alive, processes))
    run.kill()
    run.wait()
    assert until(lambda: not any(map(alive, processes)), seconds=20)


@pytest.mark.parametrize('launched', [False, True])
def test_sigterm_to_all_processes_with_loader_workers(tiny_configs, tmp_path, cache, launched):
    """As systemd and SLURM send it: launcher, processes and their loader workers get it at the same time."""
    settings = 'runner.max_iters=1000', 'data.workers_per_gpu=2'
    arguments = command(tiny_configs['inductive'], tmp_path / 'work', 2, *settings)
    if not launched:
        arguments = [sys.executable, REPOSITORY / 'tools/train.py', arguments[2], '--work-dir', *arguments[3:4],
                     *arguments[5:]]
    run = start(tmp_path, *arguments, CLIPRC_CACHE=cache)
    assert until(lambda: 3 in iterations(tmp_path / 'work'), run)
    os.killpg(run.pid, signal.SIGTERM)
    run.wait(timeout=60)
    output, saved = (tmp_path / 'output').read_text(), (tmp_path / 'work/latest.pth').resolve()
    assert f'SIGTERM after iteration {saved.stem.split("_")[-1]}' in output and output.count('stopped.\n') == 1
    assert len(torch.load(saved, weights_only=True)['random_states']) == 1 + launched
    assert run.returncode == (1 if launched else 128 + signal.SIGTERM)
    if not launched:  # torchrun reports the signal with a trace
        assert output.endswith('stopped.\n') and 'Traceback' not in output, output


def test_two_machines_train_as_two_processes(run, tiny_configs, tmp_path, cache):
    """The machines are two launchers on this one, which share the work folder."""
    port = free_port()
    both = [start(tmp_path / str(number), *command(tiny_configs['inductive'], tmp_path / 'shared', 1), NNODES=2,
                  NODE_RANK=number, MASTER_ADDR='localhost', PORT=port, WAIT=120, CLIPRC_CACHE=cache)
            for number in range(2)]
    assert [each.wait(timeout=240) for each in both] == [0, 0], [
        (tmp_path / str(number) / 'output').read_text() for number in range(2)]
    run('dist_train.sh', tiny_configs['inductive'], tmp_path / 'alone', 2, '--seed', 3, '--cfg-options',
        'evaluation.interval=4', 'lr_config.power=0', env={'OMP_NUM_THREADS': '1', 'PORT': str(port)})
    log, = (tmp_path / 'alone').glob('*.log')  # of one process
    assert 'total batch: 4 images' in log.read_text() and 'mIoU unseen' in log.read_text()
    alone, together = losses(tmp_path / 'alone'), losses(tmp_path / 'shared')
    assert list(alone) == list(together) == [1, 2, 3, 4]
    for iteration, values in alone.items():
        assert together[iteration] == pytest.approx(values, rel=1e-4)


def test_a_machine_that_does_not_come(tmp_path):
    first = start(tmp_path, *command(tmp_path / 'config.py', tmp_path, 1), NNODES=2, NODE_RANK=0, WAIT=2,
                  MASTER_ADDR='localhost', PORT=free_port())
    assert first.wait(timeout=120) == 1
    assert 'RendezvousTimeoutError' in (tmp_path / 'output').read_text()


@pytest.mark.parametrize('several', [{}, {'NNODES': '2', 'NODE_RANK': '0', 'MASTER_ADDR': 'localhost'}])
def test_a_port_that_another_program_has(run, several):
    with socket.socket() as other:
        other.bind(('', 0))
        other.listen()
        done = run('dist_train.sh', 'config.py', 'work', 1, check=False,
                   env={'PORT': str(other.getsockname()[1]), **several})
    assert done.returncode == 1 and 'address already in use' in done.stderr.lower()


NEEDED = 'an integer from .* is needed.'


@pytest.mark.parametrize(('variables', 'error'), [
    ({'NNODES': '0'}, f'NNODES=0: {NEEDED}'), ({'NODE_RANK': 'x'}, f'NODE_RANK=x: {NEEDED}'),
    ({'PORT': '99999'}, f'PORT=99999: {NEEDED}'), ({'PORT': '08'}, f'PORT=08: {NEEDED}'),
    ({'WAIT': '1m'}, f'WAIT=1m: {NEEDED}'), ({'RESTARTS': '-1'}, f'RESTARTS=-1: {NEEDED}'),
    ({'NNODES': '2'}, 'NNODES=2 needs MASTER_ADDR: .*'),
    ({'NNODES': '2', 'MASTER_ADDR': 'a', 'NODE_RANK': '2'}, 'NODE_RANK=2: with NNODES=2 it goes from 0 to 1.')])
def test_invalid_variables(run, variables, error):
    done = run('dist_train.sh', 'config.py', 'work', 1, check=False, env={'MASTER_ADDR': '', **variables})
    assert done.returncode == 2 and re.fullmatch(f'error: {error}\n', done.stderr)


