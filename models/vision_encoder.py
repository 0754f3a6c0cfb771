"""CLIP's vision encoder with visual prompt tokens and region tokens (CLIP-RC's region-level bridge).

    image -> patches -> [CLS | patches | regions] -> ln_pre -> blocks, each with prompts of its own -> named features

A region token attends to the patches of its cell: a clue between one patch and the whole image. Prompts (deep visual
prompt tuning) are replaced before every block. Their outputs are discarded, so only their keys and values are computed.
B batch, P prompts, R = r*r region tokens, G patches a side (Gh, Gw where they may differ), D width, E CLIP space.
"""
import copy
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.runner import BaseModule
from mmseg.models.builder import BACKBONES
from torch import Tensor, nn

from .clip_layers import LayerNorm, Transformer
from .errors import UserError
from .precision import checkpointed, product_dtype, upcast
from .visibility import FORMS, in_form, region_visibility


class ImageFeatures(NamedTuple):
    """Features of an image, each L2-normalised over E."""
    cls: Tensor  # (B, E)
    patches: Tensor  # (B, E, Gh, Gw)
    regions: Tensor  # (B, E, r, r); (B, E, 1, 1) zeros where there are no region tokens


def resize_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize the patch rows of a position table (1 + G0*G0, D), bilinear, to (1 + Gh*Gw, D)."""
    cls_row, patch_rows = positions[:1], positions[1:]
    side = math.isqrt(len(patch_rows))
    if (side, side) == tuple(grid):
        return positions
    table = patch_rows.T.reshape(1, -1, side, side)
    table = F.interpolate(table, size=tuple(grid), mode='bilinear', align_corners=False)
    return torch.cat([cls_row, table.flatten(2)[0].T])


@BACKBONES.register_module(name=['CLIPVisionEncoder', 'CLIPVisionTransformerWithRLB'])
class CLIPVisionEncoder(BaseModule):
    """CLIP ViT with prompt and region tokens.

    Args:
        input_resolution: side in pixels of the images that the stored position table fits.
        patch_size: side of a patch in pixels.
        width, layers, heads, output_dim: D, blocks, attention heads, E.
        gelu: 'quick', as in OpenAI's CLIP, or 'plain', as in most of open_clip's.
        num_tokens: P, prompt tokens per block.
        region_level_bridge_size: R, the number of region tokens, a square; 0 leaves the region clues out.
        with_cp: activation checkpointing (mmseg's name): training keeps only the tokens between blocks, and computes
            every block twice.
        attention: form in which kernels get the mask: 'plain', 'aligned', 'widened' (see `visibility.py`), or 'auto' by
            device and number type. Results are the same.
        prompt_dim, total_d_layer: official configs have them; only `width` and `layers - 1` are supported.
        drop_path_rate, get_embeddings, out_indices, style: official configs have them; ignored, as in the published
            code, which never applies stochastic depth and uses the last block only.

    Raises:
        UserError: sizes that do not fit each other, an unknown `attention`.
    """

    def __init__(self, *, input_resolution: int = 512, patch_size: int = 16, width: int = 768, layers: int = 12,
                 heads: int = 12, output_dim: int = 512, num_tokens: int = 10, region_level_bridge_size: int = 16,
                 prompt_dim: int | None = None, total_d_layer: int | None = None, drop_path_rate: float = 0.,
                 get_embeddings: bool = True, out_indices: list[int] | None = None, style: str = 'pytorch',
                 gelu: str = 'quick', with_cp: bool = False, attention: str = 'auto',
                 init_cfg: dict | None = None):
        super().__init__(init_cfg)
        if attention not in FORMS:
            raise UserError(f'attention={attention!r} is none of {", ".join(FORMS)}.')
        self.with_cp, self.attention = with_cp, attention
        self.side = math.isqrt(region_level_bridge_size)  # r
        if self.side**2 != region_level_bridge_size:
            raise UserError(f'region_level_bridge_size={region_level_bridge_size} is not a square: R = r*r.')
        if prompt_dim not in (None, width):
            raise UserError(f'prompt_dim={prompt_dim} must be the width of the encoder, {width}.')
        if total_d_layer not in (None, layers - 1):
            raise UserError(f'total_d_layer={total_d_layer}: only {layers - 1}, a new set of prompts before every '
                            f'one of the {layers} blocks, is supported.')
        if input_resolution % patch_size:
            raise UserError(f'input_resolution={input_resolution} is not a whole number of patches of {patch_size}.')
        self.input_resolution = input_resolution
        self.patch_size = patch_size
        self.num_tokens = num_tokens
        grid = input_resolution // patch_size

        self.conv1 = nn.Conv2d(3, width, patch_size, patch_size, bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(1 + grid * grid, width))
        self.region_level_bridge = nn.Parameter(torch.zeros(region_level_bridge_size, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, layers, heads, gelu)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(width**-0.5 * torch.randn(width, output_dim))

        # Initial values of visual prompt tuning (Jia et al. 2022).
        bound = math.sqrt(6 / (3 * patch_size**2 + width))
        self.prompt_embeddings = nn.Parameter(torch.empty(1, num_tokens, width).uniform_(-bound, bound))
        self.deep_prompt_embeddings = nn.Parameter(torch.empty(layers - 1, num_tokens, width).uniform_(-bound, bound))
        self.prompt_proj = nn.Linear(width, width)
        nn.init.kaiming_normal_(self.prompt_proj.weight, a=0, mode='fan_out')
        self.prompt_norm = LayerNorm(width, eps=1e-6)
        self.prompt_dropout = nn.Dropout(0.1)

        self.register_buffer('visible', region_visibility((grid, grid), self.side, num_tokens), persistent=False)

    def forward(self, image: Tensor) -> ImageFeatures:
        """Encode normalised images (B, 3, H, W), H and W multiples of the patch size.

        Raises:
            UserError: H or W is not a whole number of patches, or of regions.
        """
        height, width = image.shape[2:]
        if height % self.patch_size or width % self.patch_size:
            raise UserError(f'an image of {height}x{width} pixels is not made of whole patches of '
                            f'{self.patch_size}x{self.patch_size}.')
        grid = height // self.patch_size, width // self.patch_size
        visible = self.visible
        if grid != (self.input_resolution // self.patch_size,) * 2:
            visible = region_visibility(grid, self.side, self.num_tokens, image.device)
        visible, padding = in_form(self.attention, visible, self.side**2, product_dtype(image),
                                   self.transformer.resblocks[0].attn.head_width)  # once for all blocks

        x = self.ln_pre(self._embed(image, grid))  # (B, N, D)
        run = checkpointed if self.with_cp and self.training else nn.Module.__call__
        tables = torch.cat([self.prompt_embeddings, self.deep_prompt_embeddings])
        tables = upcast(self.prompt_proj(tables))  # (layers, P, D), one product for all blocks
        for block, table in zip(self.transformer.resblocks, tables, strict=True):
            prompts = self.prompt_dropout(table.expand(x.shape[0], -1, -1))  # (B, P, D)
            if padding:
                prompts = F.pad(prompts, (0, 0, padding, 0))
            x = run(block, x, visible, prompts)
        return self._read_out(x, grid)

    def without_regions(self) -> 'CLIPVisionEncoder':
        """Make the same encoder without region tokens; the weights are shared, not copied."""
        shared = {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())}
        silent = copy.deepcopy(self, shared)
        silent.side = 0
        silent.region_level_bridge = nn.Parameter(self.region_level_bridge[:0].detach(), requires_grad=False)
        grid = (self.input_resolution // self.patch_size,) * 2
        silent.visible = region_visibility(grid, 0, self.num_tokens, self.visible.device)
        return silent

    def nearest_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Round a size in pixels to whole patches and whole regions."""
        unit = self.patch_size * max(self.side, 1)
        return tuple(max(1, round(length / unit)) * unit for length in size)

    def _embed(self, image: Tensor, grid: tuple[int, int]) -> Tensor:
        """Embed images (B, 3, H, W) as [CLS | patches | regions], (B, 1 + Gh*Gw + R, D)."""
        patches = self.conv1(image).flatten(2).transpose(1, 2)  # (B, Gh*Gw, D)
        positions = resize_positions(self.positional_embedding, grid)
        # The class embedding is added twice: published checkpoints were trained with this.
        cls = self.class_embedding + (self.class_embedding + positions[0])
        batch = image.shape[0]
        return torch.cat([cls.expand(batch, 1, -1), patches + positions[1:],
                          self.region_level_bridge.expand(batch, -1, -1)], dim=1)

    def _read_out(self, x: Tensor, grid: tuple[int, int]) -> ImageFeatures:
        """Project the last block's tokens (B, N, D) into CLIP's space."""
        others = x.shape[1] - self.side**2
        x = torch.cat([self.prompt_norm(x[:, :others]), x[:, others:]], dim=1)  # not on the regions
        x = F.normalize(upcast(self.ln_post(x) @ self.proj), dim=-1)  # (B, N, E)
        cls, patches, regions = x.split([1, grid[0] * grid[1], self.side**2], dim=1)
        if self.side == 0:
            regions = torch.zeros_like(cls)
        return ImageFeatures(
            cls=cls[:, 0],
            patches=patches.transpose(1, 2).unflatten(2, grid),
            regions=regions.transpose(1, 2).unflatten(2, (max(self.side, 1),) * 2))
