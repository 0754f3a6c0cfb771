"""Naive versions of the model's computations, in loops and float64, and small parts with random weights."""
import math

import torch
from torch import Tensor, nn

from models import CLIPVisionEncoder, RegionClueHead
from models.training_labels import Setting
from models.vision_encoder import ImageFeatures

SIZES = {'input_resolution': 64, 'width': 32, 'layers': 3, 'heads': 4, 'output_dim': 16, 'num_tokens': 3,
         'region_level_bridge_size': 4}


def randomized(module: nn.Module) -> nn.Module:
    """Add noise to all parameters, so that zeros and ones hide no wrong use of them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module


def without_dropout(module: nn.Module) -> nn.Module:
    for each in module.modules():
        if isinstance(each, nn.Dropout):
            each.p = 0.
    return module


def encoder(**changes) -> CLIPVisionEncoder:
    return randomized(CLIPVisionEncoder(**{**SIZES, **changes})).eval()


def unit(*shape: int, dim: int, seed: int = 0) -> Tensor:
    """Random, with a length of 1 along `dim`."""
    return nn.functional.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=dim)


def features(batch: int = 2, width: int = 16, grid: tuple[int, int] = (4, 4), side: int = 2) -> ImageFeatures:
    return ImageFeatures(cls=unit(batch, width, dim=1, seed=1), patches=unit(batch, width, *grid, dim=1, seed=2),
                         regions=unit(batch, width, side, side, dim=1, seed=3))


def head(*, setting: str = 'inductive', classes: int = 5, seen: tuple[int, ...] = (0, 2, 3), recovery: float = 2.,
         **changes) -> RegionClueHead:
    """A region-clue head in evaluation mode, with random embeddings of its classes."""
    built = RegionClueHead(**{'img_size': 24, 'in_channels': 16, 'num_heads': 4,
                              'loss_decode': {'recovery_loss_weight': recovery}, **changes})
    built.class_head.set_classes(classes, unit(classes, built.class_head.embed_dims, dim=1, seed=4), seen=seen,
                                 setting=Setting(setting))
    return randomized(built).eval()


def inputs_of(module: nn.Module) -> list[tuple]:
    """Give a list that collects the positional arguments of every later call of the module."""
    calls = []
    module.register_forward_pre_hook(lambda _, arguments: calls.append(arguments))
    return calls


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> bool:
    """Compare shapes, and values relative to the largest."""
    assert actual.shape == expected.shape
    return bool((actual.double() - expected.double()).abs().max() <= tolerance * expected.double().abs().max())


def check_uniform(values: Tensor, bound: float) -> None:
    """Check that values are uniform from -bound to bound, by their largest, mean and deviation."""
    values, n = values.detach().double().flatten(), values.numel()
    assert (1 - 8 / n) * bound < float(values.abs().max()) <= bound * (1 + 1e-6)
    assert abs(float(values.mean())) < 5 * bound / math.sqrt(3 * n)
    assert abs(float(values.std()) * math.sqrt(3) / bound - 1) < 2.3 / math.sqrt(n)


def check_pytorch_default(layer: nn.Linear) -> None:
    check_uniform(layer.weight, layer.in_features**-0.5)
    check_uniform(layer.bias, layer.in_features**-0.5)


def layer_norm(x: Tensor, norm: nn.LayerNorm, eps: float = 1e-5) -> Tensor:
    x = x.double()
    x = x - x.mean(dim=-1, keepdim=True)
    return x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt() * norm.weight.double() + norm.bias.double()


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return x.double() @ layer.weight.double().T + layer.bias.double()


def region_mask(grid: tuple[int, int], side: int, prompts: int) -> list[list[bool]]:
    """Attention mask of [CLS, prompts, patches, regions], from the rules in words."""
    height, width = grid
    tokens = [('other', None)] * (1 + prompts)
    tokens += [('patch', (y // (height // side), x // (width // side))) for y in range(height) for x in range(width)]
    tokens += [('region', (i, j)) for i in range(side) for j in range(side)]
    return [[a == b or 'region' not in (kind_a, kind_b) or ({kind_a, kind_b} == {'patch', 'region'} and
                                                            cell_a == cell_b)
             for b, (kind_b, cell_b) in enumerate(tokens)] for a, (kind_a, cell_a) in enumerate(tokens)]
