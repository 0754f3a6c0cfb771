"""The transformer block of both CLIP towers."""
import pytest
import torch
from torch import nn

from models.clip_layers import LayerNorm, Transformer
from tests.models.naive import close, layer_norm, randomized


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_layer_norm_computes_in_float32(dtype, monkeypatch):
    computed_in = []
    real = nn.functional.layer_norm
    monkeypatch.setattr(nn.functional, 'layer_norm', lambda x, *rest: computed_in.append(x.dtype) or real(x, *rest))
    norm = randomized(LayerNorm(16))
    x = (100 + torch.randn(5, 16, generator=torch.Generator().manual_seed(0))).to(dtype)
    y = norm(x)
    assert y.dtype == dtype and computed_in == [torch.float32]
    assert close(y, layer_norm(x, norm), max(2 * torch.finfo(dtype).eps, 1e-5))


def test_an_unknown_gelu():
    with pytest.raises(ValueError, match="gelu='fast' is neither quick nor plain"):
        Transformer(8, 2, 2, 'fast')
