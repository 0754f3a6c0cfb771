"""The kind of GELU and the attention heads of a CLIP, which no tensor shows, and its text encoder.

OpenAI's files (they hold three integers) have QuickGELU and a head per 64 of width. open_clip trained CLIPs with both
kinds of GELU and saves them alike: its table of named models tells them apart, or the user does. Hugging Face's
transformers write both into a config.json beside the file.
"""
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ..errors import UserError
from ..text_encoder import VOCABULARY, CLIPTextEncoder
from .checks import check, first_of
from .clip import Variant, is_clip_rc, saved_by_openai, sizes_of, text_tower
from .files import Checkpoint

SHOWN = 4  # names of each kind of GELU in a question
KINDS_OF_GELU = {'quick': 'QuickGELU', 'plain': 'plain GELU'}
GELU_OF_HUGGING_FACE = {'quick_gelu': 'quick', 'gelu': 'plain'}
LARGEST_JSON = 1_000_000  # bytes
PLAIN_VIT = {'embed_dim', 'quick_gelu', 'vision_cfg', 'text_cfg',  # settings of open_clip's plain ViT models
             *(f'vision.{key}' for key in ('image_size', 'layers', 'width', 'head_width', 'patch_size')),
             *(f'text.{key}' for key in ('context_length', 'vocab_size', 'width', 'heads', 'layers'))}


def variant_of(checkpoint: Checkpoint, *, name: str | None = None, gelu: str | None = None) -> Variant:
    """Find out which CLIP is in a CLIP file or in an official CLIP-RC checkpoint, which is built on OpenAI's.

    Args:
        name: open_clip's name of it, such as 'ViT-L-14/laion2b_s32b_b82k', which implies heads and GELU.
        gelu: 'quick' or 'plain': for a CLIP without such a name; overrides the name.

    Raises:
        UserError: the file is not a CLIP ViT, or not the named one, or its GELU is unknown.
    """
    sizes, known = sizes_of(checkpoint), Variant({}, {}, None)
    if name is not None:
        known = _named(name, sizes, checkpoint)
    elif saved_by_openai(checkpoint) or is_clip_rc(checkpoint):
        gelu = gelu or 'quick'
    elif checkpoint.hugging_face and (file := Path(checkpoint.path).with_name('config.json')).is_file():
        known = _of_hugging_face(file, sizes)
    elif gelu is None:
        raise UserError(_question(sizes, checkpoint))
    else:  # some of open_clip's heads are not 64 wide
        known = next(iter(variants_alike(sizes._replace(resolution=None)).values()), known)
    chosen = {'gelu': gelu} if gelu else {}
    vision = sizes.vision and {'heads': max(1, sizes.vision['width'] // 64), **known.vision, **sizes.vision, **chosen}
    text = sizes.text and {'transformer_heads': max(1, sizes.text['transformer_width'] // 64), **known.text,
                           **sizes.text, **chosen}
    return Variant(vision, text, sizes.resolution)


def text_encoder_of(checkpoint: Checkpoint, model: Mapping | None = None) -> CLIPTextEncoder:
    """Build the text encoder in a CLIP file or an official CLIP-RC checkpoint, with its weights, frozen.

    Args:
        model: a config's `model`, which may give heads and GELU, or open_clip's name of the CLIP (`clip_name`).

    Raises:
        UserError: the file has no text encoder, or one with another vocabulary, or its GELU is unknown.
    """
    tower, model = text_tower(checkpoint), model or {}
    given = model.get('text_encoder') or {}
    gelu = given.get('gelu')
    if gelu is None and model.get('pretrained_text') in (None, model.get('pretrained')):
        gelu = (model.get('backbone') or {}).get('gelu')  # both towers of a CLIP have the same
    sizes = variant_of(checkpoint, name=model.get('clip_name'), gelu=gelu).text
    if not sizes:
        raise UserError(f'{checkpoint.path} holds no CLIP text encoder.')
    if sizes['vocab_size'] != VOCABULARY:
        raise UserError(f'{checkpoint.path} has a vocabulary of {sizes["vocab_size"]} tokens, CLIP\'s has '
                        f'{VOCABULARY}: it was trained with another tokenizer, which is not supported.')
    heads = given.get('transformer_heads') or sizes['transformer_heads']
    encoder = CLIPTextEncoder(**{**sizes, 'transformer_heads': heads})
    check(tower, encoder.state_dict(), 'the text encoder')
    encoder.load_state_dict(tower)
    return encoder.eval().requires_grad_(False)


# ---- named models of open_clip

@cache
def known_variants() -> dict[str, Variant]:
    """List the CLIP ViTs with published weights by open_clip's names of both, 'ViT-B-16/openai' and the like."""
    import open_clip  # slow, and needed for names alone
    known = {}
    for architecture, tag in open_clip.list_pretrained():
        model = open_clip.get_model_config(architecture)
        vision, text = model['vision_cfg'], model['text_cfg']
        if not isinstance(vision.get('layers'), int):
            continue  # a ResNet, or a tower of timm's
        if not PLAIN_VIT >= {*model, *(f'vision.{key}' for key in vision), *(f'text.{key}' for key in text)}:
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


def variants_alike(sizes: Variant) -> dict[str, Variant]:
    """List the CLIPs of these sizes by open_clip's names."""
    return {name: known for name, known in known_variants().items()
            if not _differences(known, sizes) and '-quickgelu/' not in name}  # the same weights under a second name


def _named(name: str, sizes: Variant, checkpoint: Checkpoint) -> Variant:
    """Look up a named model, which must have the sizes of the file.

    Raises:
        UserError: there is no such name, or the file is of another model.
    """
    models = known_variants()
    if name not in models:
        architecture = name.partition('/')[0]
        weights = [other.partition('/')[2] for other in models if other.startswith(f'{architecture}/')]
        choice = f'{architecture} has the weights {", ".join(weights)}' if weights else \
            f'models: {", ".join(dict.fromkeys(other.partition("/")[0] for other in models))}'
        raise UserError(f'{name!r} is not a known name of a CLIP ViT. A name is MODEL/WEIGHTS, such as '
                        f'ViT-B-16/openai; {choice}.')
    known = models[name]
    if differences := _differences(known, sizes):
        raise UserError(f'{checkpoint.path} is not {name}: {"; ".join(differences)}. Name the right file, or '
                        'correct its name (model.clip_name).')
    if saved_by_openai(checkpoint) and known.vision['gelu'] != 'quick':
        raise UserError(f'{checkpoint.path} is in OpenAI\'s format, so its GELU is QuickGELU; {name} has '
                        f'{KINDS_OF_GELU[known.vision["gelu"]]}. Correct model.clip_name, or leave it out.')
    return known


def _differences(known: Variant, sizes: Variant) -> list[str]:
    """List where the sizes of a named model and of a file differ."""
    pairs = [(part, key, getattr(known, part)[key], value) for part in ('vision', 'text')
             for key, value in getattr(sizes, part).items()]
    if sizes.resolution is not None:
        pairs.append(('vision', 'image size', known.resolution, sizes.resolution))
    return [f'{part} {key} {there}, in the file {here}' for part, key, there, here in pairs if there != here]


def _question(sizes: Variant, checkpoint: Checkpoint) -> str:
    alike = variants_alike(sizes)
    lines = [f'{checkpoint.path} is not in OpenAI\'s format, and its tensors do not show which GELU it was trained '
             'with. Which model is it?']
    for gelu, kind in KINDS_OF_GELU.items():
        if names := [name for name, known in alike.items() if known.vision['gelu'] == gelu]:
            lines.append(f'  with these sizes and {kind}: {first_of(names, SHOWN)}')
    if checkpoint.hugging_face:
        lines.append('Hugging Face has a config.json beside the file, which answers this: put it there.')
    example = ', --cfg-options model.clip_name=MODEL/WEIGHTS' if alike else ''
    lines.append(f'Give its name as model.clip_name{example}; tools/text_embeddings.py takes --clip-name. For one '
                 'without a name: model.backbone.gelu=quick or =plain.')
    return '\n'.join(lines)


# ---- the config.json of Hugging Face's transformers

def _of_hugging_face(file: Path, sizes: Variant) -> Variant:
    """Read heads and GELU from the config.json of transformers.

    Raises:
        UserError: the file is damaged, of another model, or of one that differs from CLIP.
    """
    try:
        if file.stat().st_size > LARGEST_JSON:
            raise ValueError('it is too large')
        config = json.loads(file.read_text(encoding='utf-8'))
        return Variant(sizes.vision and _tower(config.get('vision_config', config), sizes.vision['width'], heads=12),
                       sizes.text and _tower(config.get('text_config', config), sizes.text['transformer_width'],
                                             'transformer_heads', heads=8), None)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'{file} is not the config of the CLIP beside it: {error}. Fetch it again, or move it away '
                        'and name the model: model.clip_name.') from error


def _tower(config: dict, width: int, name: str = 'heads', *, heads: int) -> dict[str, int | str]:
    """Read GELU and heads of a tower of this width; `heads` are those of a config that leaves them out."""
    heads, activation = config.get('num_attention_heads', heads), config.get('hidden_act', 'quick_gelu')
    if config.get('hidden_size', width) != width or type(heads) is not int or heads < 1 or width % heads:
        raise ValueError(f'a width of {config.get("hidden_size")} and {heads} heads, in the file the width is {width}')
    if str(activation) not in GELU_OF_HUGGING_FACE:
        raise ValueError(f'hidden_act={activation!r} is not supported')
    return {name: heads, 'gelu': GELU_OF_HUGGING_FACE[activation]}
