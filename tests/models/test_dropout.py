"""Dropout and attention with dropout: what is dropped, how often, and gradients in float64."""
import pytest
import torch
import torch.nn.functional as F

from models import dropout as module
from models.dropout import Dropout, Dropped, DroppedAttention, attention, keep_mask
from tests.models.naive import close

P = 0.3


def qkv(queries: int = 7, keys: int = 5, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.randn(2, 3, count, 4, dtype=dtype).requires_grad_() for count in (queries, keys, keys)]


def literal(q, k, v, keep, dropout=P):
    weights = (q @ k.transpose(2, 3) * q.shape[-1]**-0.5).softmax(dim=-1)
    return (weights * keep / (1 - dropout)) @ v


@pytest.mark.parametrize('dropout', [0.1, 0.5, 0.01])
def test_share_of_what_is_dropped(dropout):
    shape = (101, 33, 211)
    mask = keep_mask(shape, dropout)
    assert mask.shape == shape and mask.dtype == torch.uint8 and mask.max() == 1
    n = mask.numel()
    bound = 5 * (dropout * (1 - dropout) / n)**0.5
    assert abs(float(mask.double().mean()) - (1 - dropout)) < bound
    neighbours = (mask[..., 1:] * mask[..., :-1]).double().mean()
    assert abs(float(neighbours) - (1 - dropout)**2) < 2 * bound, 'neighbours are dropped together'
    again = keep_mask(shape, dropout)
    assert abs(float((mask * again).double().mean()) - (1 - dropout)**2) < 2 * bound, 'the same mask again'


def test_the_seed_decides():
    torch.manual_seed(4)
    first, second = keep_mask((1000,), 0.1), keep_mask((1000,), 0.1)
    torch.manual_seed(4)
    assert torch.equal(keep_mask((1000,), 0.1), first) and not torch.equal(first, second)


@pytest.mark.parametrize('relu', [False, True])
def test_dropout(relu):
    layer, x = Dropout(0.1).train(), torch.randn(300, 400)
    y = layer(x, relu=relu)
    kept, expected = y != 0, x.relu() if relu else x
    assert close(y[kept], expected[kept] / 0.9)
    assert float(kept[expected != 0].float().mean()) == pytest.approx(0.9, abs=0.01)
    assert torch.equal(layer.eval()(x, relu=relu), expected)


@pytest.mark.parametrize('relu', [False, True])
def test_gradient_of_dropout(relu):
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    keep = keep_mask((4, 5), P)
    assert torch.autograd.gradcheck(lambda x: Dropped.apply(x, keep, P, relu), x)


@pytest.mark.parametrize('rows', [2, 3, 100])
def test_attention_and_its_gradient(rows, monkeypatch):
    monkeypatch.setattr(module, 'ROWS', rows)
    tensors, keep = qkv(), keep_mask((2, 3, 7, 5), P)
    assert close(DroppedAttention.apply(*tensors, keep, P), literal(*tensors, keep))
    assert torch.autograd.gradcheck(lambda *qkv: DroppedAttention.apply(*qkv, keep, P), tensors)


def test_attention_in_float32():
    tensors, keep = qkv(130, 90, torch.float32), keep_mask((2, 3, 130, 90), 0.1)
    d_out = torch.randn(2, 3, 130, 4)
    gradients = torch.autograd.grad(DroppedAttention.apply(*tensors, keep, 0.1), tensors, d_out)
    wide = [x.detach().double().requires_grad_() for x in tensors]
    expected = torch.autograd.grad(literal(*wide, keep, 0.1), wide, d_out.double())
    assert all(close(one, other) for one, other in zip(gradients, expected))


def test_nothing_is_dropped_outside_of_training():
    q, k, v = qkv()
    assert close(attention(q, k, v), F.scaled_dot_product_attention(q, k, v))
