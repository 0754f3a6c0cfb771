"""Slim checkpoints: what inference needs, in half precision, with metadata that hold no paths of a machine."""
from pathlib import Path

import torch
from mmcv import Config
from torch import Tensor

from models import CLIPRC
from models.errors import UserError
from models.inference.text_tower import TextTower
from models.weights import metadata
from models.weights.config_text import read_config_text
from models.weights.files import Checkpoint
from tools.engine.build import dataset_facts, describe, trained_model
from tools.engine.config import REPOSITORY, as_data

DTYPES = {'float16': torch.float16, 'bfloat16': torch.bfloat16, 'float32': torch.float32}
LOCAL_SETTINGS = ('data_root', 'load_text_embedding')  # of a config
KEPT = ('CLASSES', 'iter', 'seed')  # of a checkpoint's meta


def with_metadata(checkpoint: Checkpoint, config: Config | None) -> Checkpoint:
    """Return the checkpoint with the metadata of this project, `meta['clip_rc']`.

    An official checkpoint gets the text embeddings that test.py would use.

    Args:
        config: of its training; without it the one in the checkpoint.

    Raises:
        UserError: the checkpoint is damaged, has no config, or does not fit its config.
    """
    if (description := metadata.description(checkpoint)) is not None:
        entry = {**checkpoint.meta['clip_rc'], 'config': description.config if config is None else as_data(config)}
        return checkpoint._replace(meta={**checkpoint.meta, 'clip_rc': entry})
    remedy = 'name the config of its training: --config CONFIG (tools/inspect_checkpoint.py finds it).'
    if config is None:
        config = Config(read_config_text(checkpoint.meta.get('config') or ''))
        if not isinstance(config.get('model'), dict) or not isinstance(config.get('data'), dict):
            raise UserError(f'{checkpoint.path} contains no config: {remedy}')
        config.model.load_text_embedding = None  # a path of another machine
    names = [str(name) for name in checkpoint.meta.get('CLASSES') or ()]
    if names and names != list(dataset_facts(config).split.names):
        raise UserError(f'{checkpoint.path} has {len(names)} classes that are not those of its config: {remedy}')
    model = trained_model(config, checkpoint)
    return checkpoint._replace(meta={**checkpoint.meta, 'clip_rc': describe(model, config)})


def portable_meta(checkpoint: Checkpoint, *, dtype: str) -> dict:
    """Return the meta of the slim checkpoint: plain JSON values without local paths; of the config what tests need."""
    entry = checkpoint.meta['clip_rc']
    config = entry['config']
    test = _portable(config['data']['test'])
    test |= {name: value for name, value in (('classes', entry['class_names']), ('unseen', entry['split']['unseen']),
                                             ('prompt_set', entry['prompt_set'])) if name in test}  # which may be files
    kept = {name: checkpoint.meta[name] for name in KEPT if name in checkpoint.meta}
    modules = {'custom_imports': config['custom_imports']} if config.get('custom_imports') else {}  # names alone
    return {'CLASSES': entry['class_names'], **kept, 'clip_rc': {
        **entry, 'config': {'model': _portable(config['model']), 'data': {'test': test}, **modules},
        metadata.SLIM: dtype}}


def _portable(value):
    """Remove local settings and paths from a value; files of the repository are named relative to it."""
    if isinstance(value, dict):
        return {name: _portable(item) for name, item in value.items() if name not in LOCAL_SETTINGS}
    if isinstance(value, (list, tuple)):
        return [_portable(item) for item in value]
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    parts = Path(value).parts[1:]
    tails = (Path(*parts[start:]) for start in range(len(parts)))  # longest first; also of another checkout
    return str(next((tail for tail in tails if (REPOSITORY / tail).is_file()), Path(value).name))


def slim_weights(model: CLIPRC, tower: TextTower | None, dtype: torch.dtype) -> dict[str, Tensor]:
    """Convert the weights of the model and the text tower to `dtype`.

    Weights that float16 holds exactly, as most frozen ones of CLIP, are stored in float16 for every `dtype`. Vectors
    (norms and biases) are not converted: they take little space.

    Raises:
        UserError: there is no text tower, or a weight is too large for the type.
    """
    weights = dict(model.state_dict())
    if tower is not None:
        try:
            encoder = tower.load()
        except UserError as error:
            raise UserError(f'{error}\nOr leave out the text tower: --no-text-tower.') from error
        weights |= {f'text_encoder.{name}': tensor for name, tensor in encoder.state_dict().items()}
    slim = {}
    for name, tensor in weights.items():
        half = tensor.half()
        if torch.equal(half.float(), tensor):
            slim[name] = half.contiguous()
        else:
            slim[name] = (tensor if tensor.ndim < 2 else tensor.to(dtype)).contiguous()
        if not slim[name].isfinite().all():
            raise UserError(f'{name} has values that are too large for the type: use --dtype bfloat16 or float32.')
    return slim
