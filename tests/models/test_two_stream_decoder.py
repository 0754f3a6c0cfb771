"""Dropouts and initial values of the cross-attention layers, the two streams and the recovery decoder."""
import pytest
import torch
from torch import nn

from models import two_stream_decoder
from models.two_stream_decoder import CrossAttention, CrossAttentionLayer, RecoveryDecoder
from tests.models.naive import close, inputs_of, linear, randomized

WIDTH, HEADS = 16, 4


def test_attention_dropout_falls_on_the_weights_alone():
    """With a single key a weight is 1, so that a whole row is dropped, and nothing after the projection."""
    module = randomized(CrossAttention(WIDTH, heads=1, dropout=0.1)).train()
    other = torch.randn(1, 1, WIDTH)
    rows = module(torch.randn(1, 4000, WIDTH), *module.keys_and_values(other))[0]
    kept = linear(linear(other[0], module.v) / 0.9, module.proj)
    distance = torch.minimum((rows - kept).abs().amax(dim=1), (rows - module.proj.bias).abs().amax(dim=1))
    assert float(distance.detach().max()) < 1e-5
    dropped = ((rows - module.proj.bias).abs().amax(dim=1) < 1e-5).float().mean()
    assert float(dropped) == pytest.approx(0.1, abs=0.02)


def constant(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.ones_(layer.bias)


def test_the_other_dropouts_of_a_layer():
    layer = CrossAttentionLayer(WIDTH, HEADS).train()
    for ones in (layer.multihead_attn.proj, layer.linear1, layer.linear2):
        constant(ones)
    attended, hidden, output = inputs_of(layer.norm2), inputs_of(layer.linear2), inputs_of(layer.norm3)
    stream = torch.randn(1, 2000, WIDTH)
    layer(stream, torch.randn(1, 3, WIDTH))
    added = attended[0][0] - stream, hidden[0][0], output[0][0] - layer.norm2(attended[0][0])
    for values in added:
        kept = values.detach().abs() > 0.5
        assert float(kept.float().mean()) == pytest.approx(0.9, abs=0.01)
        assert close(values[kept], torch.ones(int(kept.sum())) / 0.9)
        assert float(values[~kept].abs().max()) < 1e-5


@torch.no_grad()
def test_a_stream_in_chunks(monkeypatch):
    """To rounding: products of fewer rows may add up in another order. With gradients nothing is divided."""
    layer = randomized(CrossAttentionLayer(WIDTH, HEADS)).eval()
    stream, other, hidden = torch.randn(2, 11, WIDTH), torch.randn(2, 5, WIDTH), inputs_of(layer.linear2)
    whole = layer(stream, other)
    monkeypatch.setitem(two_stream_decoder.CHUNK_ELEMENTS, 'cpu', 4 * 2 * 4 * WIDTH)
    assert close(layer(stream, other), whole, 1e-6)
    with torch.enable_grad():
        assert torch.equal(layer(stream, other), whole)
    assert [rows.shape[1] for rows, in hidden] == [11, 4, 4, 3, 11]


def test_initial_values_of_the_recovery_decoder():
    for name, value in RecoveryDecoder(64, HEADS, num_layers=2).state_dict().items():
        if 'norm' in name:
            assert torch.equal(value, torch.full_like(value, float(name.endswith('weight')))), name
        elif name.endswith('bias'):
            assert not value.any(), name
        else:
            assert abs(float(value.mean())) < 0.002 and float(value.std()) == pytest.approx(0.02, rel=0.05), name
            assert 0.05 < float(value.abs().max()) < 0.11, name  # normal, not uniform
