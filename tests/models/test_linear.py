"""Linear layers by oneDNN: PyTorch's numbers, and its gradients in float64."""
import pytest
import torch
import torch.nn.functional as F

from models import linear as module
from models.linear import Linear, OneDNNLinear, linear
from tests.models.naive import close

onednn = pytest.mark.skipif(module._onednn is None, reason='a PyTorch without oneDNN')


@pytest.fixture
def used(monkeypatch):
    """Takes oneDNN for the faster one, whatever the processor; the list of calls of it."""
    calls, real = [], module._onednn
    monkeypatch.setattr(module, 'FASTER', True)
    monkeypatch.setattr(module, '_onednn', lambda *args: calls.append(args) or real(*args))
    return calls


@onednn
@pytest.mark.parametrize('shape', [(5, 16), (2, 5, 16), (2, 3, 5, 16)])
@pytest.mark.parametrize('bias', [True, False])
def test_numbers_and_gradients(used, shape, bias):
    tensors = [torch.randn(shape), torch.randn(8, 16), *([torch.randn(8)] if bias else [])]
    d_out, results = torch.randn(*shape[:-1], 8), []
    for function in (linear, F.linear):
        leaves = [each.clone().requires_grad_() for each in tensors]
        out = function(*leaves)
        results.append([out, *torch.autograd.grad(out, leaves, d_out)])
    assert len(used) == 2
    assert all(close(*pair) for pair in zip(*results, strict=True))


def test_gradient_in_float64(monkeypatch):
    """oneDNN has no float64: its product is replaced by PyTorch's, the formulas stay."""
    monkeypatch.setattr(module, '_onednn', lambda x, weight, bias, *_: F.linear(x, weight, bias))
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 5), (4, 5), (4,))]
    assert torch.autograd.gradcheck(OneDNNLinear.apply, tensors)


@onednn
def test_nothing_is_kept_or_computed_for_frozen_weights(used):
    layer, x = Linear(16, 8).requires_grad_(False), torch.randn(3, 16, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        out = layer(x)
    assert [tensor.shape for tensor in kept] == [(8, 16)]
    out.sum().backward()
    assert close(x.grad, layer.weight.sum(dim=0).expand(3, 16)) and layer.weight.grad is None


@onednn
def test_where_it_is_not_used(used):
    x, whole = torch.randn(3, 16), torch.randn(8, 32)
    assert close(linear(x, whole[:, 16:]), x @ whole[:, 16:].T)
    assert close(linear(x.double(), whole[:, :16].double()), x.double() @ whole[:, :16].double().T)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert linear(x, whole[:, :16].contiguous()).dtype == torch.bfloat16
    assert not used
    traced = torch.jit.trace(Linear(16, 8), x, check_trace=False)
    assert 'linear' in str(traced.graph) and not used


@onednn
def test_strided_inputs_and_gradients(used):
    x, weight = torch.randn(4, 16, 3).transpose(1, 2), torch.randn(8, 16)
    leaf = x.detach().requires_grad_()
    linear(leaf, weight).transpose(0, 1).sum().backward()
    assert close(leaf.grad, weight.sum(dim=0).expand(4, 3, 16)) and close(linear(x, weight), x @ weight.T)
