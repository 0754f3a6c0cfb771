"""Check the settings of a config's model against each other and against the dataset's split."""
import torch
from mmcv import Config

from datasets import ClassSplit
from models.errors import UserError
from models.sliding_window import sliding
from tools.engine.config import dataset_configs


def class_lists(config: Config, split: ClassSplit) -> dict[str, list[int]]:
    """Return the class lists of the dataset's split; those that an official config repeats must equal them.

    Raises:
        UserError: a list of the config differs.
    """
    model = config.model
    both = list(range(len(split.names)))
    fully = model.get('novel_class') is not None and len(model.novel_class) == 0
    lists = {'both_class': both, 'base_class': both if fully else split.seen,
             'novel_class': [] if fully else split.unseen}
    repeated = {**{f'model.{name}': (model.get(name), known) for name, known in lists.items()},
                'model.decode_head.seen_idx': (model.decode_head.get('seen_idx'), lists['base_class']),
                'model.decode_head.all_idx': (model.decode_head.get('all_idx'), both)}
    for name, (given, known) in repeated.items():
        if given is not None and sorted(given) != known:
            raise UserError(f'{name}={list(given)} differs from the dataset\'s split, where it is {known}. Leave it '
                            'out: the dataset knows its split.')
    return lists


def amp_type(config: Config) -> torch.dtype | None:
    """Read the type in the config's `amp=dict(dtype='bfloat16')`; None without it."""
    amp = config.get('amp')
    if amp is None:
        return None
    known = {'bfloat16': torch.bfloat16, 'float16': torch.float16}
    if not isinstance(amp, dict) or set(amp) != {'dtype'} or amp['dtype'] not in known:
        raise UserError(f'amp={amp!r}: amp.dtype is bfloat16 or float16 (in a config amp=dict(dtype=\'bfloat16\')); '
                        'amp=None is float32.')
    return known[amp['dtype']]


def check_sizes(config: Config) -> None:
    """Check that crops and windows have the size that the model is built for, and that windows cover an image.

    Raises:
        UserError: they don't.
    """
    windows = config.model.test_cfg
    if windows.get('mode', 'slide') == 'slide' and windows.get('crop_size') and windows.get('stride'):
        sliding(windows.crop_size, windows.crop_size, windows.stride)
    size = config.model.decode_head.get('img_size', 512)
    resolution = config.model.backbone.get('input_resolution', 512)
    if size != resolution:
        raise UserError(f'model.decode_head.img_size={size} but model.backbone.input_resolution={resolution}: '
                        'they are the same size, that of a training crop and of a test window.')
    crops = [('model.test_cfg.crop_size', windows.get('crop_size'))]
    for dataset in dataset_configs(config.data.get('train', {})):
        crops += [(f'{step.type} of the training pipeline', step.get('crop_size', step.get('size')))
                  for step in dataset.get('pipeline', []) if step.type in ('RandomCrop', 'Pad')]
    for where, crop in crops:
        if crop is not None and tuple(crop) != (size, size):
            raise UserError(f'{where} is {tuple(crop)}, but this model is built for {size}x{size} pixels '
                            '(model.backbone.input_resolution, model.decode_head.img_size): make them equal.')
