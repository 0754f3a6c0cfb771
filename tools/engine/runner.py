"""mmcv's runner, which ends a run as users need it: with a checkpoint when asked to, with names when a loss is none."""
import math
import signal
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from mmcv import Config
from mmcv.parallel import DataContainer
from mmcv.runner import Hook, IterBasedRunner, IterTimerHook

from models.errors import UserError, building
from models.weights import files
from tools.engine import process
from tools.engine.checkpoints import STOPPED, Checkpoints, set_random_state
from tools.engine.process import Place


class Stop:
    """Whether this process was asked to end, by Ctrl-C, SIGTERM or a closed terminal: they do nothing else at once.

    A second Ctrl-C ends a process without a launcher at once. (With one, the launcher hands on each, so that all come
    twice.)
    """

    def __init__(self, place: Place):
        self.place, self.signal = place, None

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:  # by nohup
                continue
            process.AT_END.append(partial(signal.signal, number, signal.signal(number, self._asked)))

    def _asked(self, number: int, frame) -> None:
        if self.signal == number == signal.SIGINT and not self.place.distributed:
            raise KeyboardInterrupt
        self.signal = number

    def agreed(self) -> signal.Signals | None:
        """The signal, if any process was asked. All processes must call it, and get the same answer."""
        if self.place.distributed:
            highest = torch.tensor(self.signal or 0)
            dist.all_reduce(highest, dist.ReduceOp.MAX, group=self.place.control)
            if not int(highest):  # one that came meanwhile counts the next time
                return None
            self.signal = int(highest)
        return self.signal and signal.Signals(self.signal)


class TrainingRunner(IterBasedRunner):
    """Trains iteration by iteration.

    Args:
        place: of this process.
        checkpoints: writes them.
        images_per_iteration: of all processes.
        iterations_per_step: of the optimizer; between them gradients are accumulated, which no checkpoint holds.
        options: of mmcv's runner.
    """

    def __init__(self, *args, place: Place, checkpoints: Checkpoints, images_per_iteration: int,
                 iterations_per_step: int = 1, **options):
        super().__init__(*args, **options)
        self.place, self.checkpoints = place, checkpoints
        self.images_per_iteration, self.iterations_per_step = images_per_iteration, iterations_per_step
        self.began = 0, 0  # iterations and images that were done before
        self.stop = Stop(place)
        self.files = []  # of the batches of this step and of the last one of the step before
        self.random_states = []
        self.of_config = []  # hooks, which `begin_hooks` begins
        self.tensors = self._model.state_dict().keys()  # by name, as they must stay
        self.last_good: Path | None = None  # checkpoint
        self.register_hook(checkpoints, priority='NORMAL')
        self.register_hook(CheckLoss(), priority='HIGHEST')

    def register_hooks_of(self, config: Config) -> None:
        """Registers the hooks that a config asks for.

        Raises:
            UserError: one of them is of no known type, has no such argument, or lacks a package.
        """
        ours, told = [*self.hooks], deepcopy({name: config.get(name) for name in (  # mmcv takes its words out of them
            'lr_config', 'optimizer_config', 'log_config', 'custom_hooks')})
        for options in (told['lr_config'], *((told['log_config'] or {}).get('hooks') or [])):
            if isinstance(options, dict):
                options.setdefault('by_epoch', False)
        self.register_timer_hook(IterTimerHook())
        with building('lr_config'):
            self.register_lr_hook(told['lr_config'])
        with building('optimizer_config'):
            self.register_optimizer_hook(told['optimizer_config'] or {})
        with building('log_config'):
            self.register_logger_hooks(told['log_config'])
        with building('custom_hooks'):
            self.register_custom_hooks(told['custom_hooks'])
        self.of_config = [hook for hook in self.hooks if hook not in ours]

    def begin_hooks(self) -> None:
        """Calls `before_run` of the config's hooks, before a file of an earlier run is touched.

        Raises:
            UserError: one lacks a package, or gives the model parameters or buffers, with which its checkpoints would
                load nowhere.
        """
        for hook in self.of_config:
            with building(f'hook {type(hook).__name__}'):
                hook.before_run(self)
            self._check_tensors(type(hook).__name__)

    def _check_tensors(self, hook: str) -> None:
        """Raises a UserError where `hook` has changed which tensors the model has."""
        if changed := sorted(self.tensors ^ self._model.state_dict().keys()):
            raise UserError(f'{hook} changes which tensors the model has ({changed[0]} and {len(changed) - 1} more): '
                            'its checkpoints would load nowhere. Take it out of custom_hooks.')

    @property
    def _model(self) -> torch.nn.Module:
        return getattr(self.model, 'module', self.model)

    def progress(self, done: int) -> dict[str, int]:
        """What a run that goes on after `done` iterations must know: images so far, and how many make a step."""
        iterations, images = self.began
        return {'images': images + (done - iterations) * self.images_per_iteration,
                'images_per_iteration': self.images_per_iteration, 'iterations_per_step': self.iterations_per_step}

    def resume(self, checkpoint: str, done: int, images: int) -> None:
        """Weights, optimizer, scaler and random states of a checkpoint after `done` iterations and so many images.

        What the config says of the optimizer, such as its learning rate, stays as the config says it.
        """
        said = [{key: value for key, value in group.items() if key != 'params'}
                for group in self.optimizer.param_groups]
        super().resume(checkpoint, map_location='cpu')
        for key in ('betas', 'momentum'):
            if (key in self.optimizer.param_groups[0]) != (key in said[0]):
                raise UserError(f'the optimizer of {checkpoint} is another one than {type(self.optimizer).__name__}, '
                                'of the config: a run goes on with the one that it began with.')
        for group, options in zip(self.optimizer.param_groups, said, strict=True):
            group.pop('initial_lr', None)  # which the schedule takes from the learning rate
            group.update(options)
        self._iter = self._inner_iter = done  # mmcv would do the last one again
        self.began, self.last_good = (done, images), Path(checkpoint)

    def load_checkpoint(self, filename: str, **options) -> dict:
        content = files.read_content(filename)  # mmcv's own reading is only as safe as torch's default
        self._model.load_state_dict(content['state_dict'])
        self.random_states = content.get('random_states', [])
        if 'grad_scaler' in content['meta']:
            self.meta['grad_scaler'] = content['meta']['grad_scaler']
        return content

    def run(self, *args, **options) -> None:
        self.stop.listen()
        try:
            super().run(*args, **options)
        except (UserError, OSError):
            self.logger.info('ended at iteration %d; %s', self.iter + 1, self.how_to_go_on())
            raise

    def call_hook(self, name: str) -> None:
        if name == 'before_epoch' and self.place.rank < len(self.random_states):  # the loader's iterator has drawn
            set_random_state(self.random_states[self.place.rank], self.place.device)
        for hook in self.hooks:
            if name != 'before_run' or hook not in self.of_config:
                getattr(hook, name)(self)

    def train(self, data_loader, **kwargs) -> None:
        """One iteration; after it the run ends if it was asked to.

        Raises:
            process.Stopped: it was, and a checkpoint is written.
        """
        super().train(data_loader, **kwargs)
        if self.iter == self.began[0] + 1:
            self._check_tensors('a hook')
        asked = self.stop.agreed()
        if asked and self.iter < self.max_iters and self.iter % self.iterations_per_step == 0:
            self.end(asked, self.iter)

    def end(self, asked: signal.Signals, done: int) -> None:
        """Ends the run after `done` iterations, with a checkpoint; all processes must call it.

        Raises:
            process.Stopped: always.
        """
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # loader workers that ended are not missed any more
        process.AT_END.append(partial(signal.signal, signal.SIGCHLD, handler))
        if self.checkpoints.saved != done:
            self.checkpoints.save(self, STOPPED, done)
        self.logger.info('%s after iteration %d; %s', asked.name, done, self.how_to_go_on())
        self.call_hook('after_run')
        raise process.Stopped(asked)

    def how_to_go_on(self) -> str:
        if self.last_good is None:
            return 'no checkpoint was written'
        here = self.last_good.resolve().parent == Path(self.work_dir).resolve()
        return f'the last checkpoint is {self.last_good}; ' \
               f'{"--auto-resume" if here else f"--resume-from {self.last_good}"} goes on there'

    def check_weights(self) -> None:
        """
        Raises:
            UserError: a parameter is not finite, and the message names the files of the last batches; or the model has
                other tensors than at the start.
        """
        self._check_tensors('a hook')
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad and not parameter.isfinite().all():
                raise UserError(self.not_finite(f'the weights ({name}) are'))

    def not_finite(self, what: str, where: Sequence[str] = ()) -> str:
        """The message that `what` is not finite in this iteration, with `where` or the files of the last batches."""
        before = 'the one' if self.iterations_per_step == 1 else f'the {self.iterations_per_step}'
        return '\n'.join([
            f'{what} not finite at iteration {self.iter + 1}: training cannot go on. Images of this batch, and of '
            f'{before} before:', *(where or self.files),
            'Look at these images and masks; a lower learning rate (--cfg-options optimizer.lr=1e-4) or float32 '
            'instead of amp may help too.'])


class CheckLoss(Hook):
    """Stops a run whose loss is not finite, before the optimizer spoils the weights with it."""

    def before_train_iter(self, runner: TrainingRunner) -> None:
        runner.files = [*runner.files[-runner.iterations_per_step:], '  ' + ', '.join(files_of(runner.data_batch))]

    def after_train_iter(self, runner: TrainingRunner) -> None:
        if math.isfinite(runner.outputs['log_vars']['loss']):  # the mean over processes: they all see it
            return
        place, bad = runner.place, not runner.outputs['loss'].isfinite().all()
        mine = [f'  process {place.rank}: {line.strip()}' if place.distributed else line for line in runner.files]
        gathered = [(bool(bad), mine)]
        if place.distributed:
            gathered *= place.world_size
            dist.all_gather_object(gathered, (bool(bad), mine), group=place.control)
        where = [line for bad, lines in gathered if bad for line in reversed(lines)]
        raise UserError(runner.not_finite('the loss is', where))


def files_of(batch: dict) -> list[str]:
    """The files of a batch's images, as its metas tell."""
    metas = batch['img_metas']
    metas = metas.data[0] if isinstance(metas, DataContainer) else metas
    return [str(meta.get('filename')) for meta in metas]
