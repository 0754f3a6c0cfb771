"""State dicts of CLIP-RC, official and our own, made to fit a model strictly."""
import math
import re

from torch import Tensor, nn

from ..errors import UserError
from . import metadata
from .checks import check, depth, first_of
from .clip import VISION, is_clip_rc, measured
from .files import Checkpoint
from .names import TEXT_TOWER, hidden_part, own_names

# Tensors that no computation uses; the published code alone saves them.
DEAD = re.compile(r'decode_head\.(decoder_[qv]\.layers|recovery_decoder\.decouple_[qv])\.\d+\.'
                  r'(self_attn\.(in_proj_|out_proj\.)|norm1\.)(weight|bias)$')
# Parts of official checkpoints that a model may be built without.
TRAINING_ONLY = 'decode_head.recovery_decoder.'
TOKENS = {**VISION, 'prompt_embeddings': (None, 'prompts', None), 'region_level_bridge': ('regions', None)}
OPTIONAL_PARTS = (*(f'text_encoder.{name}' for name in TEXT_TOWER), TRAINING_ONLY)


def check_clip_rc(checkpoint: Checkpoint) -> None:
    """Raise a UserError that describes the file, unless it holds the weights of a CLIP-RC or of a model like it."""
    if is_clip_rc(checkpoint):
        return
    if any(name.startswith(('visual.', 'token_embedding.')) for name in checkpoint.weights):
        raise UserError(f'{checkpoint.path} is CLIP itself, not a CLIP-RC checkpoint: use it as model.pretrained, or '
                        'after --clip.')
    raise UserError(f'{checkpoint.path} is not a CLIP-RC checkpoint, but of another model: it has '
                    f'{first_of([*checkpoint.weights], 3)}{hidden_part(checkpoint.weights)}.')


def sizes_of_clip_rc(checkpoint: Checkpoint) -> dict[str, int]:
    """Measure a CLIP-RC by its tensors: P, R, resolution in pixels, layers, and the sizes of its vision tower.

    Returns:
        {} if the file does not hold a model with CLIP-RC's vision encoder.
    """
    weights = checkpoint.weights
    sizes = measured(weights, 'backbone.', TOKENS, 'layers')
    return sizes and {
        **sizes, 'resolution': math.isqrt(len(weights['backbone.positional_embedding']) - 1) * sizes['patch_size'],
        'decoder_layers': depth(weights, 'decode_head.decoder_q.layers'),
        'recovery_layers': depth(weights, f'{TRAINING_ONLY}decouple_q')}


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load the checkpoint's weights into the model, strictly; a UserError names the tensors that do not fit.

    A slim checkpoint has no recovery decoder: the model's own, needed for training only, keeps its values.
    """
    check_clip_rc(checkpoint)
    kept = {name: tensor for name, tensor in model.state_dict().items()
            if name.startswith(TRAINING_ONLY)} if metadata.is_slim(checkpoint) else {}
    try:
        model.load_state_dict({**kept, **checkpoint.weights})
    except UserError as error:
        own = metadata.own_modules(checkpoint)
        hint = f'\nIt was trained with modules of the user\'s own: {", ".join(own)} (custom_imports).' if own else ''
        raise UserError(f'{checkpoint.path}: {error}{hint}') from error


def adapt(state_dict: dict[str, Tensor], own: dict[str, Tensor], prefix: str = '') -> None:
    """Make a CLIP-RC state dict fit a model whose own state dict is `own`, in place.

    Removes the prefixes of wrappers, and drops the dead tensors of official files and the optional parts that this
    model is built without.

    Raises:
        UserError: anything else is missing, unexpected or of another shape; the message names it.
    """
    if not prefix and (renamed := own_names(state_dict)).keys() != state_dict.keys():
        state_dict.clear()
        state_dict.update(renamed)
    names = [name for name in state_dict if name.startswith(prefix)]
    absent = tuple(part for part in OPTIONAL_PARTS if not any(name.startswith(part) for name in own))
    for name in names:
        bare = name.removeprefix(prefix)
        if bare not in own and (DEAD.match(bare) or bare.startswith(absent)):
            del state_dict[name]
    check({name.removeprefix(prefix): state_dict[name] for name in names if name in state_dict}, own,
          'the checkpoint')
