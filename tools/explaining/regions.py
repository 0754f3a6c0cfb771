"""Regional clues inside the model: logits and attention of each region, and the model with the clues ablated.

C classes, R = r*r regions, Gh x Gw patches of a window. Region k is in row k // r and column k % r.
"""
from typing import NamedTuple

import torch
from torch import Tensor

from models.precision import upcast, without_autocast
from models.region_clue_head import Decoded
from models.vision_encoder import CLIPVisionEncoder, ImageFeatures


class Attention(NamedTuple):
    """Attention weights of the region tokens in each block, mean over the heads.

    A region token attends to itself and to the patches of its cell only: these weights add up to 1.
    """
    patches: Tensor  # (blocks, Gh, Gw), the weight of each patch for the region token of its cell
    itself: Tensor  # (blocks, R)


def region_logits(decoded: Decoded, classes: int) -> Tensor:
    """Compute mask logits (B, R, C, Gh, Gw) from the queries of each region; their mean over R is `decoded.logits`."""
    queries = upcast(decoded.queries)  # (B, R*C, E)
    with without_autocast(queries.device):
        logits = queries @ upcast(decoded.pixels).transpose(1, 2)
    return logits.unflatten(2, decoded.logits.shape[2:]).unflatten(1, (-1, classes))


def encode_with_attention(encoder: CLIPVisionEncoder, image: Tensor) -> tuple[ImageFeatures, Attention]:
    """Encode an image (1, 3, H, W) and return its features with the attention of the region tokens.

    The encoder does not keep attention weights, so those of the region tokens are computed a second time.
    """
    regions, rows = encoder.side**2, []

    def remember(attention, inputs):
        tokens, visible, prompts = inputs
        rows.append(attention.weights(tokens, visible, prompts, rows=slice(-regions, None))[0].mean(dim=0))

    hooks = [block.attn.register_forward_pre_hook(remember) for block in encoder.transformer.resblocks]
    try:
        features = encoder(image)
    finally:
        for hook in hooks:
            hook.remove()
    weights = torch.stack(rows)  # (blocks, R, P + 1 + Gh*Gw + R)
    grid = features.patches.shape[2:]
    patches = weights[:, :, -regions - grid.numel():-regions]  # only one region token attends to each patch
    return features, Attention(patches=patches.sum(dim=1).unflatten(1, grid),
                               itself=weights[:, :, -regions:].diagonal(dim1=1, dim2=2))


def ablate(encoder: CLIPVisionEncoder, image: Tensor, features: ImageFeatures) -> dict[str, ImageFeatures]:
    """Return the features of an image with the regional clues ablated in three ways.

    'everywhere' is a model with `region_level_bridge_size=0` and otherwise the same weights: patches do not attend to
    region tokens, queries are CLS * text, and the pixels get zeros for the region features. 'in the encoder' ablates
    CLS and patches but keeps the region features for the head; 'in the head' keeps CLS and patches but sets the region
    features to zero.
    """
    ablated = encoder.without_regions()(image)
    return {'everywhere': ablated, 'in the encoder': ablated._replace(regions=features.regions),
            'in the head': features._replace(regions=ablated.regions)}


def cell_of(size: tuple[int, int], side: int) -> Tensor:
    """Return the region (h, w) int64 of each place of a map, with `side` rows and columns of regions."""
    row, column = (torch.arange(length) * side // length for length in size)
    return row[:, None] * side + column
