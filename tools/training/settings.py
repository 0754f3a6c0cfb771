"""The settings of a training run: checked before it starts, and adapted to the batch and to float16."""
import logging
import re

from mmcv import Config

from datasets.metrics import check_metrics
from models.errors import UserError
from tools.engine.evaluation import Evaluation

# The options of parts whose own constructors would not complain about unknown ones.
OPTIONS = {
    'runner': {'type', 'max_iters'},
    'evaluation': Evaluation.OPTIONS,
    'checkpoint_config': {'type', 'interval', 'save_last', 'max_keep_ckpts', 'filename_tmpl', 'create_symlink',
                          'by_epoch'},
    'log_config': {'interval', 'hooks'},
}
COUNTS = {'runner.max_iters': 1, 'checkpoint_config.interval': 1, 'evaluation.interval': 1, 'log_config.interval': 1,
          'data.samples_per_gpu': 1, 'data.workers_per_gpu': 0, 'lr_config.warmup_iters': 0}  # and their minimum
NEEDED = ('runner.max_iters', 'data.samples_per_gpu', 'data.workers_per_gpu')


def check_settings(config: Config) -> None:
    """Raise a UserError for settings that would fail, or have no effect, after hours of training."""
    for part in (*OPTIONS, 'optimizer', 'lr_config', 'optimizer_config'):
        if not isinstance(config.get(part) or {}, dict):
            raise UserError(f'{part}={config[part]!r}: a dict is needed.')
    for part, known in OPTIONS.items():
        unknown = [name for name in config.get(part) or {} if name not in known]
        if unknown:
            raise UserError(f'{part} has no {", ".join(unknown)}; there are {", ".join(sorted(known))}.')
    for part, only in (('runner', 'IterBasedRunner'), ('checkpoint_config', 'CheckpointHook')):
        if (found := (config.get(part) or {}).get('type', only)) != only:
            raise UserError(f'{part}.type={found!r}: only {only} is supported here.')
    if 'Fp16' in str(hook := (config.get('optimizer_config') or {}).get('type')):
        raise UserError(f"optimizer_config.type={hook!r}: use amp=dict(dtype='float16') instead.")
    saving = config.get('checkpoint_config') or {}
    for name in ('checkpoint_config.by_epoch', 'lr_config.by_epoch', 'lr_config.warmup_by_epoch'):
        if _setting(config, name):
            raise UserError(f'{name}=True: there are no epochs here, lengths are iterations.')
    if not re.fullmatch(r'[^{}/]*_\{\}\.pth', template := saving.get('filename_tmpl', 'iter_{}.pth')):
        raise UserError(f'checkpoint_config.filename_tmpl={template!r}: it must end in _{{}}.pth, because resuming '
                        'finds checkpoints by their numbers.')
    for name, minimum in COUNTS.items():
        value = _setting(config, name, None if name in NEEDED else minimum)
        if not isinstance(value, int) or value < minimum:
            raise UserError(f'{name}={value!r}: an integer of at least {minimum} is needed.')
    seed = config.get('seed')
    if seed is not None and (type(seed) is not int or seed < 0):
        raise UserError(f'seed={seed!r}: an integer of at least 0 is needed.')
    evaluation = config.get('evaluation') or {}
    metrics, best = check_metrics(evaluation.get('metric', 'mIoU')), evaluation.get('save_best')
    known = ('auto', 'aAcc', 'mAcc', *metrics, *(('mIoU_seen', 'mIoU_unseen', 'hIoU') if 'mIoU' in metrics else ()))
    if best is not None and best not in known:
        raise UserError(f'evaluation.save_best={best!r} is not a score; there are {", ".join(known)}.')


def _setting(config: Config, name: str, default=None):
    part, key = name.split('.')
    return (config.get(part) or {}).get(key, default)


def set_batch(config: Config, world_size: int, total: int | None, logger: logging.Logger) -> tuple[int, int]:
    """Log the total batch beside the published one; accumulate gradients to reach `total`, if that is given.

    mmcv's hook steps every k-th iteration, so all lengths that are counted in iterations are multiplied by k.

    Returns:
        The images per iteration and the iterations per step.

    Raises:
        UserError: `total` is not a multiple of the images per iteration.
    """
    images = config.data.samples_per_gpu * world_size
    total = total or images
    steps, rest = divmod(total, images)
    if rest or steps < 1:
        raise UserError(f'a total batch of {total} is not a multiple of {images}, the images per iteration of '
                        f'{world_size} process(es) with {config.data.samples_per_gpu} each: change '
                        'data.samples_per_gpu (--cfg-options data.samples_per_gpu=N).')
    logger.info('total batch: %d images a step (processes: %d, images each: %d, accumulated: %d); the config\'s: '
                '%s (%s)', total, world_size, config.data.samples_per_gpu, steps,
                config.get('total_batch_size', 'unknown'), config.get('total_batch_size_source', 'yours'))
    if steps == 1:
        return images, 1
    logger.info('one step of the optimizer takes %d iterations: every length in iterations is multiplied by it', steps)
    set_optimizer_hook(config, 'GradientCumulativeOptimizerHook', cumulative_iters=steps)
    config.runner.max_iters *= steps
    config.lr_config.warmup_iters = config.lr_config.get('warmup_iters', 0) * steps
    config.evaluation = {'interval': 1, **config.get('evaluation', {})}
    for part, name in (('checkpoint_config', 'interval'), ('evaluation', 'interval'), ('evaluation', 'start')):
        if config.get(part, {}).get(name) is not None:
            config[part][name] *= steps
    return images, steps


def set_optimizer_hook(config: Config, hook: str, **options) -> None:
    """Let `hook` make the optimizer's steps.

    Raises:
        UserError: the config names a hook that it cannot replace.
    """
    named = (config.get('optimizer_config') or {}).get('type', 'OptimizerHook')
    if named not in ('OptimizerHook', 'GradientCumulativeOptimizerHook', 'ScaledOptimizerHook'):
        raise UserError(f'optimizer_config.type={named!r}: float16 and accumulated gradients need {hook} instead: '
                        'remove one of them.')
    config.optimizer_config = dict(config.get('optimizer_config') or {}, type=hook, **options)
