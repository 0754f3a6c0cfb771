"""A run that was interrupted and resumed equals an uninterrupted one, bit for bit."""
import errno
import json
import math
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from models.errors import UserError
from tests.kills import differences
from tests.tools.training import ITERATIONS, TWO_PROCESSES, Run, ask, content, in_two_processes
from tools.engine import process, runner
from tools.engine.files import lock_folder

NO_CLIP = ['model.pretrained=nowhere.pt', 'model.pretrained_text=nowhere.pt']


def assert_same_run(one: Path, other: Path, name: str = f'iter_{ITERATIONS}.pth') -> None:
    assert not differences(one / name, other / name)


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> dict[str, tuple]:
    """Uninterrupted runs, by their settings."""
    return {'folder': tmp_path_factory.mktemp('whole')}


def uninterrupted(whole: dict, train_here: Run, settings=(), options=()) -> tuple[Path, dict]:
    key = (*settings, *options)
    if key not in whole:
        folder = whole['folder'] / str(len(whole))
        whole[key] = folder, train_here(folder, *options, settings=settings)
    return whole[key]


BFLOAT16 = ['amp.dtype=bfloat16', 'data.workers_per_gpu=2']
ACCUMULATED = ['--total-batch-size', 6]  # 3 iterations a step


@pytest.mark.parametrize(('stop', 'number', 'settings', 'options'), [
    (1, signal.SIGTERM, [], []), (4, signal.SIGTERM, [], []), (ITERATIONS - 1, signal.SIGTERM, [], []),
    (4, signal.SIGINT, ['amp.dtype=float16'], []), (4, signal.SIGINT, BFLOAT16, []),
    (4, signal.SIGTERM, ['runner.max_iters=4'], ACCUMULATED),
    (4, signal.SIGTERM, ['runner.max_iters=4', 'amp.dtype=float16'], ACCUMULATED)])
def test_stopped_and_resumed(whole, train_here, tmp_path, caplog, stop, number, settings, options):
    """With accumulated gradients it stops at the optimizer's next step, since no checkpoint holds half of one."""
    folder, expected = uninterrupted(whole, train_here, settings, options)
    assert all(math.isfinite(value) for losses in expected.values() for value in losses.values())
    done, last = 6 if options else stop, f'iter_{max(expected)}.pth'
    before = train_here(tmp_path, *options, at={stop: ask(number)}, settings=settings)
    assert train_here.ended.signal == number and list(before) == list(range(1, done + 1))
    assert (tmp_path / 'latest.pth').resolve().name == f'stopped_iter_{done}.pth'
    after = train_here(tmp_path, '--auto-resume', *options, settings=[*settings, *NO_CLIP])
    assert {**before, **after} == expected and list(after) == list(range(done + 1, max(expected) + 1))
    assert_same_run(folder, tmp_path, last)
    assert not list(tmp_path.glob('stopped_*')), 'it is obsolete'
    scalers = [content(each, last)['meta'].get('grad_scaler') for each in (folder, tmp_path)]
    assert scalers[0] == scalers[1] and (scalers[0] is not None) == ('amp.dtype=float16' in settings)
    assert ('products in' in caplog.text) == any('amp.' in setting for setting in settings)


def evaluations(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / 'evaluations.jsonl').read_text().splitlines()]


@pytest.fixture
def interrupt(monkeypatch):
    """Numbers of evaluations in which a signal comes; they are counted from 1 once there are any."""
    from tools.engine import evaluation
    predict, begun, interrupted = evaluation.predict, [], []

    def interrupting(*args):
        begun.extend(interrupted[:1])
        for number, result in enumerate(predict(*args)):
            if number == 1 and len(begun) in interrupted:
                ask()()
            yield result

    monkeypatch.setattr(evaluation, 'predict', interrupting)
    return interrupted


def test_evaluation_neither_changes_the_run_nor_is_lost(whole, train_here, tmp_path, interrupt):
    """Stopped while evaluating after iteration 8, the run evaluates when it is resumed."""
    folder, expected = uninterrupted(whole, train_here)
    settings = ['evaluation.interval=4', 'evaluation.save_best=hIoU']
    scored = whole['folder'] / 'scored'
    assert train_here(scored, settings=settings) == expected
    assert_same_run(folder, scored)
    assert [line['iter'] for line in evaluations(scored)] == [4, 8]

    interrupt.append(2)
    before = train_here(tmp_path, settings=settings)
    assert train_here.ended and list(before)[-1] == 8
    assert [line['iter'] for line in evaluations(tmp_path)] == [4]
    after = train_here(tmp_path, '--auto-resume', settings=settings)
    assert {**before, **after} == expected
    assert_same_run(folder, tmp_path)
    assert evaluations(tmp_path) == evaluations(scored)
    best, = best_of(tmp_path)
    assert [best] == best_of(scored)
    assert_same_run(scored, tmp_path, best)


def best_of(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob('best_*.pth'))


@pytest.fixture
def scored(monkeypatch):
    """Let evaluations after n iterations give `scores[n]`; the fixture is `scores`."""
    from datasets import ZeroShotDataset
    from tools.engine.evaluation import Evaluation
    now, scores, evaluate = [0], {}, Evaluation._do_evaluate
    monkeypatch.setattr(ZeroShotDataset, 'evaluate', lambda *args, **kwargs: scores[now[0]])
    monkeypatch.setattr(Evaluation, '_do_evaluate',
                        lambda this, runner: now.__setitem__(0, runner.iter + 1) or evaluate(this, runner))
    return scores


def test_the_best_is_kept_over_stops_and_pruning(train_here, tmp_path, scored):
    """The score of iteration 2 is the best; the run is stopped, resumes and prunes."""
    scored |= {number: {'hIoU': score} for number, score in {2: 0.5, 4: 0.2, 6: 0.3, 8: 0.4, 10: 0.1}.items()}
    settings = ['evaluation.interval=2', 'evaluation.save_best=hIoU', 'checkpoint_config.interval=2',
                'checkpoint_config.max_keep_ckpts=2']
    train_here(tmp_path, at={5: ask()}, settings=settings)
    assert {file.name for file in tmp_path.glob('*_iter_*.pth')} == {'stopped_iter_5.pth', 'best_hIoU_iter_2.pth'}
    assert {file.name for file in tmp_path.glob('iter_*.pth')} == {'iter_2.pth', 'iter_4.pth'}
    train_here(tmp_path, '--auto-resume', settings=settings)
    assert {file.name for file in tmp_path.glob('*.pth')} == {'iter_10.pth', 'iter_11.pth', 'latest.pth',
                                                              'best_hIoU_iter_2.pth'}
    messages = content(tmp_path)['meta']['hook_msgs']
    assert messages['best_score'] == 0.5 and messages['last_ckpt'] == str(tmp_path / 'iter_11.pth')


EVERY_2 = ['runner.max_iters=6', 'evaluation.interval=2', 'checkpoint_config.interval=2']


def test_the_best_is_of_the_folder_not_of_the_checkpoint(train_here, tmp_path, scored):
    """No best score of an older run, of another metric or nan prevents saving; other files named best_ stay."""
    scored |= {2: {'hIoU': 0.9, 'mIoU': 0.1}, 4: {'hIoU': math.nan, 'mIoU': 0.3}, 6: {'hIoU': 0.2, 'mIoU': 0.2}}
    first, second = tmp_path / 'first', tmp_path / 'second'
    train_here(first, settings=[*EVERY_2, 'evaluation.save_best=hIoU'])
    assert best_of(first) == ['best_hIoU_iter_2.pth']
    second.mkdir()
    (second / 'best_for_paper.pth').touch()
    resume = ['--resume-from', first / 'iter_4.pth']
    train_here(second, *resume, settings=[*EVERY_2, 'evaluation.save_best=hIoU'])
    assert best_of(second) == ['best_for_paper.pth', 'best_hIoU_iter_6.pth']
    assert content(second, 'best_hIoU_iter_6.pth')['meta']['hook_msgs']['best_score'] == 0.2
    train_here(first, *resume, settings=[*EVERY_2, 'evaluation.save_best=mIoU'])
    assert best_of(first) == ['best_hIoU_iter_2.pth', 'best_mIoU_iter_6.pth']


def test_the_last_evaluation_is_interrupted_twice(train_here, tmp_path, interrupt):
    """The run is not complete without it, though no iteration is left."""
    interrupt += [1, 2]
    settings = ['runner.max_iters=2', 'evaluation.interval=2', 'evaluation.save_best=hIoU']
    for _ in range(2):
        train_here(tmp_path, '--auto-resume', settings=settings)
        assert train_here.ended and not (tmp_path / 'evaluations.jsonl').exists()
    assert train_here(tmp_path, '--auto-resume', settings=settings) == {} and train_here.ended is None
    assert [line['iter'] for line in evaluations(tmp_path)] == [2]
    best, = best_of(tmp_path)
    assert differences(tmp_path / best, tmp_path / 'iter_2.pth') == ['optimizer'], 'the learning rate is set later'


def test_a_damaged_best_checkpoint_is_ignored(train_here, tmp_path, scored, caplog):
    scored |= {2: {'hIoU': 0.9}, 4: {'hIoU': 0.5}, 6: {'hIoU': 0.2}}
    settings = [*EVERY_2, 'evaluation.save_best=hIoU']
    train_here(tmp_path, at={3: ask()}, settings=settings)
    (tmp_path / 'best_hIoU_iter_2.pth').write_bytes(b'\0damaged')
    train_here(tmp_path, '--auto-resume', settings=settings)
    assert 'best_hIoU_iter_2.pth is truncated or damaged' in caplog.text and 'Its score is ignored' in caplog.text
    assert best_of(tmp_path) == ['best_hIoU_iter_4.pth']


def test_evaluations_that_start_late(whole, train_here, tmp_path):
    """They are counted in steps, come after an iteration, and once only in a resumed run."""
    settings = ['runner.max_iters=5', 'evaluation.interval=2', 'evaluation.start=2', 'evaluation.save_best=hIoU']
    train_here(tmp_path / 'stopped', at={3: ask()}, settings=settings)
    train_here(tmp_path / 'stopped', '--auto-resume', settings=settings)
    assert [line['iter'] for line in evaluations(tmp_path / 'stopped')] == [2, 4]
    train_here(tmp_path / 'steps', '--total-batch-size', 4, settings=settings)
    assert [line['iter'] for line in evaluations(tmp_path / 'steps')] == [4, 8]


def test_the_first_process_decides_whether_an_evaluation_is_missing(train_here, tmp_path, monkeypatch):
    """The others may read the file while it is rewritten; if they disagreed, all would wait for ever."""
    settings = ['evaluation.interval=2', 'checkpoint_config.interval=2', 'runner.max_iters=2']
    train_here(tmp_path, settings=settings)
    (tmp_path / 'evaluations.jsonl').unlink()
    of_first = process.of_first
    monkeypatch.setattr(process, 'of_first', lambda value, place: value is False or of_first(value, place))
    train_here(tmp_path, '--auto-resume', settings=settings)
    assert not (tmp_path / 'evaluations.jsonl').exists()


EVERY_2_OF_4 = ['runner.max_iters=4', 'checkpoint_config.interval=2']


def test_a_kill_between_a_checkpoint_and_its_link(train_here, tmp_path):
    train_here(tmp_path, settings=EVERY_2_OF_4)
    (tmp_path / 'latest.pth').unlink()
    (tmp_path / 'latest.pth').symlink_to('iter_2.pth')
    assert train_here(tmp_path, '--auto-resume', settings=EVERY_2_OF_4) == {}
    assert os.readlink(tmp_path / 'latest.pth') == 'iter_4.pth'


def test_a_file_system_without_links(train_here, tmp_path, monkeypatch, caplog):
    def refuse(*args):
        raise OSError(errno.EPERM, 'Operation not permitted')

    monkeypatch.setattr(Path, 'symlink_to', refuse)
    train_here(tmp_path, settings=EVERY_2_OF_4)
    assert sorted(file.name for file in tmp_path.glob('*.pth')) == ['iter_2.pth', 'iter_4.pth']
    assert caplog.text.count('latest.pth cannot link to it (Operation not permitted)') == 1


def test_what_a_run_writes_down_is_the_run(train_here, tmp_path):
    """With accumulated gradients, which multiply lengths: its config and the same options repeat it."""
    options, settings = ['--total-batch-size', 4], ['runner.max_iters=3']
    train_here(tmp_path / 'one', *options, settings=settings)
    assert content(tmp_path / 'one', 'iter_6.pth')['meta']['clip_rc']['config']['runner']['max_iters'] == 3
    train_here.config = tmp_path / 'one' / train_here.config.name
    train_here(tmp_path / 'two', *options, settings=settings)
    assert_same_run(tmp_path / 'one', tmp_path / 'two', 'iter_6.pth')


def test_other_settings(train_here, tmp_path):
    """A resumed run takes the optimizer's options from the config; its kind and the split must be the same."""
    train_here(tmp_path, at={2: ask()})
    split = content(tmp_path, 'stopped_iter_2.pth')['meta']['clip_rc']['split']
    other = ','.join(f"'{name}'" for name in split['seen'][:1])
    with pytest.raises(ValueError, match='another split than the config'):
        train_here(tmp_path, '--auto-resume', settings=[
            f'data.{part}.unseen=[{other}]' for part in ('train', 'val', 'test')])
    with pytest.raises(ValueError, match='is not the SGD of the config'):
        train_here(tmp_path, '--auto-resume', settings=[
            'optimizer.type=SGD', 'optimizer.momentum=0.9', 'optimizer.fused=False'])
    train_here(tmp_path, '--auto-resume', settings=['optimizer.lr=1e-5', 'optimizer.weight_decay=0.5',
                                                    'lr_config.power=0'])
    group = content(tmp_path)['optimizer']['param_groups'][0]
    assert group['lr'] == pytest.approx(1e-5, rel=1e-3) and group['weight_decay'] == 0.5


def test_a_damaged_checkpoint_is_skipped(whole, train_here, tmp_path):
    folder, expected = uninterrupted(whole, train_here)
    train_here(tmp_path, settings=['checkpoint_config.interval=3'])
    for name, damage in (('iter_11', b''), ('iter_9', (tmp_path / 'iter_9.pth').read_bytes()[:-1000])):
        (tmp_path / f'{name}.pth').write_bytes(damage)
    (tmp_path / '.iter_12.99.part.pth').write_bytes(b'half')
    after = train_here(tmp_path, '--auto-resume')
    assert list(after) == list(range(7, ITERATIONS + 1))
    assert after == {number: losses for number, losses in expected.items() if number > 6}
    assert_same_run(folder, tmp_path)
    assert not list(tmp_path.glob('*.part*'))


def test_an_earlier_run_is_put_aside(train_here, tmp_path):
    settings = ['runner.max_iters=2']
    (tmp_path / 'mine.pth').touch()
    for number in (0, 1, 2):
        train_here(tmp_path, settings=settings)
        names = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob('*.pth')}
        assert names == {'mine.pth'} | {f'{folder}{name}' for name in ('iter_2.pth', 'latest.pth')
                         for folder in ['', *(f'earlier_{each}/' for each in range(1, number + 1))]}
    assert train_here(tmp_path, '--auto-resume', settings=settings) == {}


@pytest.mark.parametrize(('began', 'options', 'trained'), [
    (-3600, [], [3]), (3600, [], [1, 2, 3]), (3600, ['--auto-resume'], [3])])
def test_a_restarted_job_resumes_from_what_it_saved(train_here, tmp_path, monkeypatch, began, options, trained):
    """Files from before the job began are resumed with --auto-resume only."""
    train_here(tmp_path, settings=['runner.max_iters=2'])
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    monkeypatch.setenv(process.JOB_BEGAN, str(time.time() + began))
    assert list(train_here(tmp_path, *options, settings=['runner.max_iters=3'])) == trained


def test_a_restart_before_the_first_checkpoint_of_a_job_that_took_weights_from_its_folder(
        train_here, tmp_path, monkeypatch):
    """The first attempt has moved them."""
    train_here(tmp_path, settings=['runner.max_iters=2'])
    options = ['--load-from', tmp_path / 'iter_2.pth']
    monkeypatch.setattr(runner.TrainingRunner, 'run', lambda *args, **kwargs: None)
    train_here(tmp_path, *options)
    assert not (tmp_path / 'iter_2.pth').exists()
    monkeypatch.undo()
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    monkeypatch.setenv(process.JOB_BEGAN, str(time.time() + 3600))
    assert list(train_here(tmp_path, *options, settings=['runner.max_iters=3'])) == [1, 2, 3]


def test_resuming_from_an_older_checkpoint(whole, train_here, tmp_path):
    """Resuming from an older checkpoint moves the later ones, and their evaluations, aside."""
    _, expected = uninterrupted(whole, train_here)
    settings = ['checkpoint_config.interval=3', 'evaluation.interval=3', 'evaluation.save_best=hIoU',
                'evaluation.rule=less']
    train_here(tmp_path, settings=settings)
    before = {line['iter']: line for line in evaluations(tmp_path)}
    after = train_here(tmp_path, '--resume-from', tmp_path / 'iter_3.pth', at={5: ask()}, settings=settings)
    assert after == {4: expected[4], 5: expected[5]}
    names = {file.name for file in tmp_path.glob('*.pth')} - {file.name for file in tmp_path.glob('best*')}
    assert names == {'iter_3.pth', 'stopped_iter_5.pth', 'latest.pth'}
    assert {'iter_6.pth', 'iter_9.pth', 'iter_11.pth'} <= {file.name for file in (tmp_path / 'earlier_1').iterdir()}
    assert [line['iter'] for line in evaluations(tmp_path)] == [3]
    assert [line['iter'] for line in evaluations(tmp_path / 'earlier_1')] == [3, 6, 9]
    assert list(train_here(tmp_path, '--auto-resume', settings=settings)) == [6, 7, 8, 9, 10, 11]
    assert {line['iter']: line for line in evaluations(tmp_path)} == before


def test_another_batch(train_here, tmp_path, caplog):
    """The images continue where they were; the iterations per step must be the same."""
    train_here(tmp_path, at={3: ask()})
    train_here(tmp_path, '--auto-resume', settings=['data.samples_per_gpu=1'])
    assert content(tmp_path)['meta']['progress'] == {
        'images': 3 * 2 + 8, 'images_per_iteration': 1, 'iterations_per_step': 1}
    assert 'the run had 2 images per iteration and continues with 1' in caplog.text
    with pytest.raises(ValueError, match='with 1 iteration.* per step, now there are 3'):
        train_here(tmp_path, '--auto-resume', '--total-batch-size', 6)


def test_two_runs_in_one_folder(tmp_path):
    lock = lock_folder(tmp_path, '--work-dir')
    if not (other := os.fork()):
        try:
            lock_folder(tmp_path, '--work-dir')
        except UserError as error:
            os._exit(3 if f'another run writes to {tmp_path}: wait' in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 3
    lock.close()
    lock_folder(tmp_path, '--work-dir').close()


if TWO_PROCESSES in os.environ:
    def test_in_one_of_two(train_here, in_one_of_two):
        """Train a whole run, and one in which only the second process gets a signal."""
        expected = train_here(in_one_of_two / 'whole')
        before = train_here(in_one_of_two / 'stopped', at={5: ask()} if os.environ['RANK'] == '1' else {})
        assert train_here.ended and list(before) == [1, 2, 3, 4, 5]
        after = train_here(in_one_of_two / 'stopped', '--auto-resume')
        assert {**before, **after} == expected


def test_two_processes(tiny_configs, tmp_path, cache):
    in_two_processes(__file__, tiny_configs['inductive'], tmp_path, cache)
    assert_same_run(tmp_path / 'whole', tmp_path / 'stopped')
    states = content(tmp_path / 'whole')['random_states']
    assert len(states) == 2 and not torch.equal(states[0]['torch'], states[1]['torch'])
