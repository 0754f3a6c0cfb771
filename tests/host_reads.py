"""A hook for configs: an error where a training iteration makes the host wait for the GPU, except to log or save.

`test_gpu.py` names it in `custom_imports`.
"""
import torch
from mmcv.runner import HOOKS, Hook, IterBasedRunner

WARM_UP = 2  # iterations that make handles and states


@HOOKS.register_module()
class NoHostReads(Hook):
    """Register it with a priority between those of the optimizer's hook and of the checkpoints': 45."""

    def before_train_iter(self, runner: IterBasedRunner) -> None:
        if runner.iter >= WARM_UP:
            self.set('error')

    def after_train_iter(self, runner: IterBasedRunner) -> None:
        self.set('default')

    def set(self, mode: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode(mode)
