"""Adapt the settings of a training run to its batch and to float16."""
import logging

from mmcv import Config

from models.errors import UserError


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
