"""Which CLIP a file is: its sizes, which its tensors show, and its attention heads and kind of GELU, which none shows.

OpenAI's files (they hold three integers) have QuickGELU and a head per 64 of width. open_clip trained CLIPs of both
kinds of GELU and saves them alike: its own table of named models tells them apart, or whoever has the file.
Hugging Face's transformers write both into a config.json beside the file.
"""
import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..errors import UserError
from ..text_encoder import VOCABULARY, CLIPTextEncoder
from . import files
from .files import INTEGERS_OF_OPENAI, Checkpoint, depth, is_clip_rc

KINDS_OF_GELU = {'quick': 'QuickGELU', 'plain': 'plain GELU'}
GELU_OF_HUGGING_FACE = {'quick_gelu': 'quick', 'gelu': 'plain'}
DEFAULTS_OF_HUGGING_FACE = {'hidden_act': 'quick_gelu', 'layer_norm_eps': 1e-5}  # which a config.json may leave out
HEADS_OF_HUGGING_FACE = {'vision': 12, 'text': 8}  # by default
LARGEST_JSON = 1_000_000  # bytes
SHOWN = 4  # names of each kind in a question


class Variant(NamedTuple):
    """A CLIP in the words of its encoders' arguments."""
    vision: dict[str, int | str]  # CLIPVisionEncoder's patch_size, width, layers, heads, output_dim, gelu; or nothing
    text: dict[str, int | str]  # CLIPTextEncoder's context_length, ... embed_dim, gelu; or nothing
    resolution: int | None  # side in pixels of the images that it was trained on


def variant_of(checkpoint: Checkpoint, *, name: str | None = None, gelu: str | None = None) -> Variant:
    """Which CLIP is in a CLIP file, or in an official CLIP-RC checkpoint (OpenAI's); what it lacks is left empty.

    Args:
        name: open_clip's name of it, such as 'ViT-L-14/laion2b_s32b_b82k'; tells heads and GELU.
        gelu: 'quick' or 'plain': of a CLIP that has no such name, or in spite of it.

    Raises:
        UserError: it is no CLIP ViT, or not the one that was named; or nothing tells its GELU: a question.
    """
    shown, told = sizes_shown(checkpoint), None
    if name is not None:
        told = _named(name)
        _check_name(name, told, shown, checkpoint)
    elif saved_by_openai(checkpoint) or is_clip_rc(checkpoint):
        gelu = gelu or 'quick'
    elif checkpoint.hugging_face and (file := Path(checkpoint.path).with_name('config.json')).is_file():
        told = _of_hugging_face(file, shown)
    elif gelu is not None:
        told = _alike(shown)
    else:
        raise UserError(_question(shown, checkpoint))
    vision, text = dict(shown.vision), dict(shown.text)
    if vision:
        vision |= {'heads': told.vision['heads'] if told else max(1, vision['width'] // 64),
                   'gelu': gelu or told.vision['gelu']}
    if text:
        text |= {'transformer_heads': told.text['transformer_heads'] if told else max(
            1, text['transformer_width'] // 64), 'gelu': gelu or told.text['gelu']}
    return Variant(vision, text, shown.resolution)


def text_encoder_of(checkpoint: Checkpoint, *, heads: int | None = None, gelu: str | None = None,
                    name: str | None = None) -> CLIPTextEncoder:
    """The text encoder in a CLIP file or an official CLIP-RC checkpoint, with its weights, frozen.

    Args:
        heads: attention heads, where they are not what the file or the name tells.
        gelu, name: as for `variant_of`.

    Raises:
        UserError: the file holds none, or one that does not read CLIP's tokens; or nothing tells its GELU: a question.
    """
    tower = files.text_tower(checkpoint)
    told = text_variant_of(checkpoint, heads=heads, gelu=gelu, name=name)
    return CLIPTextEncoder.like(tower, told['transformer_heads'], told['gelu'])


def text_variant_of(checkpoint: Checkpoint, *, heads: int | None = None, gelu: str | None = None,
                    name: str | None = None) -> dict[str, int | str]:
    """The arguments of the encoder that `text_encoder_of` returns, of which it takes the same arguments."""
    text = variant_of(checkpoint, name=name, gelu=gelu).text
    if not text:
        raise UserError(f'{checkpoint.path} holds no CLIP text encoder.')
    if text['vocab_size'] != VOCABULARY:
        raise UserError(f'{checkpoint.path} has a vocabulary of {text["vocab_size"]} tokens, CLIP\'s has '
                        f'{VOCABULARY}: it was trained with another tokenizer, which is not supported.')
    return text | ({'transformer_heads': heads} if heads else {})


def told_by_config(model: Mapping) -> dict[str, int | str | None]:
    """What a config's `model` says of its CLIP's text tower, as arguments of `text_encoder_of`."""
    text = model.get('text_encoder') or {}
    gelu = text.get('gelu')
    if gelu is None and model.get('pretrained_text') in (None, model.get('pretrained')):
        gelu = (model.get('backbone') or {}).get('gelu')  # both towers of a CLIP have the same
    return {'heads': text.get('transformer_heads'), 'gelu': gelu, 'name': model.get('clip_name')}


# ---- what tensors show

def saved_by_openai(checkpoint: Checkpoint) -> bool:
    """Whether a CLIP file is of OpenAI's format."""
    return all(name in checkpoint.weights for name in INTEGERS_OF_OPENAI)


def sizes_shown(checkpoint: Checkpoint) -> Variant:
    """The CLIP in a file without what tensors do not show, heads and GELU.

    Raises:
        UserError: it is no CLIP ViT.
    """
    weights = checkpoint.weights
    if is_clip_rc(checkpoint):  # whose positions are of other images than CLIP's
        return Variant(_vision_sizes(weights, 'backbone.') or {}, _text_sizes(weights, 'text_encoder.') or {}, None)
    files.check_names(checkpoint)
    vision, text, resolution = _vision_sizes(weights, 'visual.'), _text_sizes(weights, ''), None
    if vision is not None:
        resolution = math.isqrt(len(weights['visual.positional_embedding']) - 1) * vision['patch_size']
    elif any(name.startswith('visual.') for name in weights) or text is None:
        raise UserError(f'{checkpoint.path} is no CLIP ViT{files.other_kind(checkpoint)}: the CLIPs that '
                        'are known here are those of OpenAI and open_clip whose image tower is a plain ViT.')
    return Variant(vision or {}, text or {}, resolution)


def _vision_sizes(weights: Mapping[str, Tensor], prefix: str) -> dict[str, int] | None:
    shapes = _shapes(weights, prefix, {'conv1.weight': 4, 'class_embedding': 1, 'positional_embedding': 2, 'proj': 2,
                                       'ln_pre.weight': 1})
    if shapes is None:
        return None
    (width, _, _, patch), *_, (_, space), _ = shapes
    return {'patch_size': patch, 'width': width, 'layers': depth(weights, f'{prefix}transformer.resblocks'),
            'output_dim': space}


def _text_sizes(weights: Mapping[str, Tensor], prefix: str) -> dict[str, int] | None:
    shapes = _shapes(weights, prefix, {'token_embedding.weight': 2, 'positional_embedding': 2, 'text_projection': 2})
    if shapes is None:
        return None
    (vocabulary, width), (length, _), (_, space) = shapes
    return {'context_length': length, 'vocab_size': vocabulary, 'transformer_width': width,
            'transformer_layers': depth(weights, f'{prefix}transformer.resblocks'), 'embed_dim': space}


def _shapes(weights: Mapping[str, Tensor], prefix: str, dimensions: dict[str, int]) -> list[tuple[int, ...]] | None:
    """Shapes of these tensors; None unless all are there with these numbers of dimensions."""
    shapes = [tuple(weights[prefix + name].shape) for name in dimensions if prefix + name in weights]
    return shapes if [len(shape) for shape in shapes] == [*dimensions.values()] else None


# ---- what names tell

@cache
def known_variants() -> dict[str, Variant]:
    """The CLIP ViTs with published weights by open_clip's names of both, 'ViT-B-16/openai' and the like."""
    import open_clip  # only who asks for names pays for the import
    known = {}
    for architecture, tag in open_clip.list_pretrained():
        model = open_clip.get_model_config(architecture)
        vision, text = model['vision_cfg'], model['text_cfg']
        if not isinstance(vision.get('layers'), int):
            continue  # a ResNet, or a tower of timm's
        if not _PLAIN >= {*model, *(f'vision.{key}' for key in vision), *(f'text.{key}' for key in text)}:
            continue  # another kind of tower, of pooling or of tokens
        quick = model.get('quick_gelu') or open_clip.get_pretrained_cfg(architecture, tag).get('quick_gelu')
        gelu = 'quick' if quick else 'plain'
        known[f'{architecture}/{tag}'] = Variant(
            {'patch_size': vision['patch_size'], 'width': vision['width'], 'layers': vision['layers'],
             'output_dim': model['embed_dim'], 'heads': vision['width'] // vision.get('head_width', 64), 'gelu': gelu},
            {'context_length': text['context_length'], 'vocab_size': text['vocab_size'],
             'transformer_width': text['width'], 'transformer_layers': text['layers'],
             'embed_dim': model['embed_dim'], 'transformer_heads': text['heads'], 'gelu': gelu},
            vision['image_size'])
    return known


_PLAIN = {'embed_dim', 'quick_gelu', 'vision_cfg', 'text_cfg',
          *(f'vision.{key}' for key in ('image_size', 'layers', 'width', 'head_width', 'patch_size')),
          *(f'text.{key}' for key in ('context_length', 'vocab_size', 'width', 'heads', 'layers'))}


def _named(name: str) -> Variant:
    known = known_variants()
    if name in known:
        return known[name]
    architecture, _, tag = name.partition('/')
    tags = [other.partition('/')[2] for other in known if other.startswith(f'{architecture}/')]
    if tags:
        raise UserError(f'{name!r} is no name of open_clip\'s: {architecture}/WEIGHTS is one, WEIGHTS being any of '
                        f'{", ".join(tags)}.')
    architectures = dict.fromkeys(other.partition('/')[0] for other in known)
    raise UserError(f'{name!r} is no name of a CLIP ViT that is known here. A name is MODEL/WEIGHTS, such as '
                    f'ViT-B-16/openai; models: {", ".join(architectures)}.')


def _differences(told: Variant, shown: Variant) -> list[str]:
    """Where a named model and a file differ, of what the file shows."""
    pairs = [(part, key, getattr(told, part)[key], value) for part in ('vision', 'text')
             for key, value in getattr(shown, part).items()]
    if shown.resolution is not None:
        pairs.append(('vision', 'image size', told.resolution, shown.resolution))
    return [f'{part} {key} {there}, in the file {here}' for part, key, there, here in pairs if there != here]


def _check_name(name: str, told: Variant, shown: Variant, checkpoint: Checkpoint) -> None:
    differences = _differences(told, shown)
    if differences:
        raise UserError(f'{checkpoint.path} is not {name}: {"; ".join(differences)}. Name the right file, or '
                        'correct its name (model.clip_name).')
    if saved_by_openai(checkpoint) and told.vision['gelu'] != 'quick':
        raise UserError(f'{checkpoint.path} is of OpenAI\'s format, so its GELU is QuickGELU; {name} has '
                        f'{KINDS_OF_GELU[told.vision["gelu"]]}. Correct model.clip_name, or leave it out.')


def _of_hugging_face(file: Path, shown: Variant) -> Variant:
    """Heads and GELU as the config.json of transformers says.

    Raises:
        UserError: it is none, or of another model, or of one that differs from CLIP.
    """
    try:
        if file.stat().st_size > LARGEST_JSON:
            raise ValueError('it is too large')
        config = json.loads(file.read_text(encoding='utf-8'))
        towers = {tower: _tower_of_hugging_face(config, tower) for tower in ('vision', 'text')}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'{file} is no config of a CLIP in Hugging Face\'s transformers: {error}. Fetch it again, or '
                        'move it away and say which model it is: model.clip_name.') from error
    for tower, width in (('vision', shown.vision.get('width')), ('text', shown.text.get('transformer_width'))):
        said = towers[tower]
        if width is None:
            continue
        if said.get('hidden_size', width) != width or type(said['num_attention_heads']) is not int or \
                said['num_attention_heads'] < 1 or width % said['num_attention_heads']:
            raise UserError(f'{file} is of another model than the file beside it: its {tower} tower has a width of '
                            f'{said.get("hidden_size")} and {said["num_attention_heads"]} heads, in the file the width '
                            f'is {width}.')
        if said['hidden_act'] not in GELU_OF_HUGGING_FACE or said['layer_norm_eps'] != 1e-5:
            raise UserError(f'{file}: a {tower} tower with hidden_act={said["hidden_act"]!r} and layer_norm_eps='
                            f'{said["layer_norm_eps"]!r} is not supported, but those with '
                            f'{" or ".join(GELU_OF_HUGGING_FACE)} and 1e-05.')
    vision, text = ({'heads': said['num_attention_heads'], 'transformer_heads': said['num_attention_heads'],
                     'gelu': GELU_OF_HUGGING_FACE.get(said['hidden_act'])} for said in towers.values())
    return Variant(vision, text, None)


def _tower_of_hugging_face(config: dict, tower: str) -> dict:
    """What it says of a tower. Files of one tower have it at the top; old ones have it twice."""
    said = config.get(f'{tower}_config', config), config.get(f'{tower}_config_dict')
    said = {**DEFAULTS_OF_HUGGING_FACE, 'num_attention_heads': HEADS_OF_HUGGING_FACE[tower], **(said[0] or {}),
            **(said[1] or {})}
    return {**said, 'hidden_act': str(said['hidden_act'])}


def _alike(shown: Variant) -> Variant | None:
    """A named model of the same sizes, for its heads: some of open_clip's are not 64 wide."""
    return next((told for told in known_variants().values() if not _differences(told, shown._replace(resolution=None))),
                None)


def names_alike(shown: Variant) -> list[str]:
    """open_clip's names of the CLIPs of these sizes."""
    return [name for name, told in known_variants().items()
            if not _differences(told, shown) and '-quickgelu/' not in name]  # the same weights under a second name


def _question(shown: Variant, checkpoint: Checkpoint) -> str:
    alike = names_alike(shown)
    lines = [f'{checkpoint.path} is {described(shown)}, not in OpenAI\'s format, and no tensor tells which GELU it was '
             'trained with. Which model is it?']
    for gelu, kind in KINDS_OF_GELU.items():
        names = [name for name in alike if known_variants()[name].vision['gelu'] == gelu]
        more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
        if names:
            lines.append(f'  of these sizes with {kind}: {", ".join(names[:SHOWN])}{more}')
    if checkpoint.hugging_face:
        lines.append('Its config.json tells, as Hugging Face has it beside the file: put it there.')
    example = ', --cfg-options model.clip_name=MODEL/WEIGHTS' if alike else ''
    lines.append(f'Give its name as model.clip_name{example}; tools/text_embeddings.py takes --clip-name. For one '
                 'without a name: model.backbone.gelu=quick or =plain.')
    return '\n'.join(lines)


def described(variant: Variant) -> str:
    """'a CLIP of width 768 with 12 layers and patches of 16' and the like."""
    vision, text = variant.vision, variant.text
    if vision:
        return (f'a CLIP of width {vision["width"]} with {vision["layers"]} layers, patches of {vision["patch_size"]} '
                f'pixels and a space of {vision["output_dim"]}')
    return f'CLIP\'s text encoder of width {text["transformer_width"]} with {text["transformer_layers"]} layers'
