"""An interrupted run is, from the next iteration on, the run that was not interrupted, bit for bit."""
import argparse
import errno
import fcntl
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.conftest import REPOSITORY
from tests.test_scripts import free_port
from tools import train
from tools.engine import errors, process, runner

ITERATIONS = 11
NO_CLIP = ['model.pretrained=nowhere.pt', 'model.pretrained_text=nowhere.pt']


class Run:
    """Trains in this process. `at` names iterations (from 1) and what happens in the midst of them."""

    def __init__(self, monkeypatch, config: Path):
        self.monkeypatch, self.config = monkeypatch, config

    def __call__(self, folder: Path, *options, at=None, settings=()) -> dict[int, dict[str, float]]:
        """Losses by iteration; what ends the run early is in `ended`."""
        losses, at, parse = {}, at or {}, runner.TrainingRunner.train

        def spied(this, *args, **kwargs):
            number = this.iter + 1
            at.get(number, lambda: None)()
            try:
                parse(this, *args, **kwargs)
            finally:
                if hasattr(this, 'outputs'):
                    losses[number] = dict(this.outputs['log_vars'])

        self.ended = None
        settings = [f'runner.max_iters={ITERATIONS}', 'checkpoint_config.interval=100', *settings]
        with self.monkeypatch.context() as patch:
            patch.setattr(runner.TrainingRunner, 'train', spied)
            patch.setattr(sys, 'argv', ['train.py', *map(str, (
                self.config, '--work-dir', folder, '--seed', 3, '--hang-timeout', 0,  # which would end this process
                *options, '--cfg-options', *settings))])
            try:
                train.main()
            except process.Stopped as stopped:
                self.ended = stopped
            finally:
                while process.AT_END:  # as at a process's end
                    process.AT_END.pop()()
        return losses


@pytest.fixture
def train_here(monkeypatch, tiny_configs, cache):
    monkeypatch.setenv('CLIPRC_CACHE', str(cache))
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)
    return Run(monkeypatch, tiny_configs['inductive'])


def ask(number: int = signal.SIGTERM):
    return lambda: os.kill(os.getpid(), number)


def content(folder: Path, name: str = f'iter_{ITERATIONS}.pth') -> dict:
    return torch.load(folder / name, weights_only=True)


def assert_same(one, other, name: str = '') -> None:
    """Two nests of values and tensors are the same, bit for bit."""
    assert type(one) is type(other), name
    if isinstance(one, dict):
        assert list(one) == list(other), name
    if isinstance(one, (dict, list, tuple)):
        assert len(one) == len(other), name
        for key in one if isinstance(one, dict) else range(len(one)):
            assert_same(one[key], other[key], f'{name}.{key}')
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), name
    else:
        assert one == other, name


def assert_same_run(one: Path, other: Path, name: str = f'iter_{ITERATIONS}.pth') -> None:
    """The files of two runs hold the same weights, optimizer and random states."""
    for part in ('state_dict', 'optimizer', 'random_states'):
        assert_same(content(one, name)[part], content(other, name)[part], part)


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> dict[str, tuple]:
    """Runs that were not interrupted, by their settings."""
    return {'folder': tmp_path_factory.mktemp('whole')}


def uninterrupted(whole: dict, train_here: Run, settings=(), options=()) -> tuple[Path, dict]:
    key = (*settings, *options)
    if key not in whole:
        folder = whole['folder'] / str(len(whole))
        whole[key] = folder, train_here(folder, '--no-validate', *options, settings=settings)
    return whole[key]


@pytest.mark.parametrize('place', range(1, ITERATIONS))
def test_stopped_at_every_place(whole, train_here, tmp_path, place):
    folder, expected = uninterrupted(whole, train_here)
    before = train_here(tmp_path, '--no-validate', at={place: ask()})
    assert train_here.ended.signal == signal.SIGTERM and list(before) == list(range(1, place + 1))
    assert (tmp_path / 'latest.pth').resolve().name == f'stopped_iter_{place}.pth'
    after = train_here(tmp_path, '--no-validate', '--auto-resume', settings=NO_CLIP)
    assert {**before, **after} == expected and list(after) == list(range(place + 1, ITERATIONS + 1))
    assert_same_run(folder, tmp_path)
    assert not list(tmp_path.glob('stopped_*')), 'it is of no use any more'
    assert all(math.isfinite(value) for losses in expected.values() for value in losses.values())


@pytest.mark.parametrize('settings', [('amp.dtype=float16',), ('amp.dtype=bfloat16', 'data.workers_per_gpu=2'),
                                      ('optimizer.type=SGD', 'optimizer.momentum=0.9', 'optimizer.fused=False')])
def test_scaler_workers_and_another_optimizer(whole, train_here, tmp_path, settings):
    folder, expected = uninterrupted(whole, train_here, settings)
    before = train_here(tmp_path, '--no-validate', at={4: ask(signal.SIGINT)}, settings=settings)
    assert train_here.ended.signal == signal.SIGINT
    scaler = content(tmp_path, 'stopped_iter_4.pth')['meta'].get('grad_scaler')
    assert (scaler is None) == (settings[0] != 'amp.dtype=float16')
    after = train_here(tmp_path, '--no-validate', '--auto-resume', settings=settings)
    assert {**before, **after} == expected
    assert_same_run(folder, tmp_path)
    if scaler:
        assert content(tmp_path)['meta']['grad_scaler'] == content(folder)['meta']['grad_scaler']


def test_accumulated_gradients_are_not_lost(whole, train_here, tmp_path):
    """The run goes on to the optimizer's next step, since no checkpoint holds half of one."""
    options = ['--total-batch-size', 6]
    settings = ['runner.max_iters=4']
    name = 'iter_12.pth'
    folder, expected = uninterrupted(whole, train_here, settings, options)
    before = train_here(tmp_path, '--no-validate', *options, at={4: ask()}, settings=settings)
    assert list(before) == list(range(1, 7)) and (tmp_path / 'stopped_iter_6.pth').exists()
    after = train_here(tmp_path, '--no-validate', '--auto-resume', *options, settings=settings)
    assert {**before, **after} == expected
    assert_same_run(folder, tmp_path, name)


def evaluations(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / 'evaluations.jsonl').read_text().splitlines()]


def test_evaluation_neither_changes_the_run_nor_is_lost(whole, train_here, tmp_path, monkeypatch):
    """Stopped while evaluating after iteration 8: the evaluation is done when the run goes on."""
    folder, expected = uninterrupted(whole, train_here)
    settings = ['evaluation.interval=4', 'evaluation.save_best=hIoU']
    scored = whole['folder'] / 'scored'
    assert train_here(scored, settings=settings) == expected
    assert_same_run(folder, scored)
    assert [line['iter'] for line in evaluations(scored)] == [4, 8]

    from tools.engine import evaluation
    predict, asked = evaluation.predict, []

    def interrupted(*args):
        for number, result in enumerate(predict(*args)):
            if number == 1 and (tmp_path / 'evaluations.jsonl').exists() and not asked:
                asked.append(number)
                ask()()
            yield result

    monkeypatch.setattr(evaluation, 'predict', interrupted)
    before = train_here(tmp_path, settings=settings)
    assert asked and train_here.ended and list(before)[-1] == 8
    assert [line['iter'] for line in evaluations(tmp_path)] == [4]
    with (tmp_path / 'evaluations.jsonl').open('a') as file:
        file.write('{"iter": 8, "mIo')  # cut off by a kill
    after = train_here(tmp_path, '--auto-resume', settings=settings)
    assert {**before, **after} == expected
    assert_same_run(folder, tmp_path)
    lines = (tmp_path / 'evaluations.jsonl').read_text().splitlines()
    assert json.loads(lines[-1]) == evaluations(scored)[1]
    best, = tmp_path.glob('best_*.pth')
    assert [best.name] == [file.name for file in scored.glob('best_*.pth')]
    assert_same_run(scored, tmp_path, best.name)


def test_the_last_evaluation_is_broken_off_and_again(train_here, tmp_path, monkeypatch):
    """The run is not over before it is done, though no iteration is left."""
    from tools.engine import evaluation
    predict, rounds = evaluation.predict, []

    def interrupted(*args):
        rounds.append(1)
        for result in predict(*args):
            if len(rounds) < 3:
                ask(signal.SIGINT)()
            yield result

    monkeypatch.setattr(evaluation, 'predict', interrupted)
    settings = ['runner.max_iters=2', 'evaluation.interval=2', 'evaluation.save_best=hIoU']
    for _ in range(2):
        train_here(tmp_path, '--auto-resume', settings=settings)
        assert train_here.ended.signal == signal.SIGINT and not (tmp_path / 'evaluations.jsonl').exists()
    assert train_here(tmp_path, '--auto-resume', settings=settings) == {} and train_here.ended is None
    assert [line['iter'] for line in evaluations(tmp_path)] == [2]
    best, = tmp_path.glob('best_*.pth')
    assert_same(content(tmp_path, best.name)['random_states'], content(tmp_path, 'iter_2.pth')['random_states'])


def best_of(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob('best_*.pth'))


@pytest.fixture
def scored(monkeypatch):
    """Evaluations after n iterations give `scores[n]`, which this gives."""
    from datasets import ZeroShotDataset
    from tools.engine.evaluation import Evaluation
    now, scores, evaluate = [0], {}, Evaluation._do_evaluate
    monkeypatch.setattr(ZeroShotDataset, 'evaluate', lambda *args, **kwargs: scores[now[0]])
    monkeypatch.setattr(Evaluation, '_do_evaluate',
                        lambda this, runner: now.__setitem__(0, runner.iter + 1) or evaluate(this, runner))
    return scores


def test_the_best_is_kept_over_stops_and_pruning(train_here, tmp_path, scored):
    """The score of iteration 2 is the best; the run is stopped, goes on and prunes."""
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
    """An older run's best score keeps none of this one from being saved; nor do another metric's, other files, nan."""
    scored |= {2: {'hIoU': 0.9, 'mIoU': 0.1}, 4: {'hIoU': math.nan, 'mIoU': 0.3}, 6: {'hIoU': 0.2, 'mIoU': 0.2}}
    first, second = tmp_path / 'first', tmp_path / 'second'
    train_here(first, settings=[*EVERY_2, 'evaluation.save_best=hIoU'])
    assert best_of(first) == ['best_hIoU_iter_2.pth']
    second.mkdir()
    (second / 'best_for_paper.pth').touch()
    go_on = ['--resume-from', first / 'iter_4.pth']
    train_here(second, *go_on, settings=[*EVERY_2, 'evaluation.save_best=hIoU'])
    assert best_of(second) == ['best_for_paper.pth', 'best_hIoU_iter_6.pth']
    assert content(second, 'best_hIoU_iter_6.pth')['meta']['hook_msgs']['best_score'] == 0.2
    train_here(first, *go_on, settings=[*EVERY_2, 'evaluation.save_best=mIoU'])
    assert best_of(first) == ['best_hIoU_iter_2.pth', 'best_mIoU_iter_6.pth']


def test_a_damaged_best_checkpoint_keeps_no_run_from_going_on(train_here, tmp_path, scored, caplog):
    scored |= {2: {'hIoU': 0.9}, 4: {'hIoU': 0.5}, 6: {'hIoU': 0.2}}
    settings = [*EVERY_2, 'evaluation.save_best=hIoU']
    train_here(tmp_path, at={3: ask()}, settings=settings)
    (tmp_path / 'best_hIoU_iter_2.pth').write_bytes(b'\0damaged')
    train_here(tmp_path, '--auto-resume', settings=settings)
    assert 'best_hIoU_iter_2.pth is truncated or damaged' in caplog.text and 'does not count as the best' in caplog.text
    assert best_of(tmp_path) == ['best_hIoU_iter_4.pth']


def test_evaluations_that_start_late(whole, train_here, tmp_path):
    """They are counted in steps, come after an iteration, and where the run goes on they come once."""
    settings = ['runner.max_iters=5', 'evaluation.interval=2', 'evaluation.start=2', 'evaluation.save_best=hIoU']
    train_here(tmp_path / 'stopped', at={3: ask()}, settings=settings)
    train_here(tmp_path / 'stopped', '--auto-resume', settings=settings)
    assert [line['iter'] for line in evaluations(tmp_path / 'stopped')] == [2, 4]
    train_here(tmp_path / 'steps', '--total-batch-size', 4, settings=settings)
    assert [line['iter'] for line in evaluations(tmp_path / 'steps')] == [4, 8]


def test_whether_an_evaluation_lacks_is_the_first_process_s_word(train_here, tmp_path, monkeypatch):
    """The others may read the file while it is written anew; if they disagreed all would wait for ever."""
    settings = ['evaluation.interval=2', 'checkpoint_config.interval=2', 'runner.max_iters=2']
    train_here(tmp_path, settings=settings)
    (tmp_path / 'evaluations.jsonl').unlink()
    of_first = process.of_first
    monkeypatch.setattr(process, 'of_first', lambda value, place: value is False or of_first(value, place))
    train_here(tmp_path, '--auto-resume', settings=settings)
    assert not (tmp_path / 'evaluations.jsonl').exists()


def test_a_kill_between_a_checkpoint_and_its_link(train_here, tmp_path):
    settings = ['runner.max_iters=4', 'checkpoint_config.interval=2']
    train_here(tmp_path, '--no-validate', settings=settings)
    (tmp_path / 'latest.pth').unlink()
    (tmp_path / 'latest.pth').symlink_to('iter_2.pth')
    assert train_here(tmp_path, '--no-validate', '--auto-resume', settings=settings) == {}
    assert os.readlink(tmp_path / 'latest.pth') == 'iter_4.pth'


def test_a_file_system_without_links(train_here, tmp_path, monkeypatch, caplog):
    def refuse(*args):
        raise OSError(errno.EPERM, 'Operation not permitted')

    monkeypatch.setattr(Path, 'symlink_to', refuse)
    train_here(tmp_path, '--no-validate', settings=['runner.max_iters=4', 'checkpoint_config.interval=2'])
    assert sorted(file.name for file in tmp_path.glob('*.pth')) == ['iter_2.pth', 'iter_4.pth']
    assert caplog.text.count('latest.pth cannot be a link to it (Operation not permitted)') == 1


def test_a_restart_before_the_first_checkpoint_of_a_job_that_took_weights_from_its_folder(
        train_here, tmp_path, monkeypatch):
    """The first try has put them aside."""
    train_here(tmp_path, '--no-validate', settings=['runner.max_iters=2'])
    options = ['--no-validate', '--load-from', tmp_path / 'iter_2.pth']
    monkeypatch.setattr(runner.TrainingRunner, 'run', lambda *args, **kwargs: None)
    train_here(tmp_path, *options)
    assert not (tmp_path / 'iter_2.pth').exists()
    monkeypatch.undo()
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    monkeypatch.setenv(errors.JOB_BEGAN, str(time.time() + 3600))
    assert list(train_here(tmp_path, *options, settings=['runner.max_iters=3'])) == [1, 2, 3]


def test_what_a_run_writes_down_is_the_run(train_here, tmp_path):
    """With accumulated gradients, whose lengths are multiplied: its config and the same options make it again."""
    options, settings = ['--no-validate', '--total-batch-size', 4], ['runner.max_iters=3']
    train_here(tmp_path / 'one', *options, settings=settings)
    assert content(tmp_path / 'one', 'iter_6.pth')['meta']['clip_rc']['config']['runner']['max_iters'] == 3
    train_here.config = tmp_path / 'one' / train_here.config.name
    train_here(tmp_path / 'two', *options, settings=settings)
    assert_same_run(tmp_path / 'one', tmp_path / 'two', 'iter_6.pth')


def test_another_task_is_no_run_to_go_on_with(train_here, tmp_path):
    train_here(tmp_path, '--no-validate', at={2: ask()})
    split = content(tmp_path, 'stopped_iter_2.pth')['meta']['clip_rc']['split']
    other = ','.join(f"'{name}'" for name in split['seen'][:1])
    with pytest.raises(ValueError, match=f'the unseen classes were .*; in the config they are {split["seen"][0]}: '):
        train_here(tmp_path, '--no-validate', '--auto-resume', settings=[
            f'data.{part}.unseen=[{other}]' for part in ('train', 'val', 'test')])
    with pytest.raises(ValueError, match='is another one than SGD'):
        train_here(tmp_path, '--no-validate', '--auto-resume', settings=[
            'optimizer.type=SGD', 'optimizer.momentum=0.9', 'optimizer.fused=False'])


def test_a_damaged_checkpoint_is_passed_over(whole, train_here, tmp_path):
    folder, expected = uninterrupted(whole, train_here)
    train_here(tmp_path, '--no-validate', settings=['checkpoint_config.interval=3'])
    for name, damage in (('iter_11', b''), ('iter_9', (tmp_path / 'iter_9.pth').read_bytes()[:-1000])):
        (tmp_path / f'{name}.pth').write_bytes(damage)
    (tmp_path / 'iter_12.pth.part').write_bytes(b'half')
    after = train_here(tmp_path, '--no-validate', '--auto-resume')
    assert list(after) == list(range(7, ITERATIONS + 1))
    assert after == {number: losses for number, losses in expected.items() if number > 6}
    assert_same_run(folder, tmp_path)
    assert not list(tmp_path.glob('*.part'))


def test_an_optimizer_of_strange_parts(whole, train_here, tmp_path):
    folder, _ = uninterrupted(whole, train_here)
    strange = torch.load(folder / f'iter_{ITERATIONS}.pth', weights_only=True)
    strange['optimizer']['param_groups'][0]['more'] = argparse.Namespace()
    torch.save({**strange, 'scheduler': argparse.Namespace()}, tmp_path / 'it.pth')
    with pytest.raises(ValueError, match=r'it\.pth cannot be read safely: .* argparse\.Namespace'):
        train_here(tmp_path, '--no-validate', '--resume-from', tmp_path / 'it.pth')
    train_here(tmp_path, '--no-validate', '--load-from', tmp_path / 'it.pth', settings=['runner.max_iters=1'])


def test_an_earlier_run_is_put_aside(train_here, tmp_path):
    settings = ['runner.max_iters=2']
    for number in (0, 1, 2):
        train_here(tmp_path, '--no-validate', settings=settings)
        names = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob('*.pth')}
        assert names == {f'{folder}{name}' for name in ('iter_2.pth', 'latest.pth')
                         for folder in ['', *(f'earlier_{each}/' for each in range(1, number + 1))]}
    assert train_here(tmp_path, '--no-validate', '--auto-resume', settings=settings) == {}


@pytest.mark.parametrize(('launched', 'trained'), [('before', [3]), ('after', [1, 2, 3])])
def test_a_restarted_job_goes_on_from_what_it_saved(train_here, tmp_path, monkeypatch, launched, trained):
    """Without --auto-resume; what lay in the folder before the job was launched is not its own."""
    train_here(tmp_path, '--no-validate', settings=['runner.max_iters=2'])
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    monkeypatch.setenv(errors.JOB_BEGAN, str(time.time() + (3600 if launched == 'after' else -3600)))
    assert list(train_here(tmp_path, '--no-validate', settings=['runner.max_iters=3'])) == trained


def test_a_restart_before_the_first_checkpoint_of_a_job_that_went_on(train_here, tmp_path, monkeypatch):
    train_here(tmp_path, '--no-validate', settings=['runner.max_iters=2'])
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    monkeypatch.setenv(errors.JOB_BEGAN, str(time.time() + 3600))
    assert list(train_here(tmp_path, '--no-validate', '--auto-resume', settings=['runner.max_iters=3'])) == [3]


def test_taken_back(whole, train_here, tmp_path):
    """After --resume-from of an older checkpoint the way that the run took before is out of the way."""
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


def test_another_learning_rate(train_here, tmp_path):
    """What a config says of the optimizer counts, also where a run goes on."""
    train_here(tmp_path, '--no-validate', at={3: ask()})
    train_here(tmp_path, '--no-validate', '--auto-resume', settings=['optimizer.lr=1e-5', 'optimizer.weight_decay=0.5',
                                                                     'lr_config.power=0'])
    group = content(tmp_path)['optimizer']['param_groups'][0]
    assert group['lr'] == pytest.approx(1e-5, rel=1e-3) and group['weight_decay'] == 0.5


def test_another_batch(train_here, tmp_path, caplog):
    """The images go on where they were; but iterations must be of the same kind."""
    train_here(tmp_path, '--no-validate', at={3: ask()})
    train_here(tmp_path, '--no-validate', '--auto-resume', settings=['data.samples_per_gpu=1'])
    assert content(tmp_path)['meta']['progress'] == {
        'images': 3 * 2 + 8, 'images_per_iteration': 1, 'iterations_per_step': 1}
    assert 'the run had 2 images an iteration and goes on with 1' in caplog.text
    with pytest.raises(ValueError, match='1 iteration.* of 1 images, here it is 3 of 2'):
        train_here(tmp_path, '--no-validate', '--auto-resume', '--total-batch-size', 6)


def test_a_signal_in_the_midst_of_agreeing(monkeypatch):
    """It counts the next time."""
    stop = runner.Stop(process.Place(torch.device('cpu'), 0, 2))
    monkeypatch.setattr(process.Place, 'distributed', True)
    monkeypatch.setattr(dist, 'all_reduce', lambda *args, **kwargs: stop._asked(signal.SIGTERM, None))
    assert stop.agreed() is None
    monkeypatch.setattr(dist, 'all_reduce', lambda *args, **kwargs: None)
    assert stop.agreed() == signal.SIGTERM


# ---- what ends a run

def test_a_loss_that_is_no_number(train_here, tmp_path, monkeypatch, caplog):
    from models.losses import MaskLoss
    forward, calls = MaskLoss.forward, []

    def spoiled(*args, **kwargs):
        calls.append(1)
        losses = forward(*args, **kwargs)
        return {**losses, 'loss_dice': losses['loss_dice'] * (math.nan if len(calls) == 6 else 1)}

    monkeypatch.setattr(MaskLoss, 'forward', spoiled)
    with pytest.raises(ValueError, match='the loss is not finite at iteration 6') as caught:
        train_here(tmp_path, '--no-validate', settings=['checkpoint_config.interval=2'])
    message = str(caught.value)
    assert message.count('.jpg') == 4 and 'JPEGImages/' in message
    assert f'the last checkpoint is {tmp_path}/iter_4.pth; --auto-resume goes on there' in caplog.text
    assert sorted(file.name for file in tmp_path.glob('*.pth')) == ['iter_2.pth', 'iter_4.pth', 'latest.pth']
    assert all(tensor.isfinite().all() for tensor in content(tmp_path, 'latest.pth')['state_dict'].values())
    after = train_here(tmp_path, '--no-validate', '--auto-resume')
    assert list(after) == list(range(5, ITERATIONS + 1))


def test_weights_that_are_no_numbers_are_not_saved(train_here, tmp_path, monkeypatch, caplog):
    def spoil(this, *args, **kwargs):
        step(this, *args, **kwargs)
        if len(taken) == 3:
            next(each for each in this.param_groups[0]['params'] if each.requires_grad).data[0] = math.inf
        taken.append(1)

    step, taken = torch.optim.AdamW.step, []
    monkeypatch.setattr(torch.optim.AdamW, 'step', spoil)
    with pytest.raises(ValueError, match=r'the weights \(.*\) are not finite at iteration 4') as caught:
        train_here(tmp_path, '--no-validate', settings=['checkpoint_config.interval=2'])
    assert str(caught.value).count('.jpg') == 4 and 'iter_2.pth' in caplog.text
    assert sorted(file.name for file in tmp_path.glob('*.pth')) == ['iter_2.pth', 'latest.pth']


def test_weights_that_are_no_numbers_are_not_the_best(train_here, tmp_path, monkeypatch, scored):
    """They are found before they are scored, so that nothing goes on from them."""
    def spoil(this, *args, **kwargs):
        step(this, *args, **kwargs)
        if len(taken) == 1:
            next(each for each in this.param_groups[0]['params'] if each.requires_grad).data[0] = math.nan
        taken.append(1)

    step, taken = torch.optim.AdamW.step, []
    monkeypatch.setattr(torch.optim.AdamW, 'step', spoil)
    scored[2] = {'hIoU': 0.9}
    with pytest.raises(ValueError, match=r'the weights \(.*\) are not finite at iteration 2'):
        train_here(tmp_path, settings=['evaluation.interval=2', 'evaluation.save_best=hIoU'])
    assert not list(tmp_path.glob('*.pth'))


def test_a_bad_batch_of_a_step_of_several_is_named(train_here, tmp_path, monkeypatch):
    """The weights are spoiled by the first batch of a step of 3; the message names the images of all of them."""
    def spoil(this, *args, **kwargs):
        step(this, *args, **kwargs)
        next(each for each in this.param_groups[0]['params'] if each.requires_grad).data[0] = math.nan

    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, 'step', spoil)
    with pytest.raises(ValueError, match='the loss is not finite at iteration 4.*, and of the 3 before') as caught:
        train_here(tmp_path, '--no-validate', '--total-batch-size', 6)
    assert str(caught.value).count('.jpg') == 4 * 2


def test_loader_workers_that_end_do_not_disturb_the_last_checkpoint(train_here, tmp_path, monkeypatch):
    """Told to end with the training, they do so after a time, even while a large checkpoint is written."""
    from tools.engine import checkpoints

    def slow(*args):
        for worker in multiprocessing.active_children():
            worker.kill()
            worker.join()
        write(*args)

    write = checkpoints.write
    monkeypatch.setattr(checkpoints, 'write', slow)
    train_here(tmp_path, '--no-validate', at={3: ask()}, settings=['data.workers_per_gpu=2'])
    assert train_here.ended.signal == signal.SIGTERM and (tmp_path / 'stopped_iter_3.pth').exists()


def test_a_closed_terminal_ends_a_run_with_a_checkpoint(train_here, tmp_path, request):
    request.addfinalizer(partial(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_IGN)))
    train_here(tmp_path / 'nohup', '--no-validate', at={2: ask(signal.SIGHUP)}, settings=['runner.max_iters=3'])
    assert train_here.ended is None
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    train_here(tmp_path, '--no-validate', at={2: ask(signal.SIGHUP)})
    assert train_here.ended.signal == signal.SIGHUP and (tmp_path / 'stopped_iter_2.pth').exists()


def test_two_runs_in_one_folder(tmp_path):
    with (tmp_path / '.run').open('a') as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, '-c', 'import sys; from pathlib import Path; from tools.engine import process; '
             'process.run(lambda: process.hold(Path(sys.argv[1]), patience=0))', tmp_path],
            cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 1 and f'error: another run writes to {tmp_path}: wait' in done.stderr
    process.hold(tmp_path, patience=0)


def started(folder: Path, *command) -> subprocess.Popen:
    with (folder / 'said').open('w') as stream:
        return subprocess.Popen(list(map(str, command)), stdout=stream, stderr=stream, start_new_session=True, env={
            **os.environ, 'PYTHON': sys.executable, 'PORT': str(free_port())})


def wait_for(process: subprocess.Popen, file: Path, text: str) -> None:
    deadline = time.monotonic() + 120
    while text not in file.read_text():
        assert process.poll() is None and time.monotonic() < deadline, file.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize('processes', [1, 2])
def test_sigterm_to_all_processes_with_loader_workers(run, tiny_configs, tmp_path, processes):
    """As systemd and SLURM send it: the launcher, the processes and their loader workers get it at once."""
    command = ['bash', REPOSITORY / 'dist_train.sh', tiny_configs['inductive'], tmp_path / 'work', processes,
               '--no-validate', '--seed', 3, '--cfg-options', 'runner.max_iters=1000', 'data.workers_per_gpu=2']
    with started(tmp_path, *command) as process:
        wait_for(process, tmp_path / 'said', 'Iter [3/')
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
    said = (tmp_path / 'said').read_text()
    assert process.returncode == 128 + signal.SIGTERM and 'Traceback' not in said, said
    saved = (tmp_path / 'work/latest.pth').resolve()
    assert f'SIGTERM after iteration {saved.stem.split("_")[-1]}' in said and said.endswith('stopped.\n')
    assert len(torch.load(saved, weights_only=True)['random_states']) == processes


if 'TWO_PROCESSES' in os.environ:  # each of them runs this file with pytest, for the sake of the fixtures
    def test_in_one_of_two(train_here, monkeypatch):
        """A whole run, and one that only the second process was asked to end."""
        config, folder = map(Path, os.environ['TWO_PROCESSES'].split(os.pathsep))
        initialise = dist.init_process_group
        monkeypatch.setattr(dist, 'init_process_group',
                            lambda *args, **kwargs: dist.is_initialized() or initialise(*args, **kwargs))
        train_here.config, options = config, ['--launcher', 'pytorch', '--no-validate']
        expected = train_here(folder / 'whole', *options)
        before = train_here(folder / 'stopped', *options, at={5: ask()} if os.environ['RANK'] == '1' else {})
        assert train_here.ended and list(before) == [1, 2, 3, 4, 5]
        after = train_here(folder / 'stopped', *options, '--auto-resume')
        assert {**before, **after} == expected
        dist.destroy_process_group()


def test_two_processes(run, tiny_configs, tmp_path):
    run('tools/torchrun.py', '--nproc_per_node', 2, '--master_port', free_port(), '-m', 'pytest', '-p', 'no:xdist',
        f'{Path(__file__)}::test_in_one_of_two',
        env={'TWO_PROCESSES': f'{tiny_configs["inductive"]}{os.pathsep}{tmp_path}', 'PYTEST_ADDOPTS': ''})
    assert_same_run(tmp_path / 'whole', tmp_path / 'stopped')
    states = content(tmp_path / 'whole')['random_states']
    assert len(states) == 2 and not torch.equal(states[0]['torch'], states[1]['torch'])
