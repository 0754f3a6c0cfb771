"""Limits for the config in a checkpoint, which may be a stranger's: it must not use up memory or load other files."""
import torch
from mmcv import Config, ConfigDict
from mmseg.models.builder import MODELS

from ..builder import build
from ..errors import UserError
from ..weights.files import Checkpoint

LONGEST_SIDE, LARGEST_RATIO = 10_000, 2  # of images after resizing, in pixels; of resizing


def check_parts(model: dict, checkpoint: Checkpoint) -> None:
    """Check that a model consists of parts of this project, and is about as large as the file.

    mmseg's own parts may download and load files as soon as they are built.

    Raises:
        UserError: it does not, or is larger.
    """
    left = [model]
    while left:
        for name, value in left.pop().items():
            known = MODELS.get(value) if name == 'type' and isinstance(value, str) else None
            if known is not None and known.__module__.split('.')[0] in ('mmseg', 'mmcv'):
                raise UserError(f'the config\'s model has a part {value!r}, which is mmseg\'s.')
            if 'layers' in name and isinstance(value, int) and value > len(checkpoint.weights):
                raise UserError(f'the config\'s model has {name}={value}, more than the file has tensors.')
            if isinstance(value, dict):
                left.append(value)
    with torch.device('meta'):  # takes no memory
        needed = sum(tensor.numel() for tensor in build(ConfigDict(model)).state_dict().values())
    held = sum(tensor.numel() for tensor in checkpoint.weights.values())
    if needed > 2 * held:
        raise UserError(f'the config\'s model has {needed:,} parameters, the file {held:,}.')


def check_image_sizes(config: Config) -> None:
    """Check how large a config makes images, and how many windows it cuts from one.

    Raises:
        UserError: images or windows are too large or too many.
    """
    left = [('pipeline', (config.data.get('test') or {}).get('pipeline'))]
    while left:
        name, value = left.pop()
        most = LARGEST_RATIO if 'ratio' in name else LONGEST_SIDE
        if isinstance(value, (int, float)) and not abs(value) <= most:
            raise UserError(f'the config makes images too large: {name} has {value}, more than {most:,}.')
        if isinstance(value, dict):
            left.extend((str(key), inside) for key, inside in value.items())
        elif isinstance(value, (list, tuple)):
            left.extend((name, inside) for inside in value)
    windows, resolution = config.model.get('test_cfg') or {}, config.model.backbone.get('input_resolution', 512)
    for side, step in zip(windows.get('crop_size') or (), windows.get('stride') or (), strict=True):
        if side != resolution or not step >= side / 4:
            raise UserError(f'the config\'s windows of {side} pixels every {step} pixels: the model is built for '
                            f'windows of {resolution} pixels, and the stride must be at least a quarter of that.')
