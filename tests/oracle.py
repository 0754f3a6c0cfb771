"""CLIP-RC without shortcuts: tests compare its numbers with the fast model's.

Every score matrix is kept, every map has the full size and all classes, one window goes through at a time. It has a
model's own parameters, so that gradients land there, and shares no code with it.
"""
import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from models import CLIPRC
from models.clip_layers import QuickGELU
from tests.models.naive import region_mask


@cache
def additive_mask(grid: tuple[int, int], side: int, prompts: int) -> Tensor:
    seen = torch.tensor(region_mask(grid, side, prompts))
    return torch.zeros(seen.shape, dtype=torch.float64).masked_fill_(~seen, -math.inf)


def mask_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int]:
    """Sum the focal and dice losses of masks (B, C, H, W) over the masks, and count the (image, class) pairs.

    Labels (B, H, W) that are not an index of C belong to no class.
    """
    classes = logits.shape[1]
    targets = F.one_hot(labels.clamp(max=classes), classes + 1)[..., :classes].movedim(3, 1).to(logits.dtype)
    present = targets.flatten(2).any(dim=2)
    probability = logits.sigmoid()
    right = targets * probability + (1 - targets) * (1 - probability)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction='none')
    focal = (0.25 * targets + 0.75 * (1 - targets)) * (1 - right)**2 * entropy
    p, t = probability[present].flatten(1), targets[present].flatten(1)
    dice = 1 - (2 * (p * t).sum(dim=1) + 1) / (p.sum(dim=1) + t.sum(dim=1) + 1)
    return focal.mean(dim=(2, 3)).sum(), dice.sum(), int(present.sum())


class Oracle:
    """The computations of a model, whose parameters, text embeddings, split and mode (training or not) it follows."""

    def __init__(self, model: CLIPRC):
        self.model = model
        self.parameters = dict(model.named_parameters())
        self.backbone, self.head = model.backbone, model.decode_head

    def __getitem__(self, name: str) -> Tensor:
        return self.parameters[name]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self[f'{name}.weight'], self[f'{name}.bias'])

    def norm(self, x: Tensor, name: str, eps: float = 1e-5) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self[f'{name}.weight'], self[f'{name}.bias'], eps)

    def dropout(self, x: Tensor, where: str) -> Tensor:
        return F.dropout(x, self.model.get_submodule(where).p, self.model.training)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None,
                  dropout: str | None = None) -> Tensor:
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        scores = q @ k.transpose(2, 3) * q.shape[-1]**-0.5
        if mask is not None:
            scores = scores + mask
        weights = scores.softmax(dim=-1)
        if dropout is not None:
            weights = self.dropout(weights, dropout)
        return (weights @ v).transpose(1, 2).flatten(2)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) -> CLS (B, E), patches (B, E, Gh, Gw), regions (B, E, r, r)."""
        encoder, batch, prompts = self.backbone, len(image), self.backbone.num_tokens
        patches = F.conv2d(image, self['backbone.conv1.weight'], stride=encoder.patch_size)
        grid = tuple(patches.shape[2:])
        table = self['backbone.positional_embedding']
        side = math.isqrt(len(table) - 1)
        positions = F.interpolate(table[1:].T.reshape(1, -1, side, side), size=grid, mode='bilinear')
        cls = 2 * self['backbone.class_embedding'] + table[0]
        x = torch.cat([cls.expand(batch, 1, -1), (patches + positions).flatten(2).transpose(1, 2),
                       self['backbone.region_level_bridge'].expand(batch, -1, -1)], dim=1)
        x = self.norm(x, 'backbone.ln_pre')
        x = torch.cat([x[:, :1], x.new_zeros(batch, prompts, x.shape[2]), x[:, 1:]], dim=1)
        mask = additive_mask(grid, encoder.side, prompts).to(x)
        tables = [self['backbone.prompt_embeddings'][0], *self['backbone.deep_prompt_embeddings']]
        for depth, prompt in enumerate(tables):
            name = f'backbone.transformer.resblocks.{depth}'
            prompt = self.dropout(self.linear(prompt.expand(batch, -1, -1), 'backbone.prompt_proj'),
                                  'backbone.prompt_dropout')
            x = torch.cat([x[:, :1], prompt, x[:, 1 + prompts:]], dim=1)
            qkv = F.linear(self.norm(x, f'{name}.ln_1'), self[f'{name}.attn.in_proj_weight'],
                           self[f'{name}.attn.in_proj_bias'])
            heads = encoder.transformer.resblocks[depth].attn.heads
            x = x + self.linear(self.attention(*qkv.chunk(3, dim=-1), heads, mask), f'{name}.attn.out_proj')
            hidden = self.linear(self.norm(x, f'{name}.ln_2'), f'{name}.mlp.c_fc')
            quick = isinstance(encoder.transformer.resblocks[depth].mlp.gelu, QuickGELU)
            share = torch.sigmoid(1.702 * hidden) if quick else (1 + torch.erf(hidden / math.sqrt(2))) / 2
            x = x + self.linear(hidden * share, f'{name}.mlp.c_proj')
        regions = encoder.side**2
        others = x.shape[1] - regions
        x = torch.cat([self.norm(x[:, :others], 'backbone.prompt_norm', 1e-6), x[:, others:]], dim=1)
        x = F.normalize(self.norm(x, 'backbone.ln_post') @ self['backbone.proj'], dim=-1).transpose(1, 2)
        return (x[:, :, 0], x[:, :, 1 + prompts:others].unflatten(2, grid),
                x[:, :, others:].unflatten(2, (encoder.side, encoder.side)))

    def layer(self, stream: Tensor, other: Tensor, name: str) -> Tensor:
        attention = f'{name}.multihead_attn'
        q, k, v = (self.linear(x, f'{attention}.{part}') for x, part in ((stream, 'q'), (other, 'k'), (other, 'v')))
        mixed = self.linear(self.attention(q, k, v, self.model.get_submodule(attention).heads,
                                           dropout=f'{attention}.attention_dropout'), f'{attention}.proj')
        stream = self.norm(stream + self.dropout(mixed, f'{name}.attended_dropout'), f'{name}.norm2')
        hidden = self.dropout(F.relu(self.linear(stream, f'{name}.linear1')), f'{name}.hidden_dropout')
        hidden = self.dropout(self.linear(hidden, f'{name}.linear2'), f'{name}.output_dropout')
        return self.norm(stream + hidden, f'{name}.norm3')

    def text(self) -> Tensor:
        """(C, E): rows in use."""
        classes = self.head.class_head
        seen_only = self.model.training and self.model.setting.value == 'inductive'
        return classes.embeddings[classes.seen] if seen_only else classes.embeddings

    def decode(self, cls: Tensor, patches: Tensor, regions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Mask logits (B, C, Gh, Gw), final queries and pixels, and the targets of the recovery decoder."""
        text, grid = self.text(), tuple(patches.shape[2:])
        clues = (regions.flatten(2) + cls[:, :, None]).transpose(1, 2)  # (B, R, E)
        aligned = torch.cat([clues[:, :, None] * text, text.expand(len(cls), clues.shape[1], -1, -1)], dim=-1)
        aligned = aligned.flatten(1, 2)  # (B, R*C, 2E)
        spread = F.interpolate(regions, size=grid, mode='bilinear', align_corners=False)
        pixels = torch.cat([spread, cls[:, :, None, None].expand_as(patches), patches], dim=1)
        pixels = pixels.flatten(2).transpose(1, 2)  # (B, N, 3E)
        queries = self.linear(aligned, 'decode_head.q_proj')
        pixels = self.linear(pixels, 'decode_head.lateral_proj')
        for i in range(len(self.head.decoder_q.layers)):
            queries, pixels = (self.layer(queries, pixels, f'decode_head.decoder_q.layers.{i}'),
                               self.layer(pixels, queries, f'decode_head.decoder_v.layers.{i}'))
        masks = queries @ pixels.transpose(1, 2)  # (B, R*C, N)
        logits = masks.unflatten(1, (clues.shape[1], -1)).mean(dim=1).unflatten(2, grid)
        return logits, queries, pixels, aligned, patches.flatten(2).transpose(1, 2)

    def resized(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        for each in ((self.head.img_size,) * 2, size):
            logits = F.interpolate(logits, size=each, mode='bilinear', align_corners=False)
        return logits

    def scores(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H, W)."""
        logits = self.resized(self.decode(*self.encode(image))[0], tuple(image.shape[2:]))
        penalty = logits.new_zeros(logits.shape[1])
        if self.model.setting.value != 'transductive':
            penalty[self.head.class_head.seen] = self.head.class_head.seen_penalty
        return logits.sigmoid() - penalty[:, None, None]

    def image_scores(self, image: Tensor, original: tuple[int, int]) -> Tensor:
        """Sliding windows, one by one: (1, 3, H, W) -> (1, C, *original)."""
        height, width = image.shape[2:]
        (crop_h, crop_w), (step_h, step_w) = self.model.test_cfg.crop_size, self.model.test_cfg.stride
        total, count = 0, image.new_zeros(1, 1, height, width)
        for i in range(math.ceil(max(height - crop_h, 0) / step_h) + 1):
            for j in range(math.ceil(max(width - crop_w, 0) / step_w) + 1):
                bottom, right = min(i * step_h + crop_h, height), min(j * step_w + crop_w, width)
                top, left = max(bottom - crop_h, 0), max(right - crop_w, 0)
                scores = self.scores(image[:, :, top:bottom, left:right])
                total = total + F.pad(scores, (left, width - right, top, height - bottom))
                count[:, :, top:bottom, left:right] += 1
        return F.interpolate(total / count, size=original, mode='bilinear', align_corners=False)

    def label_map(self, image: Tensor, original: tuple[int, int]) -> Tensor:
        """(1, 3, H, W) -> (1, *original)."""
        return self.image_scores(image, original).softmax(dim=1).argmax(dim=1)

    def losses(self, image: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) and labels (B, 1, H, W) -> the losses of a training step, and the accuracy."""
        weights = self.head.losses
        logits, queries, pixels, aligned, patches = self.decode(*self.encode(image))
        labels = self.labels(labels[:, 0], logits)
        logits = self.resized(logits, tuple(labels.shape[1:]))
        focal, dice, pairs = mask_losses(logits, labels)
        losses = {'loss_mask': weights.mask_weight * focal / max(pairs, 1),
                  'loss_dice': weights.dice_weight * dice / max(pairs, 1)}
        if self.head.recovery_decoder is not None:
            name = 'decode_head.recovery_decoder'
            x, y = self.linear(queries, f'{name}.linear_q_in'), self.linear(pixels, f'{name}.linear_k_in')
            for i in range(len(self.head.recovery_decoder.decouple_q)):
                x, y = self.layer(x, y, f'{name}.decouple_q.{i}'), self.layer(y, x, f'{name}.decouple_v.{i}')
            for key, result, target in (('q', x, aligned), ('k', y, patches)):
                difference = (self.linear(result, f'{name}.linear_{key}_out') - target.detach()).abs().mean()
                losses[f'recovery_loss_{key}'] = weights.recovery_loss_weight * difference
        correct = (logits.topk(1, dim=1).indices[:, 0] == labels)[labels != 255]
        losses['acc_seg'] = 100 * correct.sum() / max(1, len(correct))
        return {f'decode.{key}': value for key, value in losses.items()}

    def labels(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Labels that the setting trains with; `logits` are not yet resized."""
        classes, result = self.head.class_head, labels.clone()
        if self.model.setting.value == 'inductive':
            result[:] = 255
            for index, label in enumerate(classes.seen.tolist()):
                result[labels == label] = index
        elif self.model.setting.value == 'transductive':
            scores = self.resized(logits, tuple(labels.shape[1:])).detach().sigmoid()[:, classes.unseen]
            guesses = classes.unseen[scores.argmax(dim=1)]
            hidden = (labels[..., None] == classes.unseen).any(dim=-1)
            result[hidden] = guesses[hidden]
        return result
