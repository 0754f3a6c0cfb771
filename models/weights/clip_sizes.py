"""Fill in CLIP's sizes that a config leaves out, from the checkpoint or from the CLIP file."""
from pathlib import Path

from mmcv import Config, ConfigDict

from ..errors import UserError
from . import files, metadata
from .clip import is_clip_rc
from .clip_variant import variant_of
from .files import Checkpoint
from .published_files import MODELS

# Settings of a config's `model` that are CLIP's.
SIZES = {
    'backbone': ('patch_size', 'width', 'layers', 'heads', 'output_dim', 'gelu'),
    'text_encoder': ('context_length', 'vocab_size', 'transformer_width', 'transformer_heads', 'transformer_layers',
                     'embed_dim', 'gelu'),
    'decode_head': ('in_channels',),
}
NOT_IN_TENSORS = {'heads': 12, 'gelu': 'quick'}  # with the encoder's defaults


def fill_in(config: Config, checkpoint: Checkpoint | None = None) -> None:
    """Add the sizes, heads and GELU of its CLIP to a config that leaves them out or sets them to None.

    They come from the metadata or the tensors of the checkpoint, or without one from the CLIP file `model.pretrained`.
    If that is missing too and the config gives `model.backbone.width`, the encoder's defaults (ViT-B/16) apply: FLOPs
    can be counted without any file.

    Raises:
        UserError: the width is left out, and neither file shows it; the kind of the CLIP file or its GELU is unknown;
            the config's heads or GELU differ from those of the checkpoint's training.
    """
    model = config.model
    for part, keys in SIZES.items():
        for key in keys:
            if key in (model.get(part) or {}) and model[part][key] is None:
                del model[part][key]
    known = _model_of_clip(model, checkpoint)
    for part in ('backbone', 'text_encoder'):
        for key, value in (known.get(part) or {}).items() if isinstance(model.get(part), dict) else ():
            if key in SIZES[part] and value is not None:
                model[part].setdefault(key, value)
    if known.get('clip_name') is not None and model.get('clip_name') is None:
        model.clip_name = known['clip_name']
    if 'output_dim' in model.backbone:
        model.decode_head.setdefault('in_channels', model.backbone.output_dim)
    if 'width' not in model.backbone:
        source = checkpoint.path if checkpoint is not None else model.get('pretrained')
        raise UserError(f'the config leaves out the sizes of its CLIP (model.backbone.width), and {source} does not '
                        'show them.')


def _model_of_clip(model: ConfigDict, checkpoint: Checkpoint | None) -> dict:
    """Return the known settings of the model's CLIP, by the names of a config's `model`."""
    if checkpoint is not None and (description := metadata.description(checkpoint)):
        _check_same(model, description.config['model'], checkpoint)
        return description.config['model']
    source, path, own_text = checkpoint, model.get('pretrained'), True
    if checkpoint is None or not is_clip_rc(checkpoint):
        if 'width' in model.backbone and (path is None or not Path(path).is_file()):
            return {}
        source, own_text = files.read(require_clip(path)), model.get('pretrained_text') in (None, path)
    variant = variant_of(source, name=model.get('clip_name'), gelu=model.backbone.get('gelu'))
    return {'backbone': variant.vision, 'text_encoder': variant.text if own_text else {}}


def _check_same(model: ConfigDict, trained: dict, checkpoint: Checkpoint) -> None:
    """Check that heads and GELU are those of the checkpoint's training; its tensors do not show them."""
    for key, default in NOT_IN_TENSORS.items():
        used = trained['backbone'].get(key, default)
        asked = model.backbone.get(key, used)
        if asked != used:
            raise UserError(f'{checkpoint.path} was trained with model.backbone.{key}={used}, the config says '
                            f'{asked}: it is for another CLIP. Use a config for the checkpoint\'s CLIP, or leave the '
                            'setting out.')


def require_clip(path: str | None, option: str = '--cfg-options model.pretrained=FILE model.pretrained_text=FILE'
                 ) -> str:
    """Return the path of the config's CLIP file.

    Raises:
        UserError: the config names none, or the file is missing. The message has the command that downloads it, and
            the `option` for another file.
    """
    if path is None:
        raise UserError('the config names no CLIP file (model.pretrained, model.pretrained_text).')
    if not Path(path).exists():
        name = Path(path).stem
        file, argument = ('it', f' {name}') if name in MODELS else ('OpenAI\'s', '')
        raise UserError(f'no CLIP file {path}. Fetch {file} with\n    python tools/download.py{argument}\n'
                        f'or name one that you have: {option}')
    return path
