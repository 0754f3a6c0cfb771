"""What a config leaves out of its CLIP's sizes comes from the checkpoint, or from the CLIP file."""
from pathlib import Path

from mmcv import Config, ConfigDict

from models.errors import UserError
from models.weights import files, metadata
from models.weights.clip_variant import Variant, variant_of
from models.weights.files import Checkpoint, is_clip_rc
from tools.download import MODELS

# What of a config's `model` is CLIP's.
SIZES = {
    'backbone': ('patch_size', 'width', 'layers', 'heads', 'output_dim', 'gelu'),
    'text_encoder': ('context_length', 'vocab_size', 'transformer_width', 'transformer_heads', 'transformer_layers',
                     'embed_dim', 'gelu'),
    'decode_head': ('in_channels',),
}
UNTOLD = {'heads': 12, 'gelu': 'quick'}  # what no tensor of a checkpoint shows, and the encoder's defaults


def fill_in(config: Config, checkpoint: Checkpoint | None = None) -> None:
    """Writes into the config what it leaves out (or says to be None) of CLIP's sizes, heads and GELU.

    They are those of the checkpoint, by what it says of itself or by its tensors; without one, those of the CLIP file
    `model.pretrained`. Where that is missing too, a config that gives `model.backbone.width` is completed by the
    encoder's defaults, ViT-B/16, as official configs are: it counts what a model costs without any file.

    Raises:
        UserError: the width is left out, and nothing tells it; the CLIP file is none that is known here, or does not
            tell its GELU: a question; the config's heads or GELU are not those that the checkpoint was trained with.
    """
    model = config.model
    for part, keys in SIZES.items():
        for key in keys:
            if key in (model.get(part) or {}) and model[part][key] is None:
                del model[part][key]
    told = _told(model, checkpoint)
    for part in ('backbone', 'text_encoder'):
        for key in SIZES[part]:
            if isinstance(model.get(part), dict) and (told.get(part) or {}).get(key) is not None:
                model[part].setdefault(key, told[part][key])
    if told.get('clip_name') is not None and model.get('clip_name') is None:
        model.clip_name = told['clip_name']
    if 'output_dim' in model.backbone:
        model.decode_head.setdefault('in_channels', model.backbone.output_dim)
    if 'width' not in model.backbone:
        source = checkpoint.path if checkpoint is not None else model.get('pretrained')
        raise UserError(f'the config leaves out the sizes of its CLIP (model.backbone.width), and {source} does not '
                        'show them.')


def _told(model: ConfigDict, checkpoint: Checkpoint | None) -> dict:
    """What is known of the model's CLIP, in the words of a config's `model`."""
    description = None if checkpoint is None else metadata.description(checkpoint)
    if description is not None:
        stored = description.config['model']
        _check_untold(model, stored, checkpoint)
        return stored
    name, gelu = model.get('clip_name'), model.backbone.get('gelu')
    if checkpoint is not None and is_clip_rc(checkpoint):
        return _as_config(variant_of(checkpoint, name=name, gelu=gelu))
    path = model.get('pretrained')
    if 'width' in model.backbone and (path is None or not Path(path).is_file()):
        return {}
    variant = variant_of(files.read(require_clip(path)), name=name, gelu=gelu)
    if model.get('pretrained_text') not in (None, path):
        variant = variant._replace(text={})  # another file's
    return _as_config(variant)


def _as_config(variant: Variant) -> dict:
    return {'backbone': variant.vision, 'text_encoder': variant.text}


def _check_untold(model: ConfigDict, stored: dict, checkpoint: Checkpoint) -> None:
    """Heads and GELU of the config are those of the checkpoint, whose tensors would fit others as well."""
    for key, default in UNTOLD.items():
        trained = stored['backbone'].get(key, default)
        said = model.backbone.get(key, trained)
        if said != trained:
            raise UserError(f'{checkpoint.path} was trained with model.backbone.{key}={trained}, the config says '
                            f'{said}. Leave it out: the checkpoint tells it.')


def require_clip(path: str | None, option: str = '--cfg-options model.pretrained=FILE model.pretrained_text=FILE'
                 ) -> str:
    """The path of the config's CLIP file.

    Raises:
        UserError: the config names none, or it is missing; the message names the command that fetches it, and the
            `option` that names another.
    """
    if path is None:
        raise UserError('the config names no CLIP file (model.pretrained, model.pretrained_text).')
    if not Path(path).exists():
        name = Path(path).stem
        what, which = ('it', f' {name}') if name in MODELS else ('OpenAI\'s', '')
        raise UserError(f'no CLIP file {path}. Fetch {what} with\n    python tools/download.py{which}\n'
                        f'or name one that you have: {option}')
    return path
