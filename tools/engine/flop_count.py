"""Counts parameters and FLOPs of a model by part, with fvcore. One multiply-add is one FLOP."""
from math import prod
from typing import NamedTuple

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape

from models import CLIPRC
from models.training_labels import Setting

# Part -> its modules.
PARTS = {
    'vision encoder': ('backbone',),
    'two-stream decoder': ('decode_head.decoder_q', 'decode_head.decoder_v'),
    'recovery decoder (training)': ('decode_head.recovery_decoder',),
}
REST = 'region alignment, projections, mask scores'


class Count(NamedTuple):
    """Counts of one part of the model, for one image."""
    parameters: int
    trainable: int
    flops: int  # multiply-adds


def attention_flops(inputs: list, outputs: list) -> int:
    """Count `scaled_dot_product_attention` for fvcore: q (..., Nq, d), k (..., Nk, d), v (..., Nk, e)."""
    query, key, value = (get_shape(tensor) for tensor in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def count(model: CLIPRC, size: tuple[int, int]) -> dict[str, Count]:
    """Count every part of the model for one image of `size` (height, width), passed through it whole.

    The model must have text embeddings, of any values. The parts add up to the whole model.
    """
    model.eval().forward = lambda image: model.encode_decode(image, None)  # what fvcore traces
    analysis = FlopCountAnalysis(model, torch.zeros(1, 3, *size))
    analysis.set_op_handle('aten::scaled_dot_product_attention', attention_flops)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings('none')
    by_module = analysis.by_module()
    del model.forward

    def counted(*modules: str) -> Count:
        sizes = [(p.numel(), p.requires_grad) for name, p in model.named_parameters() if name.startswith(modules)]
        return Count(sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained),
                     int(sum(by_module[name] for name in modules)))

    counts = {part: counted(*modules) for part, modules in PARTS.items()}
    counts[REST] = Count(*(total - sum(values) for total, values in zip(
        counted(''), zip(*counts.values()), strict=True)))
    return counts


class Floors(NamedTuple):
    """Necessary multiply-adds for one image of the trained size, counted by hand."""
    plain: int  # forward pass of a plain ViT on as many tokens
    window: int  # forward pass in testing
    step: int  # forward and backward pass in training


def floors(model: CLIPRC) -> Floors:
    """Count matrix products and attention, without elementwise work.

    Shared work is counted once: the text's part of `q_proj`, and the parts of CLS and regions of `lateral_proj`. Of the
    prompts only keys and values count, as their outputs are discarded. The backward pass of a frozen layer costs as
    much as its forward pass, that of a trained layer or of attention twice as much; the patch embedding needs none.
    """
    encoder, head = model.backbone, model.decode_head
    width, space = encoder.proj.shape
    patch, prompts, regions = encoder.patch_size, encoder.num_tokens, encoder.side**2
    pixels = (encoder.input_resolution // patch)**2
    tokens, depth = 1 + prompts + pixels + regions, len(encoder.transformer.resblocks)
    embedding = pixels * 3 * patch**2 * width
    plain = embedding + depth * (12 * tokens * width**2 + 2 * tokens**2 * width)
    read = tokens - prompts
    attention = depth * 2 * read * tokens * width
    encoding = (embedding + depth * (10 * read + 2 * tokens + prompts) * width**2 + attention
                + read * width * space)

    def stream(own: int, other: int) -> int:
        """Count one layer: q, output and feed-forward block; k and v; attention."""
        return 10 * own * space**2 + 2 * other * space**2 + 2 * own * other * space

    def decoding(classes: int, *, recovery: bool) -> int:
        queries = max(regions, 1) * classes
        layers = stream(queries, pixels) + stream(pixels, queries)
        total = (queries + classes + pixels + regions + 1) * space**2 + classes * pixels * space
        total += len(head.decoder_q.layers) * layers
        if recovery:
            total += (3 * queries + 2 * pixels) * space**2 + len(head.recovery_decoder.decouple_q) * layers
        return total

    in_training = len(head.class_head.seen) if model.setting is Setting.INDUCTIVE else model.num_classes
    return Floors(
        plain=plain, window=encoding + decoding(model.num_classes, recovery=False),
        step=2 * encoding - embedding + attention + 3 * decoding(
            in_training, recovery=head.recovery_decoder is not None))
