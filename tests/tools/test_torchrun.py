"""Several processes and machines under our torchrun: restarts, last words, no orphans. A machine is a namespace."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.test_scripts import free_port, losses

TORCHRUN = [sys.executable, REPOSITORY / 'tools' / 'torchrun.py']
PROCESS = f'''
import os, signal, sys, time
sys.path.insert(0, {str(REPOSITORY)!r})
from tools.engine import errors
import torch, torch.distributed as dist
from tools.engine import process
dist.init_process_group('gloo')
attempt, rank, folder, wish = os.environ['TORCHELASTIC_RESTART_COUNT'], dist.get_rank(), sys.argv[1], sys.argv[2]
open(f'{{folder}}/{{attempt}}.{{rank}}.{{os.getpid()}}', 'w').close()
if wish == 'lose the other':
    process.run(lambda: dist.all_reduce(torch.zeros(1)) if rank == 0 else os.kill(os.getpid(), signal.SIGKILL))
if wish == 'crash at last' and rank == 1:
    raise RuntimeError('out of luck')
if attempt == '0' and rank == 1:
    if wish == 'be killed':
        os.kill(os.getpid(), signal.SIGKILL)
    if wish == 'crash':
        raise RuntimeError('out of luck')
    if wish == 'say why':
        sys.exit('error: no such file. Copy it again.')
count = torch.zeros(1)
while count < (1000 if wish == 'go on' else 1):
    count += 1
    dist.all_reduce(count, op=dist.ReduceOp.MAX)
    time.sleep(0.1)
dist.destroy_process_group()
'''


@pytest.fixture(scope='module')
def script(tmp_path_factory) -> Path:
    """A process of several: `SCRIPT FOLDER WISH` notes (attempt, rank, its id) as the name of a file."""
    path = tmp_path_factory.mktemp('script') / 'process.py'
    path.write_text(PROCESS)
    return path


def until(happened, *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, 'it did not happen'
        time.sleep(0.05)


def notes(folder: Path) -> list[tuple[int, int]]:
    """(attempt, rank) of the processes that were."""
    return sorted(tuple(map(int, path.name.split('.')[:2])) for path in folder.iterdir())


def alive(process: int) -> bool:
    try:
        return Path(f'/proc/{process}/stat').read_text().split(')')[-1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def launch(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(list(map(str, [*TORCHRUN, *arguments])), capture_output=True, text=True, timeout=120)


def on_two(script: Path, folder: Path, wish: str, *, restarts: int = 2) -> subprocess.CompletedProcess:
    """Two processes that may be started again."""
    return launch('--nproc_per_node', 2, '--max_restarts', restarts, script, folder, wish)


@pytest.mark.parametrize(('wish', 'told'), [('be killed', 'was killed by SIGKILL'),
                                            ('crash', 'ended with an exception')])
def test_what_may_go_better_is_tried_again(script, tmp_path, wish, told):
    done = on_two(script, tmp_path, wish)
    assert done.returncode == 0, done.stderr
    assert notes(tmp_path) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    [line] = [line for line in done.stderr.splitlines() if 'Restart' in line]
    assert line.endswith('Restart 1 of 2.')
    assert told in line or 'ended with an exception' in line, 'the other one may be the first to be seen'


def test_an_error_in_words_is_not(script, tmp_path):
    done = on_two(script, tmp_path, 'say why')
    assert done.returncode == 1 and notes(tmp_path) == [(0, 0), (0, 1)]
    assert 'error: no such file. Copy it again.\n' in done.stderr and 'Restart' not in done.stderr
    assert 'killed' not in done.stderr, 'that was the launcher'


@pytest.mark.parametrize(('wish', 'restarts', 'last'), [
    ('lose the other', 0, 'process 1 was killed by SIGKILL.'),
    ('lose the other', 1, 'process 1 was killed by SIGKILL; all restarts (1) are used up.'),
    ('crash at last', 1, 'process 1 ended with an exception; all restarts (1) are used up.')])
def test_the_last_word_is_the_cause(script, tmp_path, wish, restarts, last):
    done = on_two(script, tmp_path, wish, restarts=restarts)
    assert done.returncode == 1 and len(notes(tmp_path)) == 2 * (restarts + 1)
    assert done.stderr.splitlines()[-1].endswith(last), done.stderr
    if wish == 'lose the other' and restarts:
        assert 'process 1 was killed by SIGKILL. Restart 1 of 1.\n' in done.stderr


def test_a_killed_launcher_leaves_no_orphans(script, tmp_path):
    command = [*TORCHRUN, '--nproc_per_node', 2, '--master_port', free_port(), script, tmp_path, 'go on']
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL) as launcher:
        until(lambda: len(notes(tmp_path)) == 2)
        processes = [int(path.name.split('.')[2]) for path in tmp_path.iterdir()]
        assert all(map(alive, processes))
        launcher.kill()
    until(lambda: not any(map(alive, processes)), seconds=20)


def test_a_single_machine_opens_no_port_to_meet(script, tmp_path):
    """What machines meet with is unpickled; and so two runs do not get in each other's way."""
    with socket.socket() as other:
        other.bind(('', 0))
        other.listen()
        done = launch('--master_port', other.getsockname()[1], script, tmp_path, 'end')
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(('options', 'error'), [
    (['--nnodes', 2, '--node_rank', 2], 'NODE_RANK=2: NNODES machines have the numbers from 0 to NNODES - 1.'),
    (['--nnodes', 2, '--node_rank', 1, '--master_addr', 'no.such.machine.invalid'],
     'no way to MASTER_ADDR=no.such.machine.invalid')])
def test_machines_that_are_none(options, error):
    done = launch(*options, 'x.py')
    assert done.returncode == 1 and done.stderr.startswith('error: ') and error in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_another_program_has():
    """It takes whatever is said to it, and never answers."""
    with socket.socket() as other:
        other.bind(('', 0))
        other.listen()
        port = other.getsockname()[1]
        first, second = (launch('--nnodes', 2, '--node_rank', number, '--master_port', port, '--rdzv_conf',
                                'join_timeout=1,read_timeout=1', 'x.py') for number in range(2))
    assert (first.returncode, first.stderr) == (
        1, f'error: PORT={port} is in use: name another one on all machines.\n')
    assert second.returncode == 1 and len(second.stderr.splitlines()) == 1
    assert second.stderr.startswith(f'error: the first machine does not answer at 127.0.0.1:{port}')
    assert 'another program has the port' in second.stderr


@pytest.mark.parametrize(('name', 'value'), [
    ('NNODES', 'x'), ('NNODES', '0'), ('NODE_RANK', 'x'), ('PORT', 'x'), ('PORT', '99999'), ('PORT', '08'),
    ('WAIT', '1m'), ('RESTARTS', '-1'), ('RESTARTS', 'x')])
def test_variables_that_are_no_numbers(name, value):
    done = dist_train(**{name: value})
    assert done.returncode == 2 and re.fullmatch(f'error: {name}={value} is no whole number from .*\n', done.stderr)


def test_several_machines_need_an_address():
    done = dist_train(NNODES='2')
    assert done.returncode == 2 and done.stderr.startswith('error: NNODES=2 needs MASTER_ADDR=ADDRESS')
    assert len(done.stderr.splitlines()) == 1


def dist_train(**variables) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if name != 'MASTER_ADDR'}
    return subprocess.run(['bash', REPOSITORY / 'dist_train.sh', 'config.py', 'work', '1'], capture_output=True,
                          text=True, env={**kept, 'PYTHON': sys.executable, **variables}, timeout=120)


def test_a_torch_without_its_private_parts():
    """Then it is torch that restarts, and that says whether a machine is lost. In a process of its own, which is
    changed by the import."""
    code = '''
import pickle
from types import SimpleNamespace as Other
from tools import torchrun
torchrun.LocalElasticAgent._monitor_workers = lambda self, group: 'as torch says'
assert object.__new__(torchrun.Agent)._monitor_workers(Other(spec=None)) == 'as torch says'
meeting = object.__new__(torchrun.Meeting)
meeting.parameters, meeting.backend = Other(max_nodes=2), Other(get_state=lambda: (pickle.dumps(Other()), None))
assert meeting.lost() == 0
'''
    subprocess.run([sys.executable, '-c', code], check=True, cwd=REPOSITORY, timeout=120)


@pytest.mark.parametrize(('ends', 'causes'), [
    ([(1, -9, 0), (0, 75, 0)], [1]), ([(0, 75, 0), (1, -9, 0)], [1]), ([(1, -9, 0), (0, -15, 0)], [1]),
    ([(0, -15, 0), (1, -15, 0)], [0]), ([(0, 3, 0), (1, -9, 30)], [0]), ([(0, 75, 0), (1, -15, 0)], []),
    ([(0, -11, 0), (1, -11, 0)], [0, 1]), ([(0, 3, 0), (1, 143, 0)], [0])])
def test_which_processes_the_launcher_ended(ends, causes):
    """Each end is (process, exit status or negative signal, second); torch's launcher kills those that remain after
    30 seconds."""
    code = ('from types import SimpleNamespace\nfrom tools import torchrun\n'
            f"ends = [SimpleNamespace(**dict(zip(('local_rank', 'exitcode', 'timestamp'), end))) for end in {ends}]\n"
            'print([end.local_rank for end in torchrun.causes(ends)])')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=REPOSITORY, timeout=120)
    assert done.stdout == f'{causes}\n', done.stderr


def test_processes_that_are_asked_to_end_have_time():
    """For a checkpoint; after a failure torch's 30 seconds stay."""
    code = ('import signal\nfrom types import SimpleNamespace\nfrom tools import torchrun\n'
            'for asked in [signal.SIGINT], []:\n'
            '    agent = object.__new__(torchrun.Agent)\n'
            '    agent._worker_watchdog = agent._health_check_server = agent._rdzv_handler = None\n'
            "    agent._pcontext = SimpleNamespace(close=lambda signal, timeout=30: print(int(signal), timeout))\n"
            '    agent._shutdown(*asked)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=REPOSITORY, timeout=120)
    assert done.stdout.splitlines() == ['2 110', '15 30'], done.stderr


# ---- two machines

class Machine:
    """A network namespace; what runs in it sees its own address and the other machine's, and nothing else."""

    def __init__(self, name: str, address: str):
        self.name, self.address, self.said = name, address, []

    def start(self, folder: Path, *command, **variables) -> subprocess.Popen:
        """Starts a command; `said[-1]` is the file of what it says."""
        self.said.append(folder / f'{self.name}.{len(self.said)}')
        with self.said[-1].open('w') as stream:
            return subprocess.Popen(
                ['ip', 'netns', 'exec', self.name, *map(str, command)], stdout=stream, stderr=stream,
                env={**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1',  # they share our cores
                     **{key: str(value) for key, value in variables.items()}})

    def last_words(self) -> str:
        return self.said[-1].read_text().splitlines()[-1]

    def lose(self) -> None:
        """Ends everything on it, at once."""
        listed = subprocess.run(['ip', 'netns', 'pids', self.name], capture_output=True, text=True)
        for process in listed.stdout.split():
            os.kill(int(process), signal.SIGKILL)


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    """Two, joined by a cable."""
    pair = [Machine(f'm{number}-{os.getpid()}', f'10.77.0.{number + 1}') for number in range(2)]
    commands = [f'netns add {machine.name}' for machine in pair]
    commands += [f'-n {pair[0].name} link add cable type veth peer name cable netns {pair[1].name}']
    for machine in pair:
        commands += [f'-n {machine.name} addr add {machine.address}/24 dev cable',
                     f'-n {machine.name} link set lo up', f'-n {machine.name} link set cable up']
    try:
        for command in commands:
            try:
                subprocess.run(['ip', *command.split()], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f'no network namespaces here: {error}')
        yield pair
    finally:
        for machine in pair:
            machine.lose()
            subprocess.run(['ip', 'netns', 'del', machine.name], capture_output=True)


def iterations(folder: Path) -> list[int]:
    """All that the first process has logged, in order of time."""
    lines = [line for file in sorted(folder.glob('*.log.json')) for line in file.read_text().splitlines()]
    return [entry['iter'] for entry in map(json.loads, lines) if entry.get('mode') == 'train']


def test_two_machines_train_as_one_and_one_comes_back(run, machines, tiny_configs, tmp_path, cache):
    options = ['--seed', 3, '--no-validate', '--cfg-options', 'lr_config.power=0', 'checkpoint_config.interval=4']
    shared = tmp_path / 'shared'

    def start(number: int) -> subprocess.Popen:
        return machines[number].start(
            tmp_path, 'bash', REPOSITORY / 'dist_train.sh', tiny_configs['inductive'], shared, 1,
            *options, 'runner.max_iters=12', NNODES=2, NODE_RANK=number, MASTER_ADDR=machines[0].address, PORT=29500,
            WAIT=240, CLIPRC_CACHE=cache)

    first, second = start(0), start(1)
    until(lambda: 5 in iterations(shared))
    machines[1].lose()
    second.wait()
    before = losses(shared)
    run('dist_train.sh', tiny_configs['inductive'], tmp_path / 'alone', 2, *options, 'runner.max_iters=4',
        env={'PORT': str(free_port())})
    assert first.poll() is None, machines[0].said[-1].read_text()
    second = start(1)
    assert (first.wait(timeout=240), second.wait(timeout=120)) == (0, 0), machines[0].said[-1].read_text()
    alone = losses(tmp_path / 'alone')
    assert len(alone) == 4
    for iteration, values in alone.items():
        assert before[iteration] == pytest.approx(values, rel=1e-4)
    done = iterations(shared)
    again = next(place for place in range(1, len(done)) if done[place] != done[place - 1] + 1)
    assert done[again] % 4 == 1 and 5 <= done[again] <= done[again - 1] + 1, 'it goes on from the newest checkpoint'
    assert done[-1] == 12 and (shared / 'iter_12.pth').exists()
    assert 'Restart 1 of 3, as soon as all 2 machines are there.' in machines[0].said[0].read_text()
    assert 'Iter [' not in machines[1].said[-1].read_text(), 'NODE_RANK=0 has the first process'


def start_both(machines: list[Machine], script: Path, folder: Path, *numbers: int, wait: int = 60
               ) -> list[subprocess.Popen]:
    """The processes that never end, on machines that are given these numbers."""
    return [machine.start(folder.parent, *TORCHRUN, '--nnodes', 2, '--node_rank', number, '--max_restarts', 3,
                          '--master_addr', machines[0].address, '--rdzv_conf',
                          f'join_timeout={wait},read_timeout={wait}', script, folder, 'go on')
            for machine, number in zip(machines, numbers)]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / 'notes').mkdir()
    return tmp_path / 'notes'


def test_the_first_machine_is_lost(machines, script, folder):
    first, second = start_both(machines, script, folder, 0, 1)
    until(lambda: len(notes(folder)) == 2)
    machines[0].lose()
    assert second.wait(timeout=120) == 1
    assert machines[1].last_words().startswith('error: the first machine does not answer at 10.77.0.1:29500')
    first.wait()


def test_a_machine_that_does_not_come_back(machines, script, folder):
    first, second = start_both(machines, script, folder, 0, 1, wait=3)
    until(lambda: len(notes(folder)) == 2)
    machines[1].lose()
    assert first.wait(timeout=120) == 1
    assert machines[0].last_words().startswith('error: not all of the 2 machines were there in time')
    second.wait()


def test_a_machine_that_falls_silent(machines, script, folder):
    """Its cable is pulled: no connection is closed, and nobody says so."""
    both = start_both(machines, script, folder, 0, 1, wait=3)
    until(lambda: len(notes(folder)) == 2)
    subprocess.run(['ip', '-n', machines[1].name, 'link', 'set', 'cable', 'down'], check=True)
    assert [process.wait(timeout=180) for process in both] == [1, 1]
    assert 'a machine is silent. Restart 1 of 3' in machines[0].said[0].read_text()


def test_two_machines_of_one_number(machines, script, folder):
    first, second = start_both(machines, script, folder, 0, 0, wait=25)
    until(lambda: first.poll() is not None and second.poll() is not None)
    assert any(machine.last_words() == 'error: two of the 2 machines have NODE_RANK=0: each needs its own.'
               for machine in machines)
