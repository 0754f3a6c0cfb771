"""`train.py --smoke-test`: all of a run in small, nothing left behind, and the errors of the real run."""
import re
import shutil
from pathlib import Path

import pytest

from tools.testing import run as testing
from tools.training import excerpt, smoke_test


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(smoke_test, 'MORE_STEPS', 3)
    monkeypatch.setattr(smoke_test, 'SECONDS', 1e9)


@pytest.fixture
def watched(monkeypatch):
    """The excerpts of a smoke test, and what lay in its folder at the end."""
    seen = {'excerpts': [], 'files': set()}
    init, empty = excerpt.Excerpt.__init__, smoke_test.empty

    def remember(self, *args):
        init(self, *args)
        seen['excerpts'].append(self)

    def look(folder: Path) -> None:
        seen['files'] |= {str(file.relative_to(folder)) for file in folder.rglob('*') if file.is_file()}
        empty(folder)

    monkeypatch.setattr(excerpt.Excerpt, '__init__', remember)
    monkeypatch.setattr(smoke_test, 'empty', look)
    return seen


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob('*') if file.is_file()}


LONG = ['runner.max_iters=1000', 'checkpoint_config.interval=200', 'evaluation.interval=250', 'log_config.interval=50']


def test_all_is_tried_and_nothing_left(call, tiny_configs, tmp_path, watched):
    done = call('tools/train.py', tiny_configs['inductive'], '--work-dir', tmp_path / 'run', '--smoke-test',
                '--cfg-options', *LONG, 'evaluation.save_best=hIoU', 'checkpoint_config.max_keep_ckpts=2',
                'data.workers_per_gpu=1')
    assert not [*tmp_path.iterdir()]
    first, second = watched['excerpts']
    assert (first.iterations, second.iterations) == (2, 3)
    assert {'iter_2.pth', 'iter_5.pth', 'evaluations.jsonl', 'inductive.py', 'smoke_test.log'} <= watched['files']
    assert len([name for name in watched['files'] if name.startswith('images/')]) == 3, 'there are no more'
    assert [name for name in watched['files'] if 'tf_logs' in name]
    assert 'resumed from' in done.stderr and done.stderr.count('hIoU') >= 3
    rates = [float(rate) for rate in re.findall(r'Iter \[\d+/\d+\]\tlr: (\S+),', done.stderr)]
    assert len(rates) == 5 and rates[0] < rates[1] and rates[-1] > 1.9e-4, 'the schedule of the whole run'
    lines = done.stderr[done.stderr.index('smoke test passed'):]
    assert re.search(r'time: about .* \(1000 iterations of [\d.]+ s, 4 evaluations of .*\)', lines)
    assert re.search(r'memory: at the peak \d.* of RAM, and up to \d.* for each loader worker \(1 a process\)', lines)
    assert re.search(r'disk: .* \(checkpoints of .*: 3 and the one being written; [\d.]+ [MG]B of logs\)', lines)
    assert 'the run can start: the same command without --smoke-test' in lines


def test_accumulated_gradients_and_no_validation(call, tiny_configs, tmp_path, watched):
    done = call('tools/train.py', tiny_configs['inductive'], '--work-dir', tmp_path / 'run', '--smoke', '--no-validate',
                '--total-batch-size', 4, '--seed', 1, '--cfg-options', *LONG)
    assert [each.iterations for each in watched['excerpts']] == [4, 6], 'two iterations a step'
    assert '(2000 iterations of' in done.stderr and 'evaluations of' not in done.stderr
    assert 'images/val_000.png' in watched['files'] and 'evaluations.jsonl' not in watched['files']


def test_a_run_that_is_resumed_is_not_touched(call, tiny_configs, trained, tmp_path, watched):
    """The real run would continue after 4 iterations."""
    work = tmp_path / 'run'
    shutil.copytree(trained, work, symlinks=True)
    before = files_in(work)
    done = call('tools/train.py', tiny_configs['inductive'], '--work-dir', work, '--auto-resume', '--smoke-test',
                '--cfg-options', *LONG)
    assert files_in(work) == before
    assert f'resumed from {work / "iter_4.pth"} after 4 iterations' in done.stderr
    assert '(996 iterations of' in done.stderr and 'iter_6.pth' in watched['files']
    done = call('tools/train.py', tiny_configs['inductive'], '--work-dir', work, '--auto-resume', '--smoke-test')
    assert 'nothing is left to do in this run' in done.stderr and files_in(work) == before


@pytest.mark.parametrize('iterations', [1, 2, 3])
def test_a_very_short_run(call, tiny_configs, tmp_path, iterations):
    done = call('tools/train.py', tiny_configs['inductive'], '--work-dir', tmp_path / 'run', '--smoke-test',
                '--cfg-options', f'runner.max_iters={iterations}')
    assert f'({iterations} iterations of' in done.stderr


def test_a_run_that_keeps_one_checkpoint(call, tiny_configs, tmp_path):
    """The resumed part removes the first checkpoint, whose size is in the estimate."""
    done = call('tools/train.py', tiny_configs['inductive'], '--work-dir', tmp_path / 'run', '--smoke-test',
                '--cfg-options', *LONG, 'checkpoint_config.max_keep_ckpts=1')
    assert re.search(r'checkpoints of [1-9][\d.]* [MG]B: 1 and the one being written', done.stderr)


def test_a_folder_of_another_run_is_not_emptied(fails, tiny_configs, trained, tmp_path):
    shutil.copytree(trained, tmp_path / 'run/smoke_test', symlinks=True)
    before = files_in(tmp_path / 'run')
    error = fails('tools/train.py', tiny_configs['inductive'], '--work-dir', tmp_path / 'run', '--smoke-test')
    assert 'holds files that are not of a smoke test' in error
    assert {**files_in(tmp_path / 'run'), **before} == {'smoke_test/.lock': b'', **before}


def test_errors_are_those_of_the_real_run(fails, tiny_configs, tmp_path):
    command = ['tools/train.py', tiny_configs['inductive'], '--work-dir', tmp_path / 'run', '--seed', 1]
    for settings in (['data.train.data_root=nowhere'], ['evaluation.metric=IoU'], ['optimizer.lr=1e30']):
        assert fails(*command, '--smoke-test', '--cfg-options', *settings) == fails(
            *command, '--cfg-options', *settings)
    assert (tmp_path / 'run/smoke_test/smoke_test.log').is_file(), 'it stays after an error'


def test_a_disk_with_too_little_room(fails, tiny_configs, tmp_path, monkeypatch):
    monkeypatch.setattr(smoke_test.shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(9, 9, 5_000_000))
    error = fails('tools/train.py', tiny_configs['inductive'], '--work-dir', tmp_path / 'run', '--smoke-test',
                  '--cfg-options', 'runner.max_iters=1000', 'checkpoint_config.interval=10')
    assert re.match(r'error: the run takes \S+ MB of disk, and 5.0 MB are free in .*: make room', error)
    assert not [*(tmp_path).iterdir()]


def test_two_processes(run, tiny_configs, tmp_path):
    done = run('dist_train.sh', tiny_configs['inductive'], tmp_path / 'run', 2, '--smoke-test', '--cfg-options', *LONG)
    said = done.stdout + done.stderr
    assert said.count('smoke test passed') == 1 and 'of RAM for each of 2 processes' in said
    assert 'total batch: 4 images a step (processes: 2' in said and not [*tmp_path.iterdir()]


def test_it_is_the_test_of_test_py(call, tiny_configs, tmp_path, monkeypatch):
    asked = []

    def note(args, place, most, test=testing.test) -> None:
        asked.append((args, most))
        test(args, place, most)

    monkeypatch.setattr(testing, 'test', note)
    call('tools/train.py', tiny_configs['inductive'], '--work-dir', tmp_path / 'run', '--smoke-test')
    [(args, most)] = asked
    assert most == 4 and args.eval == ['mIoU'] and args.checkpoint == str(tmp_path / 'run/smoke_test/iter_2.pth')
