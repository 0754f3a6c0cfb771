"""Weights in: OpenAI's and open_clip's CLIP files, official CLIP-RC checkpoints, and our own. Strictly.

Whatever a file holds beyond what a model needs is on a list here, or is an error that names it.
"""
import json
import logging
import math
import re
import zipfile
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import torch
from torch import Tensor

from .. import file_kinds
from ..errors import UserError
from ..vision_encoder import CLIPVisionEncoder, resize_positions
from . import torch_files
from .names import (
    TEXT_TOWER,
    find_state_dict,
    in_layout_of_clip,
    is_hugging_face,
    own_names,
    part_below,
    shared_prefix,
    tensor_entries,
    unwrapped,
)

# Tensors of official checkpoints that never did anything.
DEAD = re.compile(r'decode_head\.(decoder_[qv]\.layers|recovery_decoder\.decouple_[qv])\.\d+\.'
                  r'(self_attn\.(in_proj_|out_proj\.)|norm1\.)(weight|bias)$')
# CLIP's own tensors that CLIP-RC has no use for.
INTEGERS_OF_OPENAI = ('input_resolution', 'context_length', 'vocab_size')
UNUSED_OF_CLIP = ('logit_scale', 'logit_bias', *INTEGERS_OF_OPENAI)
# Parts of official checkpoints that a model may be built without.
TRAINING_ONLY = 'decode_head.recovery_decoder.'
OPTIONAL_PARTS = (*(f'text_encoder.{name}' for name in TEXT_TOWER), TRAINING_ONLY)


LOGGER = logging.getLogger('mmseg')


class Checkpoint(NamedTuple):
    """A file's tensors by name, and its `meta` (empty where it has none)."""
    weights: dict[str, Tensor]
    meta: dict
    path: str
    hugging_face: bool = False  # saved by transformers; the names are CLIP's all the same


def read(path: str | Path) -> Checkpoint:
    """Reads a `.safetensors` file, a TorchScript archive or a state dict; runs no code that the file holds.

    Tensors have the names of CLIP or CLIP-RC, whoever saved them (`weight_names`).

    Raises:
        UserError: no such file, a truncated or damaged one, or one whose weights are not tensors.
    """
    content = read_content(path)
    saved = content['state_dict']
    if prefix := shared_prefix(saved):
        LOGGER.info('%s: the prefix %r is left out of the name of each tensor', path, prefix)
    bare = unwrapped(saved)
    return Checkpoint(in_layout_of_clip(bare), content['meta'], str(path), hugging_face=is_hugging_face(bare))


def read_content(path: str | Path) -> dict:
    """What a file of any of these kinds holds, by name: `state_dict` and `meta`, and what else is in it.

    Tensors are on the CPU. Objects that are no plain values are `torch_files.Unknown`, but not in what is read here.

    Raises:
        UserError: as `read`.
    """
    path = Path(path)
    if path.is_dir():
        inside = sorted(file.name for file in path.iterdir() if file.suffix in ENDINGS)
        raise UserError(f'{path} is a folder: name a file' + (f' in it: {", ".join(inside[-9:])}.' if inside else '.'))
    if path.exists() and not path.is_file():
        raise UserError(f'{path} is no regular file.')
    if not path.is_file():
        others = sorted(file.name for file in path.parent.glob('*.pth')) if path.parent.is_dir() else []
        raise UserError(f'no file {path}.' + (f' There are {", ".join(others[:9])}.' if others else ''))
    if shard := SHARD.search(path.name):
        raise UserError(f'{path} is one of {int(shard[1])} files (shards) that a model was saved in: {JOIN}')
    try:
        content = _read_any(path)
    except NoCheckpoint as error:
        raise UserError(f'{path} {error}') from None
    except PermissionError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}.') from error
    except Exception as error:  # of any kind: a damaged file is a program that nobody wrote
        why = f' ({error})' if isinstance(error, READERS_OWN) else ''
        raise UserError(f'{path} is truncated or damaged, or no checkpoint{why}. Fetch or copy it again.') from error
    meta = content.get('meta') if isinstance(content, dict) else None
    weights, way = find_state_dict(content)
    left = [name for name in tensor_entries(content) if name not in way]
    if way not in ([], ['state_dict']):
        LOGGER.info('%s: its weights are those in %s%s', path, '.'.join(way),
                    f', not in {", ".join(left)}' if left else '')
    content = {**(content if way else {}), 'state_dict': weights, 'meta': meta or {}}
    if left and not way:
        raise UserError(f'{path} holds several state dicts, {", ".join(left)}: save that of the model alone.')
    check_known(weights, path)
    weights = weights if isinstance(weights, dict) else {}
    for name in [name for name, value in weights.items() if not (isinstance(name, str) and isinstance(value, Tensor))]:
        del weights[name]  # in place: it may have `_metadata`
    if not weights:
        raise UserError(f'{path} holds no state dict: no tensors by name.')
    if not _is_meta(content['meta']):
        check_known(content['meta'], path)
        raise UserError(f'{path}: what it says of itself (meta) is damaged. Copy it again.')
    check_known([content['meta'].get(name) for name in META], path)
    return content


ENDINGS = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors')
SHARD = re.compile(r'-\d+-of-0*([2-9]|[1-9]\d+)\.(bin|safetensors)$')
JOIN = ("save it in one, with transformers: CLIPModel.from_pretrained(FOLDER).save_pretrained(OUT, "
        "max_shard_size='100GB').")
READERS_OWN = (ValueError, zipfile.BadZipFile, safetensors.SafetensorError)  # errors that say what is wrong


class NoCheckpoint(UserError):
    """What a file is instead of a checkpoint, and what to do."""


def _read_any(path: Path) -> torch_files.Plain | torch_files.Unknown:
    """By what a file begins with, whatever it is called."""
    if not path.stat().st_size:
        raise NoCheckpoint('is empty. Fetch or copy it again.')
    kind = file_kinds.kind_of(path)
    if kind is not None and kind.family != file_kinds.WEIGHTS:
        if path.name.endswith('.index.json'):
            raise NoCheckpoint(f'is the list of the files (shards) that a model was saved in: {JOIN}')
        config = '; a config comes before it, or after --config' if path.suffix == '.py' else ''
        raise NoCheckpoint(f'is no checkpoint: it is {kind}. A .pth, .pt, .bin or .safetensors file of weights is '
                           f'needed here{config}.')
    with path.open('rb') as file:
        return _read_safetensors(path) if file.read(9)[8:] == b'{' else torch_files.read(path)


def check_known(value: torch_files.Plain | torch_files.Unknown, path: str | Path) -> None:
    """What is read here of a file is plain values, and texts that a terminal can show.

    Raises:
        UserError: somewhere in it there is an object of a class, or what a function gives, or a control character.
    """
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, torch_files.Unknown) and value.name.startswith('torch._utils._rebuild_'):
            raise UserError(f'{path} has tensors that are no tables of plain numbers, but sparse, quantised or without '
                            f'data ({value.name}): save it with weights in float32.')
        if isinstance(value, torch_files.Unknown):
            raise UserError(f'{path} cannot be read safely: where tensors and plain values belong it has {value.name},'
                            ' a part of a program, and nothing of a file is run here. If you trust where it came '
                            "from, save its weights alone: torch.save({'state_dict': "
                            f"torch.load({str(path)!r}, weights_only=False)['...']}}, 'weights.pth')")
        if isinstance(value, str) and CONTROL.search(value):
            raise UserError(f'{path} has control characters in its texts: {ascii(value[:80])}. Copy it again.')
        if isinstance(value, dict):
            left.extend(value)
            left.extend(value.values())
        elif isinstance(value, (list, tuple)):
            left.extend(value)


CONTROL = re.compile(r'[\x00-\x08\x0b-\x1f\x7f-\x9f]')  # all but tabs and ends of lines
META = {'CLASSES': (list, tuple), 'PALETTE': (list, tuple), 'iter': Integral, 'epoch': Integral, 'seed': Integral,
        'hook_msgs': dict, 'clip_rc': dict, 'progress': dict, 'grad_scaler': dict}  # what is read of a meta


def _is_meta(meta: dict) -> bool:
    """Whether its values are of the types that they are taken for."""
    return isinstance(meta, dict) and all(
        isinstance(meta[name], types) for name, types in META.items() if meta.get(name) is not None) and all(
        isinstance(name, str) and name.isprintable() for name in meta.get('CLASSES') or ()) and isinstance(
        (meta.get('hook_msgs') or {}).get('best_score'), (Real, type(None)))


def _read_safetensors(path: Path) -> dict:
    """A CLIP file, or a slim checkpoint of tools/export.py, whose meta is JSON in the header."""
    with safetensors.safe_open(path, 'pt') as file:
        content = {'state_dict': {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118  it is no dict
                   'meta': json.loads((file.metadata() or {}).get('meta', '{}'))}
    torch_files.check_plain(content, path.stat().st_size)
    return content


def read_embeddings(path: str | Path) -> Tensor:
    """Text embeddings (C, E) of a `.npy` file, float32.

    Raises:
        UserError: no such file, not a table of numbers, or one with a row that is zero or not finite.
    """
    if Path(path).is_dir():
        raise UserError(f'{path} is a folder, no .npy file of text embeddings.')
    try:
        table = np.lib.format.open_memmap(path, mode='r')  # takes neither pickles nor sizes that the file has not
    except FileNotFoundError:
        raise UserError(f'no embedding file {path}. Name none (load_text_embedding=None) to have the embeddings '
                        'computed from CLIP.') from None
    except Exception as error:  # of any kind: numpy parses a header that may hold anything
        what = file_kinds.kind_of(Path(path)) if Path(path).is_file() else None
        told = f': it is {what}' if what is not None and what != file_kinds.TABLE else ''
        raise UserError(f'{path} is truncated or no .npy table of text embeddings{told}.') from error
    if table.ndim != 2 or table.dtype.kind != 'f' or table.size == 0:
        raise UserError(f'{path} is no (classes, width) table of text embeddings.')
    rows = torch.from_numpy(table.astype(np.float32))
    wrong = ~(rows.isfinite().all(1) & rows.any(1))
    if wrong.any():
        raise UserError(f'{path}: row {int(wrong.nonzero()[0])} is no text embedding: it has infinite values or none, '
                        'or is zero. Make the file again.')
    return rows


def load_vision_tower(encoder: CLIPVisionEncoder, clip: Checkpoint) -> None:
    """CLIP's image tower into the vision encoder.

    Positions are resized to the encoder's grid. Region tokens start as CLIP's position-marked class token. Prompts,
    which CLIP has not, keep their initial values.

    Raises:
        UserError: not a ViT CLIP, or one of another shape; the message names the tensors.
    """
    weights = {name.removeprefix('visual.'): _single(tensor) for name, tensor in clip.weights.items()
               if name.startswith('visual.')}
    if 'positional_embedding' not in weights or 'class_embedding' not in weights:
        raise UserError(f'{clip.path} holds no CLIP image transformer (no visual.class_embedding){other_kind(clip)}: '
                        'a CLIP ViT file is needed.')
    check_names(clip)
    own = {name: tensor for name, tensor in encoder.state_dict().items() if not _not_of_clip(name)}
    positions = weights['positional_embedding']
    if positions.ndim == 2 and math.isqrt(len(positions) - 1)**2 == len(positions) - 1:
        grid = encoder.input_resolution // encoder.patch_size
        weights['positional_embedding'] = resize_positions(positions, (grid, grid))
    check(weights, own, clip.path, 'Use a config whose sizes are those of the file, or one that leaves them out, such '
                                   'as those in configs/other_clips.')
    region = weights['class_embedding'] + weights['positional_embedding'][0]
    weights['region_level_bridge'] = region.expand(encoder.side**2, -1)
    encoder.load_state_dict({**encoder.state_dict(), **weights})


def is_clip_rc(checkpoint: Checkpoint) -> bool:
    """Whether a file holds CLIP-RC's weights, and not CLIP's."""
    return any(name.startswith(('backbone.', 'text_encoder.')) for name in checkpoint.weights)


def check_clip_rc(checkpoint: Checkpoint) -> None:
    """Raises a UserError that says what a file is, unless it holds the weights of a CLIP-RC, or of a model like it."""
    if is_clip_rc(checkpoint):
        return
    if any(name.startswith(('visual.', 'token_embedding.')) for name in checkpoint.weights):
        raise UserError(f'{checkpoint.path} is CLIP itself, no CLIP-RC checkpoint: it belongs in model.pretrained, or '
                        'after --clip.')
    raise UserError(f'{checkpoint.path} is no CLIP-RC checkpoint, but of another model: it has '
                    f'{_some([*checkpoint.weights], 3)}{hidden_part(checkpoint)}.')


def hidden_part(checkpoint: Checkpoint) -> str:
    """Where in a larger model a CLIP or a CLIP-RC is, in brackets, with the remedy; empty if it is in none."""
    prefix = part_below(checkpoint.weights)
    return prefix and f' (what is below {prefix!r} in it is one: save those tensors alone, without that prefix)'


def check_names(clip: Checkpoint) -> None:
    """Raises a UserError that names the tensors of a CLIP file that no CLIP ViT has."""
    known = ('visual.', *TEXT_TOWER, *UNUSED_OF_CLIP)
    strangers = [name for name in clip.weights if not name.startswith(known)]
    if strangers:
        raise UserError(f'{clip.path} is no CLIP file of a kind that is known here{other_kind(clip)}: not known here: '
                        f'{", ".join(strangers[:8])}.')


def other_kind(clip: Checkpoint) -> str:
    """What a file with an image tower that is no CLIP ViT is, in brackets."""
    if hidden := hidden_part(clip):
        return hidden
    signs = {'visual.attnpool.': ' (a ResNet CLIP)', 'visual.layer1.': ' (a ResNet CLIP)',
             'visual.trunk.': ' (its image tower is timm\'s, as those of SigLIP, EVA and ConvNeXt are)',
             'visual.attn_pool.': ' (a CoCa)',
             'backbone.region_level_bridge': ' (a CLIP-RC checkpoint, from which --load-from starts)',
             'vision_model.': ' (saved by Hugging Face\'s transformers, but no CLIPModel)',
             'text_model.': ' (saved by Hugging Face\'s transformers, but no CLIPModel)'}
    return next((kind for start, kind in signs.items() if any(name.startswith(start) for name in clip.weights)), '')


def depth(weights: dict[str, Tensor], stack: str) -> int:
    """The number of layers below a name."""
    pattern = re.compile(re.escape(stack) + r'\.(\d+)\.')
    return len({match[1] for name in weights if (match := pattern.match(name))})


def _not_of_clip(name: str) -> bool:
    """Parameters of the vision encoder that CLIP has not."""
    return 'prompt' in name or name == 'region_level_bridge'


def text_tower(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Weights of the text encoder in a CLIP file or an official CLIP-RC checkpoint, names without prefix.

    Raises:
        UserError: the file holds none, or a part of one.
    """
    prefix = 'text_encoder.' if holds_text_tower(checkpoint) else ''
    tower = {name.removeprefix(prefix): _single(tensor) for name, tensor in checkpoint.weights.items()
             if name.startswith(tuple(prefix + part for part in TEXT_TOWER))}
    missing = [part for part in TEXT_TOWER if not any(name.startswith(part) for name in tower)]
    if missing:
        lacks = f': {", ".join(missing)} missing' if tower else ''
        raise UserError(f'{checkpoint.path} holds no CLIP text encoder{lacks}{hidden_part(checkpoint)}. CLIP files '
                        'hold one, and the checkpoints of the authors; those of this code hold the embeddings alone.')
    check_numbers(tower, checkpoint.path)
    return tower


def holds_text_tower(checkpoint: Checkpoint) -> bool:
    return 'text_encoder.token_embedding.weight' in checkpoint.weights


def completed(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """A slim checkpoint's weights with what only training needs, as it is in a model whose state dict is `own`."""
    return {**{name: tensor for name, tensor in own.items() if name.startswith(TRAINING_ONLY)}, **weights}


def rename(state_dict: dict[str, Tensor]) -> None:
    """Gives the tensors of a CLIP-RC their own names, in place, whatever wrapper they were saved with."""
    renamed = own_names(state_dict)
    if renamed.keys() != state_dict.keys():
        state_dict.clear()
        state_dict.update(renamed)


def adapt(state_dict: dict[str, Tensor], own: dict[str, Tensor], prefix: str = '') -> None:
    """Makes a CLIP-RC state dict fit a model whose own state dict is `own`, in place.

    Drops the dead tensors of official files and the parts that this model is built without.

    Raises:
        UserError: anything else is missing, unexpected or of another shape; the message names it.
    """
    names = [name for name in state_dict if name.startswith(prefix)]
    absent = tuple(part for part in OPTIONAL_PARTS if not any(name.startswith(part) for name in own))
    for name in names:
        bare = name.removeprefix(prefix)
        if bare not in own and (DEAD.match(bare) or bare.startswith(absent)):
            del state_dict[name]
    check({name.removeprefix(prefix): state_dict[name] for name in names if name in state_dict}, own,
           'the checkpoint')


def check(weights: dict[str, Tensor], own: dict[str, Tensor], source: str,
          remedy: str = 'Use the config that belongs to the file.') -> None:
    """Raises a UserError that names every tensor that is missing, unexpected, of another shape, or no weights."""
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    reshaped = [f'{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}' for name in own
                if name in weights and weights[name].shape != own[name].shape]
    check_numbers({name: weights[name] for name in own if name in weights and own[name].is_floating_point()}, source)
    if not (missing or unexpected or reshaped):
        return
    lines = [f'{source} does not fit this model.']
    for what, found in (('missing', missing), ('not known here', unexpected), ('of another shape', reshaped)):
        if found:
            lines.append(f'  {what}: {_some(found)}')
    lines.append(f'Model and file must be of one size. {remedy}')
    raise UserError('\n'.join(lines))


def check_numbers(weights: dict[str, Tensor], source: str) -> None:
    """Raises a UserError that names the tensors that are no weights, or hold what is no number."""
    retyped = [f'{name} ({tensor.dtype})' for name, tensor in weights.items() if not tensor.is_floating_point()]
    if retyped:
        raise UserError(f'{_some(retyped, 3)}: no weights, which are of a floating-point type, as if {source} was '
                        'quantised. Use the file before that, in float32, float16 or bfloat16.')
    spoilt = [name for name, tensor in weights.items() if not (tensor.is_meta or tensor.float().isfinite().all())]
    if spoilt:
        raise UserError(f'{_some(spoilt, 3)} has values that are not finite, in {source}: it cannot have been trained '
                        'whole. Copy it again, or use an earlier one.')


def _some(names: list[str], most: int = 8) -> str:
    """The first of them."""
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def _single(tensor: Tensor) -> Tensor:
    """Weights of any type in float32; numbers of other kinds are left to `check`."""
    return tensor.float() if tensor.is_floating_point() else tensor
