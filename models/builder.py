"""Builds a model from a config's `model`, and compiles it."""
import getpass
import inspect
import os
import re
import tempfile

import torch
from mmcv import ConfigDict
from mmseg.models import build_segmentor
from mmseg.models.builder import MODELS

from .clip_layers import ResidualAttentionBlock
from .errors import UserError, building
from .losses import MaskLoss
from .segmentor import CLIPRC
from .two_stream_decoder import CrossAttentionLayer


def build(model: dict) -> CLIPRC:
    """Build the model of a config's `model`.

    An official config switches the recovery decoder off by `recovery_loss_weight=0`: it is then not built.

    Raises:
        UserError: an unknown argument or type, or values that do not fit each other.
    """
    head = model.get('decode_head')
    if isinstance(head, dict) and (head.get('loss_decode') or {}).get('recovery_loss_weight') == 0:
        model = ConfigDict({**model, 'decode_head': {**head, 'recovery_decoder_num_layers': 0}})
    with building('the config\'s model cannot be built', _with_remedy):
        return build_segmentor(model)


def _with_remedy(message: str) -> str:
    """Add the known arguments to a message about an unknown one, and the remedy to one about an unknown type."""
    unknown = re.search(r'(\w+) is not in the models registry', message)
    if unknown:
        return (f'{unknown[0]}. If it is a part of your own, in MODULE.py beside the config: '
                "custom_imports = dict(imports=['MODULE']) there.")
    refused = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", message)
    part = MODELS.get(refused[1]) if refused else None
    if part is None:
        return message
    known = [name for name in inspect.signature(part).parameters if name != 'init_cfg']
    return f'{refused[1]} has no {refused[2]!r}, it has {", ".join(known)}.'


def compile_layers(model: CLIPRC) -> None:
    """Apply torch.compile to each transformer block, decoder layer and loss; names in state dicts do not change.

    Each kind of CPU gets a cache of its own: torch 2.11 would reuse code that was compiled for other instructions
    (ATEN_CPU_CAPABILITY), and compute wrong numbers.
    """
    kind = torch.backends.cpu.get_cpu_capability().replace(' ', '_')
    cache = f'{tempfile.gettempdir()}/torchinductor_{getpass.getuser()}_{kind}'
    os.environ.setdefault('TORCHINDUCTOR_CACHE_DIR', cache)
    for layer in model.modules():
        if isinstance(layer, (ResidualAttentionBlock, CrossAttentionLayer)):
            layer.compile()
        elif isinstance(layer, MaskLoss):
            layer.compute = torch.compile(layer.compute)


def compile_windows(model: CLIPRC) -> None:
    """Compile the way from windows to mask logits, in tests, as one function that replays CUDA graphs.

    A graph is compiled for the first size of a batch, one for all other sizes, and one for a single window. A CUDA
    graph is recorded for each size. Other classes are compiled again; after eight numbers of classes torch refuses.

    Raises:
        UserError: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise UserError("compile='reduce-overhead' replays CUDA graphs, and PyTorch sees no GPU: use compile=True.")
    replayed = torch.compile(model.window_logits, mode='reduce-overhead', fullgraph=True)
    model.window_logits = lambda images: replayed(images).clone()  # the next call overwrites what the last one gave
