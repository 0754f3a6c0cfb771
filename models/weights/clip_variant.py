"""The kind of GELU and the attention heads of a CLIP, which no tensor shows, and its text encoder.

OpenAI's files (they hold three integers) have QuickGELU and a head per 64 of width. open_clip trained CLIPs with both
kinds of GELU and saves them alike: its table of named models tells them apart, or the user does. Hugging Face's
transformers write both into a config.json beside the file.
"""
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError
from ..text_encoder import VOCABULARY, CLIPTextEncoder
from .checks import first_of
from .clip import Variant, saved_by_openai, sizes_of, text_tower
from .clip_names import KINDS_OF_GELU, check_name, hugging_face_variant, known_variants, names_alike, variant_alike
from .cliprc import is_clip_rc
from .files import Checkpoint

SHOWN = 4  # names of each kind of GELU in a question


def variant_of(checkpoint: Checkpoint, *, name: str | None = None, gelu: str | None = None) -> Variant:
    """Find out which CLIP is in a CLIP file or in an official CLIP-RC checkpoint, which is built on OpenAI's.

    Args:
        name: open_clip's name of it, such as 'ViT-L-14/laion2b_s32b_b82k', which implies heads and GELU.
        gelu: 'quick' or 'plain': for a CLIP without such a name; overrides the name.

    Raises:
        UserError: the file is not a CLIP ViT, or not the named one, or its GELU is unknown.
    """
    sizes, known = sizes_of(checkpoint), None
    if name is not None:
        known = check_name(name, sizes, checkpoint)
    elif saved_by_openai(checkpoint) or is_clip_rc(checkpoint):
        gelu = gelu or 'quick'
    elif checkpoint.hugging_face and (file := Path(checkpoint.path).with_name('config.json')).is_file():
        known = hugging_face_variant(file, sizes)
    elif gelu is not None:
        known = variant_alike(sizes)
    else:
        raise UserError(_question(sizes, checkpoint))
    vision = sizes.vision and {
        **sizes.vision, 'heads': known.vision['heads'] if known else max(1, sizes.vision['width'] // 64),
        'gelu': gelu or known.vision['gelu']}
    text = sizes.text and {
        **sizes.text, 'transformer_heads': known.text['transformer_heads'] if known else max(
            1, sizes.text['transformer_width'] // 64), 'gelu': gelu or known.text['gelu']}
    return Variant(vision, text, sizes.resolution)


def text_encoder_of(checkpoint: Checkpoint, *, heads: int | None = None, gelu: str | None = None,
                    name: str | None = None) -> CLIPTextEncoder:
    """Build the text encoder in a CLIP file or an official CLIP-RC checkpoint, with its weights, frozen.

    Args:
        heads: attention heads, where they differ from those of the file or the name.
        gelu, name: as for `variant_of`.

    Raises:
        UserError: the file has no text encoder, or one with another vocabulary, or its GELU is unknown.
    """
    tower = text_tower(checkpoint)
    sizes = text_variant_of(checkpoint, heads=heads, gelu=gelu, name=name)
    return CLIPTextEncoder.like(tower, sizes['transformer_heads'], sizes['gelu'])


def text_variant_of(checkpoint: Checkpoint, *, heads: int | None = None, gelu: str | None = None,
                    name: str | None = None) -> dict[str, int | str]:
    """Return the arguments of the encoder that `text_encoder_of` builds from the same arguments."""
    text = variant_of(checkpoint, name=name, gelu=gelu).text
    if not text:
        raise UserError(f'{checkpoint.path} holds no CLIP text encoder.')
    if text['vocab_size'] != VOCABULARY:
        raise UserError(f'{checkpoint.path} has a vocabulary of {text["vocab_size"]} tokens, CLIP\'s has '
                        f'{VOCABULARY}: it was trained with another tokenizer, which is not supported.')
    return text | ({'transformer_heads': heads} if heads else {})


def text_options(model: Mapping) -> dict[str, int | str | None]:
    """Return the arguments of `text_encoder_of` that a config's `model` gives."""
    text = model.get('text_encoder') or {}
    gelu = text.get('gelu')
    if gelu is None and model.get('pretrained_text') in (None, model.get('pretrained')):
        gelu = (model.get('backbone') or {}).get('gelu')  # both towers of a CLIP have the same
    return {'heads': text.get('transformer_heads'), 'gelu': gelu, 'name': model.get('clip_name')}


def _question(sizes: Variant, checkpoint: Checkpoint) -> str:
    alike = names_alike(sizes)
    lines = [f'{checkpoint.path} is not in OpenAI\'s format, and its tensors do not show which GELU it was trained '
             'with. Which model is it?']
    for gelu, kind in KINDS_OF_GELU.items():
        if names := [name for name in alike if known_variants()[name].vision['gelu'] == gelu]:
            lines.append(f'  with these sizes and {kind}: {first_of(names, SHOWN)}')
    if checkpoint.hugging_face:
        lines.append('Hugging Face has a config.json beside the file, which answers this: put it there.')
    example = ', --cfg-options model.clip_name=MODEL/WEIGHTS' if alike else ''
    lines.append(f'Give its name as model.clip_name{example}; tools/text_embeddings.py takes --clip-name. For one '
                 'without a name: model.backbone.gelu=quick or =plain.')
    return '\n'.join(lines)
