"""CLIP's towers in a file: which kind of file it is, its sizes, the vision tower and the text tower."""
import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ..errors import UserError
from ..vision_encoder import CLIPVisionEncoder, resize_positions
from .checks import check, check_numbers, depth, single
from .files import Checkpoint
from .names import TEXT_TOWER, hidden_part

# Tensors of CLIP that CLIP-RC does not use. Files of OpenAI hold the three integers.
INTEGERS_OF_OPENAI = ('input_resolution', 'context_length', 'vocab_size')
UNUSED_OF_CLIP = ('logit_scale', 'logit_bias', *INTEGERS_OF_OPENAI)
# Tensors of a tower -> the sizes that its dimensions are, as arguments of the encoder.
VISION = {'conv1.weight': ('width', None, None, 'patch_size'), 'class_embedding': (None,), 'ln_pre.weight': (None,),
          'positional_embedding': (None, None), 'proj': (None, 'output_dim')}
TEXT = {'positional_embedding': ('context_length', None), 'token_embedding.weight': ('vocab_size', 'transformer_width'),
        'text_projection': (None, 'embed_dim')}
SUPPORTED = 'supported are the CLIPs of OpenAI and open_clip whose image tower is a plain ViT'


class Variant(NamedTuple):
    """The sizes of a CLIP, as arguments of its encoders; empty for a tower that a file does not have."""
    vision: dict[str, int | str]  # CLIPVisionEncoder's patch_size, width, layers, heads, output_dim, gelu
    text: dict[str, int | str]  # CLIPTextEncoder's context_length, ... embed_dim, gelu
    resolution: int | None  # side in pixels of the images that it was trained on


# ---- the kind of file

def saved_by_openai(checkpoint: Checkpoint) -> bool:
    """Tell whether a CLIP file has OpenAI's format."""
    return all(name in checkpoint.weights for name in INTEGERS_OF_OPENAI)


def is_clip_rc(checkpoint: Checkpoint) -> bool:
    """Tell whether a file holds CLIP-RC's weights, not CLIP's."""
    return any(name.startswith(('backbone.', 'text_encoder.')) for name in checkpoint.weights)


def holds_text_tower(checkpoint: Checkpoint) -> bool:
    """Tell whether a CLIP-RC checkpoint holds CLIP's text tower too, as official ones do."""
    return 'text_encoder.token_embedding.weight' in checkpoint.weights


def check_names(clip: Checkpoint) -> None:
    """Raise a UserError that names the tensors of a CLIP file that no CLIP ViT has."""
    known = ('visual.', *TEXT_TOWER, *UNUSED_OF_CLIP)
    unknown = [name for name in clip.weights if not name.startswith(known)]
    if unknown:
        raise UserError(f'{clip.path} is not a CLIP ViT{hidden_part(clip.weights)}: {SUPPORTED}. Not known here: '
                        f'{", ".join(unknown[:8])}.')


# ---- sizes

def sizes_of(checkpoint: Checkpoint) -> Variant:
    """Measure the CLIP in a CLIP file or a CLIP-RC checkpoint, without heads and GELU, which no tensor shows.

    Raises:
        UserError: it is not a CLIP ViT.
    """
    weights = checkpoint.weights
    if is_clip_rc(checkpoint):  # its positions were resized
        return Variant(measured(weights, 'backbone.', VISION, 'layers'),
                       measured(weights, 'text_encoder.', TEXT, 'transformer_layers'), None)
    check_names(checkpoint)
    vision, text = measured(weights, 'visual.', VISION, 'layers'), measured(weights, '', TEXT, 'transformer_layers')
    resolution = None
    if vision:
        resolution = math.isqrt(len(weights['visual.positional_embedding']) - 1) * vision['patch_size']
    elif not text or any(name.startswith('visual.') for name in weights):
        raise UserError(f'{checkpoint.path} is not a CLIP ViT: {SUPPORTED}.')
    return Variant(vision, text, resolution)


def measured(weights: Mapping[str, Tensor], prefix: str, tensors: dict[str, tuple[str | None, ...]],
             layers: str) -> dict[str, int]:
    """Read the sizes that a table such as `VISION` names, and the layers; {} unless all tensors have its dimensions."""
    shapes = [weights[prefix + name].shape if prefix + name in weights else None for name in tensors]
    if [shape and len(shape) for shape in shapes] != [len(names) for names in tensors.values()]:
        return {}
    sizes = {name: size for names, shape in zip(tensors.values(), shapes, strict=True)
             for name, size in zip(names, shape, strict=True) if name}
    return {**sizes, layers: depth(weights, f'{prefix}transformer.resblocks')}


# ---- towers

def load_vision_tower(encoder: CLIPVisionEncoder, clip: Checkpoint) -> None:
    """Load CLIP's image tower into the vision encoder.

    Positions are resized to the encoder's grid. Region tokens start as CLIP's class token with its position. Prompts,
    which CLIP does not have, keep their initial values.

    Raises:
        UserError: the file is not a ViT CLIP, or one of another shape; the message names the tensors.
    """
    weights = {name.removeprefix('visual.'): single(tensor) for name, tensor in clip.weights.items()
               if name.startswith('visual.')}
    if 'positional_embedding' not in weights or 'class_embedding' not in weights:
        raise UserError(f'{clip.path} holds no CLIP image transformer (no visual.class_embedding)'
                        f'{hidden_part(clip.weights)}: a CLIP ViT file is needed.')
    check_names(clip)
    own = {name: tensor for name, tensor in encoder.state_dict().items()
           if 'prompt' not in name and name != 'region_level_bridge'}
    positions = weights['positional_embedding']
    if positions.ndim == 2 and math.isqrt(len(positions) - 1)**2 == len(positions) - 1:
        grid = encoder.input_resolution // encoder.patch_size
        weights['positional_embedding'] = resize_positions(positions, (grid, grid))
    check(weights, own, clip.path, 'Use a config whose sizes are those of the file, or one that leaves them out, such '
                                   'as those in configs/other_clips.')
    region = weights['class_embedding'] + weights['positional_embedding'][0]
    weights['region_level_bridge'] = region.expand(encoder.side**2, -1)
    encoder.load_state_dict({**encoder.state_dict(), **weights})


def text_tower(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the weights of the text encoder in a CLIP file or an official CLIP-RC checkpoint, names without prefix.

    Raises:
        UserError: the file holds no text encoder, or not all of it.
    """
    prefix = 'text_encoder.' if holds_text_tower(checkpoint) else ''
    tower = {name.removeprefix(prefix): single(tensor) for name, tensor in checkpoint.weights.items()
             if name.startswith(tuple(prefix + part for part in TEXT_TOWER))}
    missing = [part for part in TEXT_TOWER if not any(name.startswith(part) for name in tower)]
    if missing:
        parts = f': {", ".join(missing)} missing' if tower else ''
        raise UserError(f'{checkpoint.path} holds no CLIP text encoder{parts}{hidden_part(checkpoint.weights)}. CLIP '
                        'files hold one, and the checkpoints of the authors; those of this code hold the embeddings '
                        'alone.')
    check_numbers(tower, checkpoint.path)
    return tower
