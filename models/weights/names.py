"""Names of tensors in other people's files -> the names in CLIP and CLIP-RC.

Training loops nest a state dict in another dict; wrappers of a model put prefixes before names; Hugging Face's
transformers have a layout of their own. Either all tensors of a file are renamed or no tensor.
"""
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

ENTRIES = ('state_dict', 'model', 'model_state_dict', 'model_state', 'module', 'net', 'network', 'weights', 'params',
           'ema_state_dict', 'state_dict_ema', 'model_ema', 'ema')  # of a state dict in a file, the usual ones first
PREFIXES = ('module.', '_orig_mod.', '_fsdp_wrapped_module.', 'model.', 'clip.', 'clip_model.')
WRAPPERS = re.compile(r'(?<=\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.')  # within a model
KNOWN = ('visual.', 'token_embedding.weight', 'vision_model.', 'text_model.', 'backbone.', 'text_encoder.',
         'text.token_embedding.')  # starts of a name in a CLIP or a CLIP-RC
SIGNS = ('visual.class_embedding', 'vision_model.embeddings.class_embedding', 'backbone.region_level_bridge',
         'text_model.embeddings.token_embedding.weight')  # names that no other model has
COUNTER = 'n_averaged'  # torch's AveragedModel saves it beside the weights
# CLIP's text tower
TEXT_TOWER = ('transformer.resblocks.', 'token_embedding.weight', 'positional_embedding', 'ln_final.weight',
              'ln_final.bias', 'text_projection')
_CUSTOM_TEXT = tuple(f'text.{name}' for name in TEXT_TOWER)

# Parts of names in Hugging Face's CLIPModel -> in CLIP.
HUGGING_FACE = {
    'vision_model.embeddings.class_embedding': 'visual.class_embedding',
    'vision_model.embeddings.patch_embedding.weight': 'visual.conv1.weight',
    'vision_model.embeddings.position_embedding.weight': 'visual.positional_embedding',
    'vision_model.pre_layrnorm.': 'visual.ln_pre.',
    'vision_model.post_layernorm.': 'visual.ln_post.',
    'vision_model.encoder.layers.': 'visual.transformer.resblocks.',
    'visual_projection.weight': 'visual.proj',
    'text_model.embeddings.token_embedding.weight': 'token_embedding.weight',
    'text_model.embeddings.position_embedding.weight': 'positional_embedding',
    'text_model.final_layer_norm.': 'ln_final.',
    'text_model.encoder.layers.': 'transformer.resblocks.',
    'text_projection.weight': 'text_projection',
    '.self_attn.out_proj.': '.attn.out_proj.',
    '.layer_norm1.': '.ln_1.',
    '.layer_norm2.': '.ln_2.',
    '.mlp.fc1.': '.mlp.c_fc.',
    '.mlp.fc2.': '.mlp.c_proj.',
}
TRANSPOSED = ('visual_projection.weight', 'text_projection.weight')
POSITION_IDS = re.compile(r'(vision|text)_model\.embeddings\.position_ids')  # constants of older versions
QUERIES = re.compile(r'(.*)\.self_attn\.q_proj\.(weight|bias)')


def find_state_dict(content: Any) -> tuple[Any, list[str]]:
    """Find the state dict in the content of a file.

    Returns:
        the state dict, or `content` where there is no known entry, and the names of the entries that lead to it.
    """
    if isinstance(content, dict) and ('state_dict' in content or not _holds_tensors(content)):
        for name in ENTRIES:
            value, way = content.get(name), []
            if isinstance(value, dict):
                value, way = find_state_dict(value)
            if _holds_tensors(value):
                return value, [name, *way]
    return content, []


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(name, str) and isinstance(inside, Tensor)
                                           for name, inside in value.items())


def own_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a CLIP or a CLIP-RC: no prefixes of wrappers, CLIP's layout. Others keep their names."""
    return in_layout_of_clip(unwrapped(weights))


def unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove from the names the parts that wrappers of a model put there."""
    if prefix := shared_prefix(weights):
        weights = {name.removeprefix(prefix): value for name, value in weights.items() if name != COUNTER}
    bare = {WRAPPERS.sub('', name): value for name, value in weights.items()}
    return bare if len(bare) == len(weights) else weights  # two tensors must not get one name


def shared_prefix(weights: dict[str, Tensor]) -> str:
    """Find the prefix that wrappers have put before the name of every tensor of a CLIP or a CLIP-RC."""
    names = [name for name in weights if name != COUNTER]
    prefix = ''
    while more := next((more for more in PREFIXES if names and all(
            name.startswith(prefix + more) for name in names)), None):
        prefix += more
    return prefix if any(name.startswith(KNOWN, len(prefix)) for name in names) else ''


def hidden_part(weights: dict[str, Tensor]) -> str:
    """Name, in brackets, the prefix of a CLIP or a CLIP-RC that is a part of a larger model; empty without one."""
    prefix = next((name.removesuffix(sign) for name in weights for sign in SIGNS if name.endswith(f'.{sign}')), '')
    return prefix and f' (the part below {prefix!r} in it is one: save those tensors alone, without that prefix)'


def is_hugging_face(weights: dict[str, Tensor]) -> bool:
    """Tell whether a CLIP is in the layout of Hugging Face's transformers."""
    return 'vision_model.embeddings.class_embedding' in weights or \
        'text_model.embeddings.token_embedding.weight' in weights


def in_layout_of_clip(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename from the layouts of Hugging Face's transformers and of open_clip's `CustomTextCLIP`."""
    if is_hugging_face(weights):
        return dict(_from_hugging_face(weights))
    return {name.removeprefix('text.') if name.startswith(_CUSTOM_TEXT) else name: value
            for name, value in weights.items()}


def _from_hugging_face(weights: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield CLIP's tensors: queries, keys and values joined, projections transposed. Unknown ones keep their names."""
    joined = {}
    for name in weights:
        if match := QUERIES.fullmatch(name):
            parts = [f'{match[1]}.self_attn.{kind}_proj.{match[2]}' for kind in 'qkv']
            if len({weights[part].shape if part in weights else None for part in parts}) == 1 and weights[name].ndim:
                joined[name] = f'{match[1]}.attn.in_proj_{match[2]}', torch.cat([weights[part] for part in parts])
                joined |= dict.fromkeys(parts[1:])
    for name, value in weights.items():
        if POSITION_IDS.fullmatch(name):
            continue
        if name in joined:
            if joined[name] is None:
                continue
            name, value = joined[name]
        elif name in TRANSPOSED and value.ndim == 2:
            value = value.T
        for theirs, ours in HUGGING_FACE.items():
            name = name.replace(theirs, ours)
        yield name, value
