"""Heads and GELU of a CLIP by its name in open_clip, or by the config.json that Hugging Face has beside it."""
import json
from functools import cache
from pathlib import Path

from ..errors import UserError
from .clip import Variant, saved_by_openai
from .files import Checkpoint

KINDS_OF_GELU = {'quick': 'QuickGELU', 'plain': 'plain GELU'}
GELU_OF_HUGGING_FACE = {'quick_gelu': 'quick', 'gelu': 'plain'}
HEADS_OF_HUGGING_FACE = {'vision': 12, 'text': 8}  # where a config.json leaves them out
LARGEST_JSON = 1_000_000  # bytes
PLAIN_VIT = {'embed_dim', 'quick_gelu', 'vision_cfg', 'text_cfg',  # settings of open_clip's plain ViT models
             *(f'vision.{key}' for key in ('image_size', 'layers', 'width', 'head_width', 'patch_size')),
             *(f'text.{key}' for key in ('context_length', 'vocab_size', 'width', 'heads', 'layers'))}


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


def names_alike(sizes: Variant) -> list[str]:
    """List open_clip's names of the CLIPs of these sizes."""
    return [name for name, known in known_variants().items()
            if not _differences(known, sizes) and '-quickgelu/' not in name]  # the same weights under a second name


def variant_alike(sizes: Variant) -> Variant | None:
    """Find a named model of the same sizes, for its heads: some of open_clip's are not 64 wide."""
    sizes = sizes._replace(resolution=None)
    return next((known for known in known_variants().values() if not _differences(known, sizes)), None)


def check_name(name: str, sizes: Variant, checkpoint: Checkpoint) -> Variant:
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


def hugging_face_variant(file: Path, sizes: Variant) -> Variant:
    """Read heads and GELU from the config.json of transformers.

    Raises:
        UserError: the file is damaged, of another model, or of one that differs from CLIP.
    """
    try:
        if file.stat().st_size > LARGEST_JSON:
            raise ValueError('it is too large')
        config = json.loads(file.read_text(encoding='utf-8'))
        widths = {'vision': sizes.vision.get('width'), 'text': sizes.text.get('transformer_width')}
        towers = {tower: _tower(config.get(f'{tower}_config', config), HEADS_OF_HUGGING_FACE[tower], width)
                  for tower, width in widths.items() if width}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'{file} is not the config of the CLIP beside it: {error}. Fetch it again, or move it away '
                        'and name the model: model.clip_name.') from error
    return Variant(towers.get('vision', {}), towers.get('text', {}), None)


def _tower(config: dict, heads: int, width: int) -> dict[str, int | str]:
    """Read heads and GELU of a tower of this width."""
    heads, activation = config.get('num_attention_heads', heads), config.get('hidden_act', 'quick_gelu')
    if config.get('hidden_size', width) != width or type(heads) is not int or heads < 1 or width % heads:
        raise ValueError(f'a width of {config.get("hidden_size")} and {heads} heads, in the file the width is {width}')
    if str(activation) not in GELU_OF_HUGGING_FACE:
        raise ValueError(f'hidden_act={activation!r} is not supported')
    return {'heads': heads, 'transformer_heads': heads, 'gelu': GELU_OF_HUGGING_FACE[activation]}
