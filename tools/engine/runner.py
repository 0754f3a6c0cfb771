"""mmcv's runner that resumes exactly, writes a checkpoint when it is stopped, and names the images of a bad loss."""
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from mmcv import Config
from mmcv.runner import IterBasedRunner, IterTimerHook, LoggerHook, OptimizerHook
from torch import Tensor
from torch.nn import Parameter

from models.errors import UserError, building
from models.weights import files
from tools.engine import hang
from tools.engine.checkpoints import STOPPED, Checkpoints, set_random_state
from tools.engine.errors import AT_END, Stopped
from tools.engine.log_buffer import DeviceLogBuffer
from tools.engine.process import Place
from tools.engine.stopping import Stop


class TrainingRunner(IterBasedRunner):
    """Train iteration by iteration.

    Args:
        images_per_iteration: of all processes.
        iterations_per_step: of the optimizer. Gradients that accumulate between steps are in no checkpoint.
    """

    def __init__(self, *args, place: Place, checkpoints: Checkpoints, images_per_iteration: int,
                 iterations_per_step: int = 1, **options):
        super().__init__(*args, **options)
        self.place, self.checkpoints = place, checkpoints
        self.images_per_iteration, self.iterations_per_step = images_per_iteration, iterations_per_step
        self.images_apart = 0  # of an earlier part of the run, if an iteration had another number of images
        self.stop, self.log_buffer = Stop(place), DeviceLogBuffer(place)
        self.scaler: torch.amp.GradScaler | None = None  # of the optimizer's hook
        self.files = []  # names of the images of this step's batches and of the last batch before
        self.random_states = []
        self.tensors = self._model.state_dict().keys()  # their names must not change
        self.last_good: Path | None = None  # the last checkpoint
        self.register_hook(checkpoints, priority='NORMAL')
        self.register_hook(self.stop, priority='HIGHEST')

    def register_hooks_of(self, config: Config) -> None:
        """Register the hooks of a config.

        Raises:
            UserError: a type or an argument is unknown, or a package is missing.
        """
        settings = deepcopy({name: config.get(name) for name in (  # mmcv pops their items
            'lr_config', 'optimizer_config', 'log_config', 'custom_hooks')})
        for options in (settings['lr_config'], *((settings['log_config'] or {}).get('hooks') or [])):
            if isinstance(options, dict):
                options.setdefault('by_epoch', False)
        self.register_timer_hook(IterTimerHook())
        settings['optimizer_config'] = settings['optimizer_config'] or {}  # not none: the default hook
        for name, register in (('lr_config', self.register_lr_hook), ('log_config', self.register_logger_hooks),
                               ('optimizer_config', self.register_optimizer_hook),
                               ('custom_hooks', self.register_custom_hooks)):
            with building(name):
                register(settings[name])
        self.log_buffer.kept = max([1, *(hook.interval for hook in self.hooks if isinstance(hook, LoggerHook))])
        for hook in self.hooks:
            if isinstance(hook, OptimizerHook) and hook.grad_clip is not None:
                hook.clip_grads = partial(self._clip_grads, hook.clip_grads)

    def _clip_grads(self, clip: Callable[..., Tensor | None], parameters: Iterator[Parameter]) -> None:
        """Log the norm of gradients as the losses: mmcv's hook would wait for the norm that it gets, to log it."""
        if (norm := clip(parameters)) is not None:
            self.log_buffer.update({'grad_norm': norm}, self.outputs['num_samples'])

    def begin_hooks(self) -> None:
        """Call `before_run` of the hooks, before an earlier run is put aside.

        Raises:
            UserError: a package is missing, or a hook adds tensors to the model, which no checkpoint may hold.
        """
        for hook in self.hooks:
            with building(f'hook {type(hook).__name__}'):
                hook.before_run(self)
            self._check_tensors(type(hook).__name__)

    def _check_tensors(self, hook: str) -> None:
        """Raise a UserError if `hook` has added tensors to the model, or removed some."""
        if changed := sorted(self.tensors ^ self._model.state_dict().keys()):
            raise UserError(f'{hook} adds or removes tensors of the model ({changed[0]} and {len(changed) - 1} more): '
                            'its checkpoints could not be loaded. Remove it from custom_hooks.')

    @property
    def _model(self) -> torch.nn.Module:
        return getattr(self.model, 'module', self.model)

    def progress(self, done: int) -> dict[str, int]:
        """Count the images after `done` iterations, and those of an iteration, for a run that resumes there."""
        return {'images': self.images_apart + done * self.images_per_iteration,
                'images_per_iteration': self.images_per_iteration, 'iterations_per_step': self.iterations_per_step}

    def resume(self, checkpoint: str, done: int, images: int) -> None:
        """Load weights, optimizer, scaler and random states after `done` iterations and `images` images.

        Options of the optimizer, such as its learning rate, are the config's.
        """
        content = files.read_content(checkpoint)
        self._model.load_state_dict(content['state_dict'])
        options_of_groups = [{key: value for key, value in group.items() if key != 'params'}
                             for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(content['optimizer'])
        for key in ('betas', 'momentum'):
            if (key in self.optimizer.param_groups[0]) != (key in options_of_groups[0]):
                raise UserError(f'the optimizer of {checkpoint} is not the {type(self.optimizer).__name__} of the '
                                'config: a run resumes with the optimizer that it began with.')
        for group, options in zip(self.optimizer.param_groups, options_of_groups, strict=True):
            group.pop('initial_lr', None)  # the schedule sets it from the learning rate
            group.update(options)
        self._iter = self._inner_iter = done
        self.images_apart, self.last_good = images - done * self.images_per_iteration, Path(checkpoint)
        self.random_states = content.get('random_states', [])
        self.meta |= {key: value for key, value in content['meta'].items() if key == 'grad_scaler'}
        self.logger.info('resumed from %s after %d iterations', checkpoint, done)

    def run(self, *args, **options) -> None:
        self.stop.listen()
        try:
            super().run(*args, **options)
        except Exception:
            self.logger.info('ended at iteration %d; %s', self.iter + 1, self.how_to_resume())
            raise

    def get_hook_info(self) -> str:
        """Name the hooks in one line; mmcv's table has 60."""
        return ', '.join(type(hook).__name__ for hook in self.hooks)

    def call_hook(self, name: str) -> None:
        if name == 'before_epoch' and self.place.rank < len(self.random_states):  # the loader's iterator has drawn
            set_random_state(self.random_states[self.place.rank], self.place.device)
        if name != 'before_run':  # `begin_hooks` has called it
            super().call_hook(name)

    def train(self, data_loader, **kwargs) -> None:
        """Do one iteration; if a signal asks for the end, write a checkpoint and raise `Stopped`."""
        hang.progressed()
        with self._synchronised():
            super().train(data_loader, **kwargs)
        asked = self.stop.agreed(self)
        if asked and self.iter < self.max_iters and self.iter % self.iterations_per_step == 0:
            self.end(asked, self.iter)

    def _synchronised(self) -> AbstractContextManager:
        """Let processes exchange gradients, in forward and backward pass, only in an iteration with a step."""
        steps = (self.iter + 1) % self.iterations_per_step == 0 or self.iter + 1 == self.max_iters
        return nullcontext() if steps or not self.place.distributed else self.model.no_sync()

    def end(self, asked: signal.Signals, done: int) -> None:
        """Write a checkpoint after `done` iterations and raise `Stopped`; all processes must call it."""
        # Loader workers may end from now on.
        AT_END.callback(signal.signal, signal.SIGCHLD, signal.signal(signal.SIGCHLD, signal.SIG_DFL))
        if self.checkpoints.saved != done:
            self.checkpoints.save_newest(self, STOPPED, done)
        self.logger.info('%s after iteration %d; %s', asked.name, done, self.how_to_resume())
        self.call_hook('after_run')
        raise Stopped(asked)

    def how_to_resume(self) -> str:
        if self.last_good is None:
            return 'no checkpoint was written'
        here = self.last_good.resolve().parent == Path(self.work_dir).resolve()
        return f'the last checkpoint is {self.last_good}: resume with ' \
               f'{"--auto-resume" if here else f"--resume-from {self.last_good}"}'

    def check_weights(self, done: int) -> None:
        """Raise a UserError if a loss or a parameter is not finite, before the weights are saved or scored.

        All processes must call it, after `done` iterations.
        """
        self.stop.settle(self)
        self._check_tensors('a hook')
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad and not parameter.isfinite().all():
                raise UserError(self.not_finite(f'the weights ({name}) are', done, self.files))

    def not_finite(self, what: str, iteration: int, where: Sequence[str]) -> str:
        """Write the message that `what` is not finite in an iteration, with the images of `where`."""
        before = 'the one' if self.iterations_per_step == 1 else f'the {self.iterations_per_step}'
        return '\n'.join([
            f'{what} not finite at iteration {iteration}: training cannot continue. Images of this batch and of '
            f'{before} before:', *where,
            'Check these images and masks; a lower learning rate (--cfg-options optimizer.lr=1e-4) or float32 '
            'instead of amp may help, too.'])
