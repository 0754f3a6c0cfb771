"""Training in float16: the loss is scaled up, so that small gradients do not underflow, and gradients down again."""
import torch
from mmcv.runner import HOOKS, IterBasedRunner
from mmcv.runner.hooks.optimizer import GradientCumulativeOptimizerHook

from models.errors import UserError


@HOOKS.register_module()
class ScaledOptimizerHook(GradientCumulativeOptimizerHook):
    """Scale the loss by torch's gradient scaler, with mmcv's accumulation of gradients (over 1 iteration for none).

    The scaler's state goes into checkpoints. A fused optimizer needs no answer from the device for its steps.
    (mmcv's own hook supports CUDA alone, by a deprecated interface.)

    Args:
        loss_scale: 'dynamic', the initial scale, or arguments of the scaler. The scale always adapts. (With a constant
            scale, as in mmcv, too large gradients silently stop the training.)
    """

    def __init__(self, *, loss_scale: str | float | dict = 'dynamic', **options):
        super().__init__(**options)
        self.options = {'init_scale': loss_scale} if type(loss_scale) in (int, float) else loss_scale
        if loss_scale == 'dynamic':
            self.options = {}
        elif not isinstance(self.options, dict) or self.options.get('init_scale', 1) <= 0:
            raise UserError(f'loss_scale={loss_scale!r}: \'dynamic\' is needed, a positive number, or a dict of '
                            'arguments of torch.amp.GradScaler, such as init_scale.')

    def before_run(self, runner: IterBasedRunner) -> None:
        self.scaler = runner.scaler = torch.amp.GradScaler(next(runner.model.parameters()).device.type, **self.options)
        if 'grad_scaler' in runner.meta:  # of the resumed checkpoint
            self.scaler.load_state_dict(runner.meta['grad_scaler'])

    def after_train_iter(self, runner: IterBasedRunner) -> None:
        if not self.initialized:
            self._init(runner)
        self.scaler.scale(runner.outputs['loss'] / self._get_loss_factor(runner)).backward()
        if not (self.every_n_iters(runner, self.cumulative_iters) or self.is_last_iter(runner)):
            return
        if self.grad_clip is not None:
            self.scaler.unscale_(runner.optimizer)
            self.clip_grads(runner.model.parameters())
        self.scaler.step(runner.optimizer)
        self.scaler.update()
        runner.optimizer.zero_grad()
