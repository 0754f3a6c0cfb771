"""The attention mask of region tokens, and its forms: the same results, and what a GPU gets."""
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models import CLIPVisionEncoder
from models.clip_layers import SelfAttention, Widening
from models.visibility import FAR, FORMS, choose_form, in_form, region_visibility, widen
from tests.models.naive import close, encoder, inputs_of, randomized, region_mask

CUDA = torch.device('cuda')
HALF = [torch.float16, torch.bfloat16]
ALL = [*HALF, torch.float32, torch.float64]
PLACES = [((4, 4), 2, 3), ((4, 4), 4, 0), ((6, 9), 3, 1), ((8, 4), 2, 10), ((2, 6), 1, 2), ((4, 8), 4, 5)]


@pytest.mark.parametrize(('grid', 'side', 'prompts'), [*PLACES, ((32, 32), 4, 10)])
def test_region_mask(grid, side, prompts):
    """CLS and prompts change places, which look alike; prompts have no rows."""
    assert region_visibility(grid, side, prompts).tolist() == region_mask(grid, side, prompts)[prompts:]


@pytest.mark.parametrize('dtype', ALL)
@pytest.mark.parametrize(('grid', 'side', 'prompts'), PLACES)
def test_columns_add_nothing_where_a_token_attends(grid, side, prompts, dtype):
    visible = region_visibility(grid, side, prompts)
    q, kv = widen(visible, side**2, dtype)
    assert q.dtype == kv.dtype == dtype and q.shape[1] % 8 == 0 and not kv[:, 1].any()
    assert torch.equal(q.double() @ kv[:, 0].double().T, torch.where(visible, 0., -FAR).double())


def parts(grid, side, prompts, form, dtype):
    """An attention of random weights with its arguments; gradients of x and of the prompts are wanted."""
    attention = randomized(SelfAttention(32, 4)).to(dtype)
    visible, padding = in_form(form, region_visibility(grid, side, prompts), side**2, dtype, 8)
    x, own = (torch.randn(2, count, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(count)).to(dtype)
              .requires_grad_() for count in (1 + grid[0] * grid[1] + side**2, prompts))
    return attention, x, visible, own, torch.nn.functional.pad(own, (0, 0, padding, 0), value=9.)


@pytest.mark.parametrize(('dtype', 'tolerance'), [
    (torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.03), (torch.float16, 0.004)])
@pytest.mark.parametrize('form', ['aligned', 'widened'])
@pytest.mark.parametrize(('grid', 'side', 'prompts'), [*PLACES, ((3, 4), 0, 2)])
def test_every_form_gives_the_same(grid, side, prompts, form, dtype, tolerance):
    results = []
    for each, kind in (('plain', torch.float64), (form, dtype)):
        torch.manual_seed(0)
        attention, x, visible, own, padded = parts(grid, side, prompts, each, kind)
        out = attention(x, visible, padded)
        out.backward((torch.arange(out.numel()).view_as(out) * 37 % 17 - 8).to(kind))
        results.append([out, x.grad, own.grad, *(parameter.grad for parameter in attention.parameters())])
        if side:
            results[-1].append(attention.weights(x, visible, padded, rows=slice(-side**2, None))[
                ..., padded.shape[1] - prompts:])
    for expected, actual in zip(*results, strict=True):
        assert actual.dtype in (dtype, torch.float32) and (actual.numel() == 0 or close(actual, expected, tolerance))


@pytest.mark.parametrize('dtype', ALL)
@pytest.mark.parametrize('form', FORMS[1:])
def test_hidden_tokens_weigh_exactly_nothing(form, dtype):
    """With attention logits in the hundreds, too."""
    attention, x, visible, _, padded = parts((4, 8), 4, 3, form, dtype)
    weights = attention.weights(30 * x, visible, padded, rows=slice(None))[..., padded.shape[1] - 3:]
    hidden = ~region_visibility((4, 8), 4, 3)
    assert not weights[:, :, hidden].any() and weights[:, :, ~hidden].any()


@pytest.mark.parametrize('dtype', ALL)
def test_a_query_that_sees_nothing_gives_numbers(dtype):
    attention, x, visible, own, _ = parts((4, 4), 2, 3, 'widened', dtype)
    kv = torch.stack([torch.full_like(visible.kv[:, 0], -FAR), visible.kv[:, 1]], dim=1)
    out = attention(x, Widening(torch.ones_like(visible.q), kv), own)
    out.sum().backward()
    assert out.isfinite().all() and x.grad.isfinite().all() and own.grad.isfinite().all()


@pytest.mark.parametrize(('regions', 'size'), [(0, (64, 64)), (1, (64, 48)), (4, (64, 96)), (16, (64, 128))])
@pytest.mark.parametrize('form', ['aligned', 'widened'])
def test_features_and_gradients_of_an_encoder(form, regions, size):
    results, image = [], torch.randn(2, 3, *size, dtype=torch.float64)
    for each in ('auto', form):
        torch.manual_seed(0)
        model = encoder(region_level_bridge_size=regions, attention=each).double()
        features = model(image)
        sum((values * torch.linspace(-1, 1, values.numel()).view_as(values)).sum() for values in features).backward()
        results.append([*features, *(parameter.grad for parameter in model.parameters() if parameter.numel())])
    assert all(close(actual, expected, 1e-12) for expected, actual in zip(*results, strict=True))


@pytest.mark.parametrize(('dtype', 'head_width', 'regions', 'form'), [
    (torch.float32, 64, 16, 'aligned'), (torch.float64, 64, 16, 'aligned'), (torch.float16, 64, 16, 'widened'),
    (torch.bfloat16, 64, 16, 'widened'), (torch.bfloat16, 80, 16, 'widened'), (torch.bfloat16, 64, 36, 'aligned')])
def test_choice(dtype, head_width, regions, form):
    assert choose_form(CUDA, dtype, regions, head_width, backward=True) == form
    assert choose_form(CUDA, dtype, regions, head_width, backward=False) == 'aligned'
    assert choose_form(torch.device('cpu'), dtype, regions, head_width, backward=True) == 'plain'


class OnGPU(TorchDispatchMode):
    """Fails where an operator makes a tensor that is not on the GPU."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        out = function(*arguments, **(options or {}))
        for each in tree_leaves(out):
            assert not isinstance(each, torch.Tensor) or each.device.type == 'cuda', function
        return out


@contextmanager
def autocast(dtype):
    """`torch.autocast` does nothing where there is no GPU."""
    before = torch.get_autocast_dtype('cuda')
    torch.set_autocast_dtype('cuda', dtype or before)
    torch.set_autocast_enabled('cuda', dtype is not None)
    try:
        yield
    finally:
        torch.set_autocast_enabled('cuda', False)
        torch.set_autocast_dtype('cuda', before)


@pytest.mark.parametrize(('train', 'size'), [(True, (512, 512)), (False, (512, 512)), (False, (512, 768))])
@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('dtype', [None, *HALF])
def test_on_a_fake_gpu(dtype, form, train, size):
    """No step needs a value or makes a tensor on the CPU; widths, and lengths of masks, are multiples of 8."""
    with FakeTensorMode():
        with CUDA:
            model = CLIPVisionEncoder(layers=2, attention=form).train(train)
            image = torch.randn(2, 3, *size)
        calls = [inputs_of(block) for block in model.transformer.resblocks]
        with torch.set_grad_enabled(train), autocast(dtype), OnGPU():
            features = model(image)
    assert features.patches.shape == (2, 512, size[0] // 16, size[1] // 16) and features.cls.requires_grad == train
    tokens = 1 + size[0] * size[1] // 256 + 16
    for (_, visible, prompts), in calls:
        if form == 'widened' or form == 'auto' and train and dtype:
            assert {each.dtype for each in visible} == {dtype or torch.float32}
            assert visible.q.shape == (tokens, 32) and visible.kv.shape == (10 + tokens, 2, 32)
        else:
            assert visible.dtype == (dtype or torch.float32) and visible.shape[1] == prompts.shape[1] + tokens
            assert form == 'plain' or visible.shape[1] % 8 == 0
