"""Autocast: types of the outputs, size of the differences; activation checkpointing; compiled layers."""
import os

import fill
import pytest
import torch
from mmcv import ConfigDict
from torch import nn

from models import builder, precision
from models.clip_layers import LayerNorm
from tests.conftest import golden_config

CPU = torch.device('cpu')


def build(**changes):
    config = golden_config('inductive')
    for part, values in changes.items():
        config[part].update(values)
    torch.manual_seed(0)
    return builder.build(ConfigDict(config))


def step(model, scale: float = 1.) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Losses and gradients of one batch; dropout drops the same in each."""
    torch.manual_seed(5)
    model.train().zero_grad()
    losses = model.forward_train(fill.image(1, (2, 3, 64, 64)), [{}, {}], fill.labels(2, (2, 1, 64, 64), 6))
    (scale * sum(value for name, value in losses.items() if 'loss' in name)).backward()
    return ({name: float(value) for name, value in losses.items()},
            {name: each.grad / scale for name, each in model.named_parameters() if each.grad is not None})


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_types_of_outputs(dtype):
    model, types = build(), {}
    model.amp_dtype = dtype
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, LayerNorm)):
            module.register_forward_hook(lambda module, inputs, out, name=name: types.update({name: out.dtype}))
    seen_by_the_losses = []
    model.decode_head.losses.register_forward_pre_hook(lambda _, inputs: seen_by_the_losses.append(inputs[0]))
    losses, gradients = step(model)
    norms = {kind for name, kind in types.items() if isinstance(model.get_submodule(name), LayerNorm)}
    products = {kind for name, kind in types.items() if isinstance(model.get_submodule(name), nn.Linear)}
    assert products == {dtype} and norms == {torch.float32}
    assert seen_by_the_losses[0].dtype == torch.float32
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    model.eval()
    assert model.encode_decode(fill.image(3, (1, 3, 64, 64)), None).dtype == torch.float32


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_changes_results_a_little(dtype):
    model = build()
    losses, gradients = step(model)
    model.amp_dtype = dtype
    cast_losses, cast_gradients = step(model, scale=1. if dtype is torch.bfloat16 else 2.**8)
    del losses['decode.acc_seg'], cast_losses['decode.acc_seg']
    assert cast_losses == pytest.approx(losses, rel=0.02) and cast_losses != losses
    for name, gradient in gradients.items():
        if not name.endswith('k.bias'):
            alike = torch.cosine_similarity(gradient.flatten(), cast_gradients[name].flatten(), dim=0)
            assert float(alike) > 0.98, name


@pytest.mark.parametrize(('slowdown', 'has_it'), [(0.5, True), (3, True), (30, False)])
def test_emulated_products_are_told_by_their_time(monkeypatch, slowdown, has_it):
    threads, times = torch.get_num_threads(), iter([[9., 1.], [slowdown, 9 * slowdown]])
    monkeypatch.setattr(precision.timeit, 'repeat', lambda job, **_: next(times))
    assert precision.cpu_has.__wrapped__(torch.bfloat16) is has_it
    assert torch.get_num_threads() == threads


def test_activation_checkpointing_changes_nothing_but_what_is_kept():
    plain, saving = build(), build(backbone={'with_cp': True}, decode_head={'with_cp': True})
    kept = []
    for model in (plain, saving):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
            torch.manual_seed(5)
            model.train().forward_train(fill.image(1, (2, 3, 64, 64)), [{}, {}], fill.labels(2, (2, 1, 64, 64), 6))
        kept.append(sum(sizes))
    assert kept[1] < 0.5 * kept[0]
    (losses, gradients), (same_losses, same_gradients) = step(plain), step(saving)
    assert same_losses == pytest.approx(losses, rel=1e-6)
    for name, gradient in gradients.items():
        assert torch.allclose(same_gradients[name], gradient, rtol=1e-4, atol=1e-6), name


def test_compiled_layers_keep_their_names():
    model = build()
    names, compiled = list(model.state_dict()), []
    for module in model.modules():
        module.compile = lambda module=module: compiled.append(module)
    builder.compile_layers(model)
    assert list(model.state_dict()) == names
    assert len(compiled) == len(model.backbone.transformer.resblocks) + 2 * 3 + 2


def test_compiled_code_is_of_one_kind_of_cpu(monkeypatch):
    """torch's cache has one place for all."""
    places = []
    for kind in ('AVX2', 'AVX512'):
        monkeypatch.delenv('TORCHINDUCTOR_CACHE_DIR', raising=False)
        monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda kind=kind: kind)
        builder.compile_layers(build())
        places.append(os.environ['TORCHINDUCTOR_CACHE_DIR'])
    assert places[0].endswith('_AVX2') and places[1].endswith('_AVX512')


def test_tf32(tf32, recwarn):
    for allowed in (True, False, True):
        precision.set_tf32(allowed)
        assert tf32() == (allowed, allowed) and torch.get_float32_matmul_precision() == (
            'high' if allowed else 'highest')
    assert not recwarn.list
