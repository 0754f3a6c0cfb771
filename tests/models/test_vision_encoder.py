"""CLIP's image tower with prompt and region tokens: attention mask, prompts and initial values."""
import math

import pytest
import torch
from torch import nn

from models import CLIPVisionEncoder
from models.clip_layers import LayerNorm
from tests.models.naive import SIZES, check_uniform, close, encoder, inputs_of, linear

P, WIDTH = 3, 32


def random_image(height: int = 64, width: int = 64, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(('height', 'width', 'message'), [
    (96, 80, '6x5 patches .*multiples of 2.*region_level_bridge_size'), (80, 96, '5x6 patches'),
    (72, 64, '72x64 .*whole patches of 16x16'), (64, 60, '64x60 .*whole patches')])
def test_images_that_do_not_fit(height, width, message):
    with pytest.raises(ValueError, match=message):
        encoder()(random_image(height, width))


@torch.no_grad()
def test_without_region_tokens():
    """A plain ViT with prompts: every token sees every token; the regions are zeros."""
    model = encoder(region_level_bridge_size=0)
    calls = [inputs_of(block) for block in model.transformer.resblocks]
    features = model(random_image(64, 96))
    for (tokens, visible, prompts), in calls:
        assert tokens.shape == (2, 1 + 24, WIDTH) and prompts.shape == (2, P, WIDTH)
        assert not visible.any(), 'something is hidden'
    assert features.regions.shape == (2, features.cls.shape[1], 1, 1) and not features.regions.any()
    norms = torch.cat([features.cls[..., None], features.patches.flatten(2)], dim=2).norm(dim=1)
    assert close(norms, torch.ones(2, 25).double())


def test_prompt_dropout_is_drawn_per_image_and_block():
    model = encoder(num_tokens=200, width=64).train()
    calls = [inputs_of(block) for block in model.transformer.resblocks]
    one = random_image(batch=1)
    model(torch.cat([one, one]))
    tables = [model.prompt_embeddings[0], *model.deep_prompt_embeddings]
    for ((_, _, prompts),), table in zip(calls, tables, strict=True):
        kept = prompts != 0
        assert not torch.equal(kept[0], kept[1])
        assert float(kept.float().mean()) == pytest.approx(0.9, abs=0.01)
        expected = linear(table, model.prompt_proj).expand(2, -1, -1) / 0.9
        assert close(prompts[kept], expected[kept])
    first, second = model.eval()(torch.cat([one, one])).patches
    assert torch.equal(first, second)


@pytest.mark.parametrize(('width', 'patch', 'bound'), [(768, 16, 0.0625), (96, 8, math.sqrt(6 / (192 + 96)))])
def test_initial_values(width, patch, bound):
    model = CLIPVisionEncoder(**SIZES | {'width': width, 'layers': 2, 'patch_size': patch, 'num_tokens': 50})
    check_uniform(model.prompt_embeddings, bound)
    check_uniform(model.deep_prompt_embeddings, bound)
    weight = model.prompt_proj.weight.detach()  # normal: no bound, and four of a hundred beyond two deviations
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / width), rel=0.02)
    assert float((weight.abs() > 2 * math.sqrt(2 / width)).float().mean()) == pytest.approx(0.0455, abs=0.008)
    check_uniform(model.prompt_proj.bias, width**-0.5)  # PyTorch's default
    assert torch.equal(model.prompt_norm.weight, torch.ones(width)) and not model.prompt_norm.bias.any()
    assert not model.region_level_bridge.any()


def test_norms():
    norms = {name: module for name, module in encoder().named_modules() if isinstance(module, nn.LayerNorm)}
    assert len(norms) == 9 and all(type(norm) is LayerNorm for norm in norms.values()), 'not in float32'
    assert norms.pop('prompt_norm').eps == 1e-6 and {norm.eps for norm in norms.values()} == {1e-5}


@pytest.mark.parametrize(('changes', 'error', 'message'), [
    ({'total_d_layer': 1}, ValueError, 'total_d_layer=1: only 2'), ({'total_d_layer': 0}, ValueError, 'total_d_layer'),
    ({'total_d_layer': 3}, ValueError, 'total_d_layer'), ({'prompt_dim': 64}, ValueError, 'prompt_dim=64'),
    ({'region_level_bridge_size': 6}, ValueError, 'region_level_bridge_size=6'),
    ({'region_level_bridge_size': 9}, ValueError, '4x4 patches .* 3x3 regions'),
    ({'input_resolution': 70}, ValueError, 'input_resolution=70'), ({'heads': 5}, ValueError, '5 attention heads'),
    ({'attention': 'flash'}, ValueError, "attention='flash' is none of auto, plain, aligned, widened"),
    ({'num_token': 5}, TypeError, 'num_token')])
def test_arguments_that_do_not_fit(changes, error, message):
    with pytest.raises(error, match=message):
        CLIPVisionEncoder(**{**SIZES, **changes})
