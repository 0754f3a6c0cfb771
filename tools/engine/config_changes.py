"""Settings that stand for several others: mmcv's ways of asking for float16, and the size of images."""
from collections.abc import Iterator

from mmcv import Config, ConfigDict

from models.errors import UserError

FP16_HOOKS = ('Fp16OptimizerHook', 'GradientCumulativeFp16OptimizerHook')
# The lengths in pixels of a pipeline's steps.
PIXELS = {'Resize': ('img_scale', 'min_size'), 'RandomCrop': ('crop_size',), 'Pad': ('size',),
          'MultiScaleFlipAug': ('img_scale',)}


def take_fp16_for_amp(config: Config) -> None:
    """Translate mmcv's two settings for float16, `fp16` and a hook in `optimizer_config`, to `amp`.

    Raises:
        UserError: they contradict `amp`, or have an unsupported value.
    """
    fp16, updating = config.pop('fp16', None), dict(config.get('optimizer_config') or {})
    by_hook = updating.get('type') in FP16_HOOKS
    if fp16 is None and not by_hook:
        return
    if not isinstance(fp16 or {}, dict) or {*(fp16 or {})} - {'loss_scale'}:
        raise UserError(f'fp16={fp16!r}: only loss_scale is supported in it. Use amp=dict(dtype=\'float16\') instead.')
    if config.get('amp') not in (None, {'dtype': 'float16'}):
        raise UserError(f'the config asks for float16 ({"optimizer_config.type" if by_hook else "fp16"}) and for '
                        f'amp={dict(config.amp)}: set amp alone.')
    if by_hook:
        for name in ('type', 'coalesce', 'bucket_size_mb', 'distributed'):  # of communication only
            updating.pop(name, None)
        updating.setdefault('loss_scale', 512.)  # mmcv's default
    config.amp, config.optimizer_config = {'dtype': 'float16'}, {**updating, **(fp16 or {})}


def set_image_size(config: Config) -> None:
    """Set the side of crops and windows to the config's `image_size` (pixels), and scale related lengths with it.

    These are the sizes of the model's inputs, the stride of windows, and the sizes in pipelines.

    Raises:
        UserError: it is not a positive integer.
    """
    model, side = config.model, config.get('image_size')
    if side is None:
        return
    if type(side) is not int or side < 1:
        raise UserError(f'image_size={side!r} is not a positive integer (pixels).')
    before = model.backbone.get('input_resolution', 512)

    def scale(settings: ConfigDict, *names: str) -> None:
        for name in names:
            if settings.get(name) is not None:
                lengths = settings[name]
                settings[name] = (round(lengths * side / before) if isinstance(lengths, int) else
                                  tuple(round(length * side / before) for length in lengths))

    scale(model.test_cfg, 'crop_size', 'stride')
    for dataset in dataset_configs(config.data):
        for step in dataset.get('pipeline', []):
            for part in (step, *step.get('transforms', [])):
                scale(part, *PIXELS.get(part.type, ()))
    model.backbone.input_resolution = model.decode_head.img_size = side


def dataset_configs(node) -> Iterator[ConfigDict]:
    """Give every dataset config below `node`, also wrapped ones."""
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from dataset_configs(item)
    elif isinstance(node, dict):
        if 'img_dir' in node:
            yield node
        for item in node.values():
            if isinstance(item, (dict, list, tuple)):
                yield from dataset_configs(item)
