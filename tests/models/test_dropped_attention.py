"""Attention with dropout: values, and gradients in float64."""
import pytest
import torch

from models import dropped_attention as module
from models.dropped_attention import attention, dropped_attention
from tests.models.naive import close

P = 0.3


def qkv(queries: int = 7, keys: int = 5, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.randn(2, 3, count, 4, dtype=dtype).requires_grad_() for count in (queries, keys, keys)]


def literal(q, k, v, keep, dropout=P):
    weights = (q @ k.transpose(2, 3) * q.shape[-1]**-0.5).softmax(dim=-1)
    return (weights * keep / (1 - dropout)) @ v


def seeded(*qkv):
    """Attention, and the weights that were kept: the same ones in each call."""
    torch.manual_seed(4)
    return dropped_attention(*qkv, P)


@pytest.mark.parametrize('rows', [2, 3, 100])
def test_attention_and_its_gradient(rows, monkeypatch):
    monkeypatch.setattr(module, 'ROWS', rows)
    tensors = qkv()
    out, keep = seeded(*tensors)
    assert close(out, literal(*tensors, keep)) and 0 < keep.sum() < keep.numel()
    assert torch.autograd.gradcheck(lambda *qkv: seeded(*qkv)[0], tensors, check_undefined_grad=False)


def test_attention_in_float32():
    tensors = qkv(130, 90, torch.float32)
    d_out = torch.randn(2, 3, 130, 4)
    out, keep = seeded(*tensors)
    gradients = torch.autograd.grad(out, tensors, d_out)
    wide = [x.detach().double().requires_grad_() for x in tensors]
    expected = torch.autograd.grad(literal(*wide, keep), wide, d_out.double())
    assert all(close(one, other) for one, other in zip(gradients, expected))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_operator_is_registered_rightly(dtype):
    """Except that its results are those of its fake: the draws differ."""
    tensors = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in qkv(dtype=dtype)]  # as the heads are split
    torch.library.opcheck(dropped_attention, (*tensors, P), test_utils=(
        'test_schema', 'test_autograd_registration', 'test_faketensor'))


def test_the_seed_decides():
    q, k, v = (x.detach() for x in qkv(60, 50))
    torch.manual_seed(4)
    first, second = attention(q, k, v, 0.1), attention(q, k, v, 0.1)
    torch.manual_seed(4)
    assert torch.equal(attention(q, k, v, 0.1), first) and not torch.equal(first, second)


def test_share_of_dropped_weights():
    """With one key a weight is 1: a row is dropped, or divided by the share that is kept."""
    q, k, v = (torch.ones(2, 3, count, 4) for count in (3000, 1, 1))
    out = attention(q, k, v, P)[..., 0]
    assert float((out == 0).float().mean()) == pytest.approx(P, abs=0.02)
    assert close(out[out != 0], torch.full_like(out[out != 0], 1 / (1 - P)))


def test_every_lane_of_a_draw_drops_its_share():
    """Four neighbours share a draw of 64 bits: each keeps its share, and knows nothing of the others."""
    torch.manual_seed(0)
    kept = module.keep_mask((100_001, 4), P).double()
    assert kept.mean(dim=0).sub(1 - P).abs().max() < 0.006  # four deviations
    assert (torch.corrcoef(kept.T) - torch.eye(4)).abs().max() < 0.013
    assert module.keep_mask((1001,), 0.).all()


def test_dropout_of_a_tensor():
    """A share is 0, the rest is divided by the share that is kept, and so are gradients; not in testing."""
    layer, x = module.Dropout(P), torch.rand(300, 400, requires_grad=True)
    torch.manual_seed(1)
    out = layer(x)
    kept = out != 0
    assert float(kept.float().mean()) == pytest.approx(1 - P, abs=0.01)
    assert close(out[kept], x[kept] / (1 - P))
    out.sum().backward()
    assert close(x.grad, kept / (1 - P))
    torch.manual_seed(1)
    assert torch.equal(layer(x), out)
    assert layer.eval()(x) is x
