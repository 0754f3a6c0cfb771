"""What ends a run early, and what an iteration asks of the device and of other processes."""
import math
import os
import signal
from collections import Counter
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmcv.runner.iter_based_runner import IterLoader
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from models import CLIPRC
from models.errors import UserError
from tests.conftest import logged
from tests.tools.training import TWO_PROCESSES, ask, content, in_two_processes
from tools.engine import log_buffer, process, runner, stopping


def test_a_signal_while_processes_agree(monkeypatch):
    """It counts the next time."""
    stop, work = stopping.Stop(process.Place(torch.device('cpu'), 0, 2)), SimpleNamespace(wait=lambda: None)
    monkeypatch.setattr(process.Place, 'distributed', True)
    monkeypatch.setattr(dist, 'all_reduce', lambda *args, **kwargs: work)
    stop.ask()
    stop._note(signal.SIGTERM, None)
    assert stop.agreed(None) is None
    stop.ask()
    assert stop.agreed(None) == signal.SIGTERM


class OnGPU:
    """Stands for a loss on a GPU, and for its event: the copy on the host holds no value before the event."""
    is_cuda, dtype = True, torch.float32

    def __init__(self, value: float, calls: list[str]):
        self.value, self.calls, self.copy = value, calls, torch.zeros(())

    def detach(self):
        return self

    def to(self, target, non_blocking: bool = False):
        if target == torch.float32:
            return self
        assert target == 'cpu' and non_blocking
        self.calls.append('copy')
        return self.copy

    def record(self) -> None:
        self.calls.append('record')

    def synchronize(self) -> None:
        self.calls.append('wait')
        self.copy.fill_(self.value)


def test_a_gpu_is_not_waited_for_in_its_iteration(monkeypatch):
    stop, calls = stopping.Stop(process.Place(torch.device('cpu'))), []
    run = SimpleNamespace(iter=0, files=[' a.jpg'], not_finite=lambda what, iteration, where: f'{iteration} {where}')
    for run.iter, value in enumerate([1., math.nan, 1.]):
        loss = OnGPU(value, calls)
        monkeypatch.setattr(torch.cuda, 'Event', lambda loss=loss: loss)
        run.outputs = {'loss': loss}
        calls.clear()
        stop.after_train_iter(run)
        assert calls == ['copy', 'record', *(['wait'] if run.iter else [])]  # for the loss of the iteration before
        if run.iter < 2:
            assert stop.agreed(run) is None
    with pytest.raises(UserError, match=r"2 \[' a.jpg'\]"):
        stop.agreed(run)


def spoil(monkeypatch, iterations: set[int], value: float = math.nan) -> None:
    """Make the losses of these iterations of a process (counted from 1) not finite."""
    forward, calls = CLIPRC.forward_train, []

    def spoiled(*args, **kwargs):
        calls.append(1)
        losses = forward(*args, **kwargs)
        return {**losses, 'decode.loss_dice': losses['decode.loss_dice'] * (
            value if len(calls) in iterations else 1)}

    monkeypatch.setattr(CLIPRC, 'forward_train', spoiled)


def test_a_loss_that_is_not_finite(train_here, tmp_path, monkeypatch, caplog):
    spoil(monkeypatch, {6})
    with pytest.raises(ValueError, match='the loss is not finite at iteration 6') as caught:
        train_here(tmp_path, settings=['checkpoint_config.interval=2'])
    message = str(caught.value)
    assert message.count('.jpg') == 4 and 'JPEGImages/' in message
    assert f'the last checkpoint is {tmp_path}/iter_4.pth: resume with --auto-resume' in caplog.text
    assert sorted(file.name for file in tmp_path.glob('*.pth')) == ['iter_2.pth', 'iter_4.pth', 'latest.pth']
    assert all(tensor.isfinite().all() for tensor in content(tmp_path, 'latest.pth')['state_dict'].values())
    after = train_here(tmp_path, '--auto-resume')
    assert list(after) == [5, 6, 7, 8, 9, 10, 11]


@pytest.fixture
def batches(monkeypatch) -> list[list[str]]:
    """The files of each iteration's images."""
    seen, before = [], stopping.Stop.before_train_iter
    monkeypatch.setattr(stopping.Stop, 'before_train_iter', lambda this, runner: seen.append(
        stopping.files_of(runner.data_batch)) or before(this, runner))
    return seen


@pytest.mark.parametrize(('settings', 'at', 'iterations'), [
    ([], None, 6),  # nothing uses the weights: noticed an iteration later
    (['runner.max_iters=5', 'checkpoint_config.save_last=False'], None, 5),
    (['runner.max_iters=5'], None, 5), (['evaluation.interval=5'], None, 5), ([], {5: ask()}, 5)],
    ids=['an iteration later', 'at the end', 'in the last checkpoint', 'in an evaluation', 'when stopped'])
def test_bad_losses_are_noticed_before_weights_are_used(train_here, tmp_path, monkeypatch, batches, settings, at,
                                                        iterations):
    """Here the weights stay finite: only the loss tells."""
    spoil(monkeypatch, {5}, math.inf)
    monkeypatch.setattr(torch.optim.AdamW, 'step', lambda this: None)
    with pytest.raises(ValueError, match='the loss is not finite at iteration 5:') as caught:
        train_here(tmp_path, at=at, settings=settings)
    lines = str(caught.value).splitlines()[1:-1]
    assert [line.strip() for line in lines] == [', '.join(files) for files in batches[4:2:-1]]
    assert len(batches) == iterations
    assert not [*tmp_path.glob('*.pth')] and not (tmp_path / 'evaluations.jsonl').exists()


def test_images_of_all_batches_of_a_step(train_here, tmp_path, monkeypatch, batches):
    spoil(monkeypatch, {5})
    with pytest.raises(ValueError, match='at iteration 5: .* and of the 3 before:') as caught:
        train_here(tmp_path, '--total-batch-size', 6)
    assert [line.strip() for line in str(caught.value).splitlines()[1:-1]] == [
        ', '.join(files) for files in batches[4:0:-1]]


@pytest.mark.parametrize(('at', 'saved'), [(None, 2), ({4: ask()}, 3)], ids=['in a checkpoint', 'when stopped'])
def test_weights_that_are_not_finite_are_not_saved(train_here, tmp_path, monkeypatch, caplog, at, saved):
    step, taken = torch.optim.AdamW.step, []

    def spoiled(this, *args, **kwargs):
        step(this, *args, **kwargs)
        taken.append(1)
        if len(taken) == 4:
            next(each for each in this.param_groups[0]['params'] if each.requires_grad).data[0] = math.inf

    monkeypatch.setattr(torch.optim.AdamW, 'step', spoiled)
    with pytest.raises(ValueError, match=r'the weights \(.*\) are not finite at iteration 4') as caught:
        train_here(tmp_path, at=at, settings=[f'checkpoint_config.interval={saved}'])
    assert str(caught.value).count('.jpg') == 4 and f'iter_{saved}.pth' in caplog.text
    assert sorted(file.name for file in tmp_path.glob('*.pth')) == [f'iter_{saved}.pth', 'latest.pth']


def test_a_closed_terminal_ends_a_run_with_a_checkpoint(train_here, tmp_path, request):
    request.addfinalizer(partial(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_IGN)))
    train_here(tmp_path / 'nohup', at={2: ask(signal.SIGHUP)}, settings=['runner.max_iters=3'])
    assert train_here.ended is None
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    train_here(tmp_path, at={2: ask(signal.SIGHUP)})
    assert train_here.ended.signal == signal.SIGHUP and (tmp_path / 'stopped_iter_2.pth').exists()


# ---- reads of the device

class Count(TorchDispatchMode):
    """Count all-reduces, and reads of numbers from tensors of losses, weights and gradients."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator.overloadpacket.__name__
        if name == 'allreduce_' or name == '_local_scalar_dense' and args[0].is_floating_point():
            self.counts[name] += 1
        return operator(*args, **(kwargs or {}))


@pytest.fixture
def counted(monkeypatch):
    """A function that counts while its argument runs, but not while images are loaded."""
    def counted(job) -> Counter:
        count, tolist, loading = Count(), Tensor.tolist, IterLoader.__next__

        def load(loader):
            before = count.counts.copy()
            batch = loading(loader)
            count.counts = before
            return batch

        with monkeypatch.context() as patch, count:
            patch.setattr(Tensor, 'tolist', lambda this: count.counts.update(tolist=this.is_floating_point())
                          or tolist(this))
            patch.setattr(IterLoader, '__next__', load)
            job()
        return +count.counts

    return counted


CLIPPED = ['optimizer_config.grad_clip.max_norm=0.1']


@pytest.mark.parametrize('settings', [
    [], ['amp.dtype=float16'], ['amp.dtype=bfloat16'], CLIPPED, [*CLIPPED, 'amp.dtype=float16']])
def test_the_device_is_read_once_per_logging_interval(train_here, tmp_path, counted, settings):
    counts = counted(lambda: train_here(tmp_path, settings=[
        'log_config.interval=5', 'runner.max_iters=10', 'checkpoint_config.interval=100',
        'checkpoint_config.save_last=False', *settings]))
    assert counts == {'tolist': 2}
    assert [(entry['iter'], 'grad_norm' in entry) for entry in logged(tmp_path)] == [
        (number, settings[:1] == CLIPPED) for number in (5, 10)]


def test_logged_values_are_means(train_here, tmp_path):
    """Of all losses of an interval, by the names and in the order of mmseg."""
    losses = train_here(tmp_path, settings=['log_config.interval=4'])
    for entry in logged(tmp_path):
        names = [name for name in entry if 'loss' in name or 'acc' in name]
        assert names == list(losses[1]) and names[-1] == 'loss'
        for name in names:
            mean = sum(losses[number][name] for number in range(entry['iter'] - 3, entry['iter'] + 1)) / 4
            assert entry[name] == pytest.approx(mean, abs=1e-5)


def test_values_are_fetched_once():
    """Of two loggers with other intervals each averages its own number of values."""
    buffer = log_buffer.DeviceLogBuffer(process.Place(torch.device('cpu')))
    buffer.kept = 4
    for number in range(4):
        buffer.update({'a': torch.tensor(number / 2), 'b': 3.}, count=1 + (number == 3))
    buffer.average(2)
    assert buffer.output == {'a': (1 + 2 * 1.5) / 3, 'b': 3}
    assert [isinstance(value, Tensor) for value in buffer.val_history['a']] == [True, True, False, False]
    for n in (10, 0):
        buffer.average(n)
        assert buffer.output == {'a': (0.5 + 1 + 2 * 1.5) / 5, 'b': 3}
    assert buffer.val_history['a'] == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize(('hooks', 'kept'), [
    ('[]', 1), ('[dict(type="TextLoggerHook",interval=3),dict(type="TextLoggerHook",interval=5)]', 5)])
def test_values_that_no_logger_needs_are_not_kept(train_here, tmp_path, monkeypatch, hooks, kept):
    """Else a run without loggers would fill the memory of its device."""
    buffers = []
    monkeypatch.setattr(runner, 'DeviceLogBuffer', lambda place: buffers.append(
        log_buffer.DeviceLogBuffer(place)) or buffers[0])
    config = tmp_path / 'config.py'
    config.write_text(f'_base_ = {str(train_here.config)!r}\n'
                      f'log_config = dict(_delete_=True, interval=2, hooks={hooks})\n')
    train_here.config = config
    train_here(tmp_path / 'work')
    assert {len(values) for values in buffers[0].val_history.values()} == {kept}
    assert {len(values) for values in buffers[0].n_history.values()} == {kept}


# ---- several processes

RANK = os.environ.get('RANK')


def of_both(value) -> list:
    values = [None, None]
    dist.all_gather_object(values, value)
    return values


if TWO_PROCESSES in os.environ:
    @pytest.mark.parametrize(('settings', 'iterations'), [
        ([], 6), (['checkpoint_config.interval=5'], 5), (['evaluation.interval=5'], 5)])
    def test_a_bad_loss_in_one_of_two(train_here, in_one_of_two, monkeypatch, batches, settings, iterations):
        """Both processes end with the same message, an iteration later or before the weights are used."""
        spoil(monkeypatch, {5} if RANK == '1' else set())
        with pytest.raises(UserError, match='the loss is not finite at iteration 5') as caught:
            train_here(in_one_of_two / 'bad', settings=settings)
        messages, files = of_both(str(caught.value)), of_both(batches)
        assert messages[0] == messages[1] and [len(each) for each in files] == 2 * [iterations]
        assert messages[0].splitlines()[1:-1] == [
            f'  process 1: {", ".join(files[1][index])}' for index in (4, 3)]
        assert not [*(in_one_of_two / 'bad').glob('*.pth')]

    def test_logged_values_in_one_of_two(train_here, in_one_of_two):
        """They are means over both processes too."""
        both = of_both(train_here(in_one_of_two / 'logged', settings=['log_config.interval=3']))
        for entry in logged(in_one_of_two / 'logged') if RANK == '0' else ():
            for name in both[0][1]:
                values = [losses[number][name] for losses in both for number in range(entry['iter'] - 2,
                                                                                     entry['iter'] + 1)]
                assert entry[name] == pytest.approx(sum(values) / 6, abs=1.1e-5)
        assert both[0][1] != both[1][1]

    def test_other_numbers_of_losses_in_one_of_two(train_here, in_one_of_two, monkeypatch):
        forward = CLIPRC.forward_train
        monkeypatch.setattr(CLIPRC, 'forward_train', lambda *args, **kwargs: {
            **forward(*args, **kwargs), **({'more': torch.ones(())} if RANK == '1' else {})})
        with pytest.raises(RuntimeError, match=r'a process logs \d+ losses, others'):
            train_here(in_one_of_two / 'other')

    @pytest.mark.parametrize('settings', [
        [], ['find_unused_parameters=True'], ['amp.dtype=float16', 'optimizer_config.loss_scale=8']])
    def test_accumulation_in_one_of_two(train_here, in_one_of_two, monkeypatch, counted, settings):
        """Gradients are exchanged once a step, and are those of an exchange in every iteration, to rounding."""
        step, gradients = torch.optim.AdamW.step, []

        def noted(this, *args, **kwargs):
            gradients.append([each.grad.clone() for each in this.param_groups[0]['params'] if each.grad is not None])
            return step(this, *args, **kwargs)

        monkeypatch.setattr(torch.optim.AdamW, 'step', noted)
        options = ['--total-batch-size', 12], ['runner.max_iters=2', 'log_config.interval=100', *settings]
        counts = [counted(lambda: train_here(in_one_of_two / 'kept', *options[0], settings=options[1]))]
        with monkeypatch.context() as patch:
            patch.setattr(runner.TrainingRunner, '_synchronised', lambda this: nullcontext())
            counts.append(counted(lambda: train_here(in_one_of_two / 'always', *options[0], settings=options[1])))
        assert len(gradients) == 4 and all(gradients)
        for one, other in zip(gradients[0], gradients[2], strict=True):
            assert (one - other).abs().max() <= 1e-4 * max(one.abs().max(), 1e-3)
        few, many = (count['allreduce_'] for count in counts)
        assert many - few == 4 * (2 if 'find_unused_parameters=True' in settings else 1)
        assert few == 2 * 6 + 2 + (many - few) // 2, 'an iteration: signals, masks; two for the last loss'


def test_two_processes(tiny_configs, tmp_path, cache):
    in_two_processes(__file__, tiny_configs['inductive'], tmp_path, cache)
