"""Whole state dicts, official and our own: all that the model has is loaded, and nothing else is ignored silently."""
import copy
import json
from functools import partial

import fill
import numpy as np
import pytest
import torch
from mmcv import ConfigDict
from mmcv.runner import load_checkpoint
from mmseg.models import build_segmentor
from torch import nn

from models.builder import build
from tests.conftest import GOLDEN, golden_config


def shapes(name: str) -> dict[str, list[int]]:
    return json.loads((GOLDEN / f'{name}_checkpoint_keys.json').read_text())


@pytest.fixture(scope='module')
def official():
    """A small official state dict: 268 tensors with values."""
    return fill.fill_state_dict(shapes('tiny_inductive'))


@pytest.fixture
def model():
    return build_segmentor(ConfigDict(golden_config('inductive')))


def by_torch(model, weights, tmp_path, strict=True):
    model.load_state_dict(weights, strict=strict)


def by_mmcv(model, weights, tmp_path, strict=True):
    torch.save({'state_dict': {f'module.{name}': value for name, value in weights.items()}}, tmp_path / 'weights.pth')
    load_checkpoint(model, str(tmp_path / 'weights.pth'), strict=strict)


def as_part_of_another(model, weights, tmp_path):
    nn.ModuleDict({'module': model}).load_state_dict({f'module.{name}': value for name, value in weights.items()})


LOADERS = pytest.mark.parametrize('load', [by_torch, partial(by_torch, strict=False), by_mmcv,
                                          partial(by_mmcv, strict=False), as_part_of_another])


def full_size_config(name: str, folder) -> dict:
    """ViT-B/16 with the classes of VOC (20, 15 of them seen) or of COCO-Stuff (171, 156)."""
    config = golden_config('voc_inductive')
    if name == 'coco':
        np.save(folder / 'coco.npy', np.ones((171, 512), np.float16))
        seen, both = list(range(0, 156)), list(range(171))
        config['backbone'].update(num_tokens=100)
        config['decode_head'].update(seen_idx=seen, all_idx=both)
        config.update(base_class=seen, novel_class=list(range(156, 171)), both_class=both,
                      load_text_embedding=str(folder / 'coco.npy'))
    return config


@pytest.mark.parametrize('name', ['voc', 'coco'])
def test_official_names_and_shapes_at_full_size(name, tmp_path):
    """No storage is made: a model on the meta device takes tensors of one stored zero."""
    with torch.device('meta'):
        model = build_segmentor(ConfigDict(full_size_config(name, tmp_path)))
    weights = {key: torch.zeros(()).expand(shape) for key, shape in shapes(name).items()}
    parts = [key.split('.')[0] for key in weights]
    assert [parts.count(part) for part in ('backbone', 'text_encoder', 'decode_head')] == [159, 149, 188]
    model.load_state_dict(weights, assign=True)
    loaded = model.state_dict()
    assert len(loaded) == 496 - 48 - 149
    assert all(value.device.type == 'cpu' and list(value.shape) == shapes(name)[key] for key, value in loaded.items())


@LOADERS
def test_official_values_are_loaded(load, official, model, tmp_path):
    count = len(official)
    load(model, official, tmp_path)
    loaded = model.state_dict()
    assert all(torch.equal(value, official[name]) for name, value in loaded.items())
    assert len(official) == count, 'the dict of the caller was changed'
    dropped = set(official) - set(loaded)
    dead = {name for name in dropped if '.self_attn.' in name or '.norm1.' in name}
    assert len(dead) == 48 and all(name.startswith('text_encoder.') for name in dropped - dead)


@LOADERS
@pytest.mark.parametrize('name', ['backbone.region_level_bridge', 'decode_head.recovery_decoder.linear_q_out.weight'])
def test_tensors_that_do_not_fit_are_named(load, name, official, model, tmp_path):
    without, more, other = dict(official), dict(official), dict(official)
    del without[name]
    more[f'{name}_surprise'] = official[name]
    other[name] = official[name][..., :-1]
    for weights, message in ((without, f'missing: {name}$'), (more, f'not known here: {name}_surprise$'),
                             (other, rf'of another shape: {name} \(')):
        with pytest.raises(ValueError, match=f'(?m){message}'):
            load(model, weights, tmp_path)


@pytest.mark.parametrize('extra', ['self_attn.weight', 'backbone.norm1.weight',
                                   'backbone.transformer.resblocks.0.self_attn.in_proj_bias'])
def test_the_list_of_dead_tensors_covers_the_head_only(extra, official, model):
    with pytest.raises(ValueError, match=f'not known here: {extra}'):
        model.load_state_dict(official | {extra: torch.zeros(1)})


@LOADERS
def test_our_own_files_lack_the_dead_and_load(load, official, model, tmp_path):
    model.load_state_dict(official)
    own = copy.deepcopy(model.state_dict())
    assert not any(part in name for name in own for part in ('self_attn', 'norm1', 'text_encoder', 'class_head'))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    load(model, own, tmp_path)
    assert all(torch.equal(value, official[name]) for name, value in model.state_dict().items())


def test_without_recovery_its_tensors_are_dropped(official):
    config = golden_config('inductive')
    config['decode_head']['loss_decode']['recovery_loss_weight'] = 0.
    model = build(ConfigDict(config))
    model.load_state_dict(official)
    assert not any('recovery' in name for name in model.state_dict())
    full = build_segmentor(ConfigDict(golden_config('inductive')))
    with pytest.raises(ValueError, match='missing: decode_head.recovery_decoder'):
        full.load_state_dict(model.state_dict())


def test_a_model_with_a_text_tower_loads_it(official):
    model = build_segmentor(ConfigDict(golden_config('text')))
    model.load_state_dict(official)
    assert torch.equal(model.text_encoder.text_projection, official['text_encoder.text_projection'])
    without = {name: value for name, value in official.items() if not name.startswith('text_encoder.')}
    with pytest.raises(ValueError, match='missing: text_encoder.positional_embedding'):
        model.load_state_dict(without)
