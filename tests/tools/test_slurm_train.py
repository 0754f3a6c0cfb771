"""The SLURM script with stand-ins for SLURM's commands: the command on each machine, and when the job queues again."""
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / 'tools' / 'slurm_train.sh'
SRUN = '''
while [ $1 != bash ]; do echo "srun $1" >> calls; shift; done
if [ -n "${TIME_IS_UP:-}" ]; then
  trap 'echo "srun was asked to end" >> calls; exit 1' TERM
  kill -USR1 $PPID
  for _ in {1..300}; do /bin/sleep 0.1; done
fi
for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@" || status=$?; done
exit ${status:-0}
'''
COMMANDS = {'scontrol': 'if [ $1 = show ]; then echo "$3" | tr + "\\n"; else echo "$@" >> requeued; fi', 'srun': SRUN,
            'sleep': ''}
JOB = {'SLURM_JOB_ID': '40007', 'SLURM_JOB_NUM_NODES': '2', 'SLURM_JOB_NODELIST': 'alpha+beta'}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a dist_train.sh that writes down its arguments, and ends with the status in STATUS."""
    (tmp_path / 'bin').mkdir()
    for name, body in COMMANDS.items():
        command = tmp_path / 'bin' / name
        command.write_text(f'#!/usr/bin/env bash\n{body}\n')
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    (tmp_path / 'dist_train.sh').write_text('echo "$NODE_RANK of $NNODES at $MASTER_ADDR:$PORT: $*" >> calls\n'
                                            'exit "$STATUS"\n')
    return tmp_path


def submitted(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith('SLURM_')}
    return subprocess.run(['bash', SCRIPT, *arguments], cwd=folder, capture_output=True, text=True, timeout=60,
                          env={**kept, 'PATH': f'{folder / "bin"}:{os.environ["PATH"]}', **variables})


def test_the_command_on_each_machine(folder):
    done = submitted(folder, 'a config.py', 'work', '8', '--seed', '3', **JOB, STATUS='0', SLURM_CPUS_PER_TASK='64')
    assert done.returncode == 0, done.stderr
    assert (folder / 'calls').read_text().splitlines() == [
        'srun --cpus-per-task=64', '0 of 2 at alpha:24007: a config.py work 8 --seed 3 --auto-resume',
        '1 of 2 at alpha:24007: a config.py work 8 --seed 3 --auto-resume']
    assert not (folder / 'requeued').exists()


def test_an_error_ends_the_job(folder):
    done = submitted(folder, 'config.py', 'work', '8', **JOB, STATUS='1')
    assert done.returncode == 1 and not (folder / 'requeued').exists()


def test_the_job_queues_again_when_its_time_is_up(folder):
    submitted(folder, 'config.py', 'work', '8', **JOB, STATUS='0', TIME_IS_UP='yes')
    assert (folder / 'calls').read_text() == 'srun was asked to end\n'
    assert (folder / 'requeued').read_text() == 'requeue 40007\n'


def test_missing_arguments_job_and_folder(folder):
    assert submitted(folder, 'config.py', **JOB).returncode == 2
    assert 'sbatch' in submitted(folder, 'config.py', 'work', '8').stderr
    (folder / 'dist_train.sh').unlink()
    done = submitted(folder, 'config.py', 'work', '8', **JOB)
    assert done.returncode == 1 and done.stderr == 'error: call sbatch in the folder that has dist_train.sh.\n'
    assert submitted(folder, '--help').stdout.startswith('sbatch OPTIONS tools/slurm_train.sh CONFIG WORK_DIR NUM_GPUS')
