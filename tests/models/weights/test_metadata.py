"""The metadata of a checkpoint: plain JSON values that are enough to test it, read safely."""
import base64
import json

import pytest
import torch
from mmcv import Config
from mmcv.runner import save_checkpoint

from models.weights import files, metadata
from models.weights.files import Checkpoint
from tools.engine.build import build_model, dataset_facts, describe


@pytest.fixture
def described(tiny_configs):
    """(meta, facts, table)"""
    config = Config.fromfile(str(tiny_configs['inductive']))
    model, facts = build_model(config), dataset_facts(config)
    table = torch.randn(20, 32, generator=torch.Generator().manual_seed(0))
    model.class_head.set_classes(20, table)
    return {'iter': 3, 'clip_rc': describe(model, config)}, facts, table


def test_contents(described):
    entry = described[0]['clip_rc']
    assert entry['class_names'][:2] == ['aeroplane', 'bicycle'] and len(entry['class_names']) == 20
    assert entry['split']['unseen'] == ['pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor']
    assert entry['split']['seen'] == entry['class_names'][:15]
    assert (entry['format'], entry['setting'], entry['prompt_set']) == (1, 'inductive', 'single')
    assert entry['config']['model']['backbone']['layers'] == 3
    assert entry['config']['data']['train']['pipeline'][0] == {'type': 'LoadImage'}
    assert entry['text_embeddings']['shape'] == [20, 32] and len(entry['text_embeddings']['sha256']) == 64


def test_read_without_running_code(described, tmp_path):
    meta, facts, table = described
    assert json.loads(json.dumps(meta, allow_nan=False)) == meta
    save_checkpoint(torch.nn.Linear(2, 2), str(tmp_path / 'it.pth'), meta=meta)
    assert torch.load(tmp_path / 'it.pth', weights_only=True)['meta']['clip_rc'] == meta['clip_rc']
    read = metadata.description(files.read(tmp_path / 'it.pth'))
    assert torch.equal(read.embeddings, table)
    assert (tuple(read.class_names), read.prompt_set) == (facts.split.names, facts.prompt_set)


@pytest.mark.parametrize('place', [0, 1000, -1])
def test_damage_is_found(described, place):
    meta, _, _ = described
    stored = meta['clip_rc']['text_embeddings']
    data = bytearray(base64.b64decode(stored['base64']))
    data[place] ^= 1
    stored['base64'] = base64.b64encode(data).decode()
    with pytest.raises(ValueError, match='damaged'):
        metadata.description(Checkpoint({}, meta, 'it'))


def test_whose_it_is(described):
    meta, _, _ = described
    assert metadata.is_ours(Checkpoint({}, meta, 'it'))
    for other in ({}, {'CLASSES': ['cat'], 'iter': 20000}):
        assert not metadata.is_ours(Checkpoint({}, other, 'it'))
        assert metadata.description(Checkpoint({}, other, 'it')) is None


def test_a_newer_format_is_refused(described):
    meta, _, _ = described
    meta['clip_rc']['format'] = 2
    for read in (metadata.is_ours, metadata.description):
        with pytest.raises(ValueError, match='format 2.*reads 1.*update'):
            read(Checkpoint({}, meta, 'it'))


@pytest.mark.parametrize('setting, used', [('inductive', ['cat']), ('transductive', ['cat', 'dog']),
                                           ('fully_supervised', ['cat', 'dog']), (None, None)])
def test_names_that_a_training_used(setting, used):
    """Inductive training never has the names of unseen classes."""
    assert metadata.Training(['cat', 'dog'], ['dog'], setting).names_used == used


@pytest.mark.parametrize('meta, used', [
    ({'CLASSES': ['cat', 'dog'], 'config': "model = dict(novel_class=[1])"}, ['cat']),
    ({'CLASSES': ['cat', 'dog'], 'config': "model = dict(novel_class=[1], self_training=True)"}, ['cat', 'dog']),
    ({'CLASSES': ['cat', 'dog']}, None), ({}, None)], ids=['inductive', 'transductive', 'no config', 'no meta'])
def test_names_that_a_training_of_the_published_code_used(meta, used):
    assert metadata.training(Checkpoint({}, meta, 'it.pth')).names_used == used
