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
from mmseg.models.losses import accuracy
from torch import Tensor, nn

from .label_mapping import IGNORE, training_labels
from .two_stream_decoder import DecoderStream, RecoveryDecoder, exchange
from .vision_encoder import ImageFeatures


class Decoded(NamedTuple):
    """What the decoder makes of a picture, and what it made it from."""
    logits: Tensor  # (B, C, Gh, Gw) mask logits
    queries: Tensor  # (B, Q, E) final
    pixels: Tensor  # (B, N, E) final
    aligned: Tensor  # (B, Q, 2E) queries before `q_proj`
    patches: Tensor  # (B, N, E) patch features before `lateral_proj`


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, ., .) -> (B, C, *size), bilinear, as everywhere in this model."""
    return x if tuple(x.shape[2:]) == tuple(size) else F.interpolate(
        x, size=tuple(size), mode='bilinear', align_corners=False)


@HEADS.register_module(name=['RegionClueHead', 'ATMSingleHeadSeg'])
class RegionClueHead(BaseModule):
    """Class masks from image features and text embeddings.

    Args:
        img_size: side in pixels that the mask logits are brought to before anything else.
        in_channels: E. `channels` and `embed_dims` of official configs must equal it.
        num_layers, num_heads: of the two-stream decoder; the recovery decoder has as many heads.
        recovery_decoder_num_layers: layers of the recovery decoder.
        loss_decode: config of the losses; `recovery_loss_weight` 0 leaves the recovery decoder out.
        class_head: config of the text class head.
        seen_idx, all_idx: official configs name the split here too; the segmentor checks it against its own.
        num_classes, use_stages, use_proj: official configs name them; ignored, as in the published code.
    """

    align_corners = False  # mmseg's segmentor asks for it

    def __init__(self, *, img_size: int = 512, in_channels: int = 512, num_layers: int = 3, num_heads: int = 8,
                 recovery_decoder_num_layers: int = 1, loss_decode: dict | None = None,
                 class_head: dict | None = None, channels: int | None = None, embed_dims: int | None = None,
                 seen_idx: list[int] | None = None, all_idx: list[int] | None = None,
                 num_classes: int | None = None, use_stages: int = 1, use_proj: bool = False,
                 init_cfg: dict | None = None):
        super().__init__(init_cfg)
        for name, value in (('channels', channels), ('embed_dims', embed_dims)):
            if value not in (None, in_channels):
                raise ValueError(f'{name}={value} but in_channels={in_channels}: the decoder has the width of CLIP\'s '
                                 'space.')
        self.img_size = img_size
        self.class_head = build_head({'type': 'TextClassHead', 'embed_dims': in_channels, **(class_head or {})})
        self.losses = build_loss({'type': 'MaskLoss', **(loss_decode or {})})
        self.q_proj = nn.Linear(2 * in_channels, in_channels)
        self.lateral_proj = nn.Linear(3 * in_channels, in_channels)
        self.decoder_q = DecoderStream(in_channels, num_heads, num_layers)
        self.decoder_v = DecoderStream(in_channels, num_heads, num_layers)
        self.recovery_decoder = None
        if self.losses.recovery_loss_weight:
            self.recovery_decoder = RecoveryDecoder(in_channels, num_heads, recovery_decoder_num_layers)

    @property
    def num_classes(self) -> int:
        return self.class_head.num_classes

    out_channels = num_classes  # mmseg's segmentor reads both

    def forward(self, features: ImageFeatures) -> Decoded:
        grid = tuple(features.patches.shape[2:])
        aligned = self.class_head.queries(features)  # (B, Q, 2E)
        regions = resize(features.regions, grid)
        cls = features.cls[:, :, None, None].expand_as(features.patches)
        clues = torch.cat([regions, cls, features.patches], dim=1).flatten(2).transpose(1, 2)  # (B, N, 3E)
        queries, pixels = exchange(self.decoder_q.layers, self.decoder_v.layers, self.q_proj(aligned),
                                   self.lateral_proj(clues))
        return Decoded(logits=self.class_head.mask_logits(queries, pixels, grid), queries=queries, pixels=pixels,
                       aligned=aligned, patches=features.patches.flatten(2).transpose(1, 2))

    def forward_train(self, features: ImageFeatures, img_metas: list[dict], labels: Tensor,
                      train_cfg: dict | None = None) -> dict[str, Tensor]:
        """Losses against labels (B, 1, H, W), and the accuracy in percent. The labels are left as they are."""
        labels = labels.squeeze(1)
        decoded = self(features)
        logits = resize(resize(decoded.logits, (self.img_size,) * 2), labels.shape[1:])
        labels = training_labels(labels, self.class_head.setting, seen=self.class_head.seen,
                                 unseen=self.class_head.unseen, logits=logits)
        losses = self.losses(logits, labels)
        if self.recovery_decoder is not None:
            queries, patches = self.recovery_decoder(decoded.queries, decoded.pixels)
            losses['recovery_loss_q'] = self.losses.recovery(queries, decoded.aligned)
            losses['recovery_loss_k'] = self.losses.recovery(patches, decoded.patches)
        losses['acc_seg'] = accuracy(logits, labels, ignore_index=IGNORE)
        return losses

    def forward_test(self, features: ImageFeatures, size: tuple[int, int]) -> Tensor:
        """Scores (B, C, *size) of all classes."""
        logits = resize(resize(self(features).logits, (self.img_size,) * 2), size)
        return self.class_head.scores(logits)
