"""The region-clue decoder head: CLIP-RC's region alignment, two-stream decoding and recovery.

    image features -> queries (region alignment with the class texts)  --+
                   -> pixels (region + CLS + patch)                    --+-> two-stream decoder -> class masks
                                                                         +-> recovery decoder (training)

B batch, C classes in use, R = r*r regions, Q = R*C queries, N = Gh*Gw pixels (the cells of the patch
grid), E CLIP space and width of the decoder.
"""
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.runner import BaseModule
from mmseg.models.builder import HEADS, build_head, build_loss
from torch import Tensor, nn

from .errors import UserError
from .precision import upcast
from .resizing import Resizing, map_chunks, resize
from .training_labels import training_labels
from .two_stream_decoder import DecoderStream, RecoveryDecoder, exchange
from .vision_encoder import ImageFeatures


class Decoded(NamedTuple):
    """Outputs of the decoder, and the inputs that the recovery decoder must restore."""
    logits: Tensor  # (B, C, Gh, Gw) mask logits
    queries: Tensor  # (B, Q, E) final
    pixels: Tensor  # (B, N, E) final
    aligned: Tensor  # (B, Q, E) (region + CLS) * text, before `q_proj`
    text: Tensor  # (C, E)
    patches: Tensor  # (B, N, E) patch features before `lateral_proj`


@HEADS.register_module(name=['RegionClueHead', 'ATMSingleHeadSeg'])
class RegionClueHead(BaseModule):
    """Class masks from image features and text embeddings.

    Args:
        img_size: side in pixels that the mask logits are resized to first.
        in_channels: E. `channels` and `embed_dims` of official configs must equal it.
        num_layers, num_heads: of the two-stream decoder; the recovery decoder has as many heads.
        recovery_decoder_num_layers: layers of the recovery decoder; 0 for none.
        loss_decode, class_head: configs of the losses and of the text class head.
        with_cp: activation checkpointing of the decoder's layers.
        seen_idx, all_idx: official configs repeat the split here; `tools.engine.build` checks it. Otherwise ignored.
        num_classes, use_stages, use_proj: official configs have them; ignored, as in the published code.
    """

    align_corners = False  # read by mmseg's segmentor

    def __init__(self, *, img_size: int = 512, in_channels: int = 512, num_layers: int = 3, num_heads: int = 8,
                 recovery_decoder_num_layers: int = 1, loss_decode: dict | None = None,
                 class_head: dict | None = None, channels: int | None = None, embed_dims: int | None = None,
                 seen_idx: list[int] | None = None, all_idx: list[int] | None = None,
                 num_classes: int | None = None, use_stages: int = 1, use_proj: bool = False,
                 with_cp: bool = False, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        for name, value in (('channels', channels), ('embed_dims', embed_dims)):
            if value not in (None, in_channels):
                raise UserError(f'{name}={value} but in_channels={in_channels}: the decoder has the width of CLIP\'s '
                                'space.')
        self.img_size = img_size
        self.class_head = build_head({'type': 'TextClassHead', 'embed_dims': in_channels, **(class_head or {})})
        self.losses = build_loss({'type': 'MaskLoss', **(loss_decode or {})})
        self.q_proj = nn.Linear(2 * in_channels, in_channels)
        self.lateral_proj = nn.Linear(3 * in_channels, in_channels)
        self.with_cp = with_cp
        self.decoder_q = DecoderStream(in_channels, num_heads, num_layers)
        self.decoder_v = DecoderStream(in_channels, num_heads, num_layers)
        self.recovery_decoder = None
        if recovery_decoder_num_layers > 0:
            self.recovery_decoder = RecoveryDecoder(in_channels, num_heads, recovery_decoder_num_layers)

    def forward(self, features: ImageFeatures) -> Decoded:
        grid = tuple(features.patches.shape[2:])
        patches = features.patches.flatten(2).transpose(1, 2)  # (B, N, E)
        aligned, text = self.class_head.queries(features)
        queries, pixels = exchange(self.decoder_q.layers, self.decoder_v.layers, self._project_queries(aligned, text),
                                   self._project_pixels(features, patches), with_cp=self.with_cp and self.training)
        return Decoded(logits=self.class_head.mask_logits(queries, pixels, grid), queries=queries, pixels=pixels,
                       aligned=aligned.flatten(1, 2), text=text, patches=patches)

    def _project_queries(self, aligned: Tensor, text: Tensor) -> Tensor:
        """Compute `q_proj` of [aligned, text], (B, Q, E); the text's part once, as regions and images share it."""
        for_aligned, for_text = self.q_proj.weight.chunk(2, dim=1)
        return upcast(F.linear(aligned, for_aligned).add_(F.linear(text, for_text, self.q_proj.bias))).flatten(1, 2)

    def _project_pixels(self, features: ImageFeatures, patches: Tensor) -> Tensor:
        """Compute `lateral_proj` of [regions, CLS, patch], (B, N, E); regions and CLS are projected, then spread."""
        for_regions, for_cls, for_patches = self.lateral_proj.weight.chunk(3, dim=1)
        regions = F.linear(features.regions.permute(0, 2, 3, 1), for_regions).permute(0, 3, 1, 2)  # (B, E, r, r)
        regions = resize(regions, features.patches.shape[2:]).flatten(2).transpose(1, 2)  # (B, N, E)
        cls = F.linear(features.cls, for_cls, self.lateral_proj.bias)[:, None]  # (B, 1, E)
        return upcast(F.linear(patches, for_patches) + regions + cls)

    def resizing(self, logits: Tensor, size: tuple[int, int]) -> Resizing:
        """Prepare the resizing of mask logits (B, C, Gh, Gw) to `img_size`, then to `size`."""
        return Resizing(tuple(logits.shape[2:]), (self.img_size,) * 2, tuple(size), like=logits)

    def forward_train(self, features: ImageFeatures, img_metas: list[dict], labels: Tensor,
                      train_cfg: dict | None = None) -> dict[str, Tensor]:
        """Compute the losses against labels (B, 1, H, W), and the accuracy in percent. The labels are not changed."""
        labels = labels.squeeze(1)
        decoded = self(features)
        resizing = self.resizing(decoded.logits, labels.shape[1:])
        labels = training_labels(labels, self.class_head.setting, seen=self.class_head.seen,
                                 unseen=self.class_head.unseen, logits=decoded.logits, resizing=resizing)
        losses = self.losses(decoded.logits, labels, resizing)
        if self.recovery_decoder is not None:
            queries, patches = self.recovery_decoder(decoded.queries, decoded.pixels)  # (B, Q, 2E), (B, N, E)
            text = decoded.text.repeat(queries.shape[1] // len(decoded.text), 1).expand_as(decoded.aligned)
            losses['recovery_loss_q'] = self.losses.recovery(queries, torch.cat([decoded.aligned, text], dim=-1))
            losses['recovery_loss_k'] = self.losses.recovery(patches, decoded.patches)
        return losses

    def forward_test(self, features: ImageFeatures, size: tuple[int, int]) -> Tensor:
        """Compute the test scores of all classes, (B, C, *size)."""
        logits = self(features).logits
        resizing = self.resizing(logits, size)
        scores = logits.new_empty(*logits.shape[:2], *size)
        for chunk in map_chunks(logits.shape[1], scores[:, 0].numel(), logits.device):
            scores[:, chunk] = self.class_head.scores(resizing(logits[:, chunk]), self.class_head.penalty[chunk])
        return scores
