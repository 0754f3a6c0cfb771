"""A model from a checkpoint, by load_model or by mmseg, from anywhere, with the text tower it belongs to."""
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmcv import Config
from mmseg.apis import inference_segmentor, init_segmentor
from PIL import Image

from models.errors import UserError
from models.inference import load_model
from models.precision import set_tf32
from models.text_encoder import embed_class_names
from models.weights.clip_variant import text_encoder_of
from models.weights.files import Checkpoint
from models.weights.names import TEXT_TOWER
from tests.clip_files import clip_weights
from tests.conftest import REPOSITORY, golden_config
from tests.models.inference.conftest import MODEL


@pytest.fixture(scope='module')
def tiny(trained):
    """A checkpoint of ours, of a training of 4 iterations."""
    return trained / 'iter_4.pth'


@pytest.fixture(scope='module')
def noise():
    return np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)


def test_the_metadata_of_a_checkpoint(tiny):
    model = load_model(tiny)
    assert model.class_names[0] == 'aeroplane' and len(model.class_names) == 20 and len(model.seen_names) == 15
    assert model.prompts == 'single' and model.device.type == ('cuda' if torch.cuda.is_available() else 'cpu')
    assert not model.model.training


@pytest.mark.parametrize('allowed', [False, True])
def test_tf32_is_what_the_config_says(tiny, tiny_configs, tf32, allowed):
    set_tf32(not allowed)
    config = Config.fromfile(str(tiny_configs['inductive']))
    config.tf32 = allowed
    load_model(tiny, config)
    assert tf32() == (allowed, allowed)


def test_tf32_that_is_neither_on_nor_off(tiny, tiny_configs):
    config = Config.fromfile(str(tiny_configs['inductive']))
    config.tf32 = 'yes'
    with pytest.raises(UserError, match="tf32='yes': True or False is needed"):
        load_model(tiny, config)


def test_the_labels_are_those_of_test_py(run, tiny, tiny_configs, voc_root, tmp_path):
    import pickle
    run('test.py', tiny_configs['inductive'], tiny, '--out', tmp_path / 'labels.pkl', '--device', 'cpu')
    wanted = pickle.loads((tmp_path / 'labels.pkl').read_bytes())
    images = sorted((voc_root / 'JPEGImages').glob('val_*.jpg'))
    for config in (None, tiny_configs['inductive'], Config.fromfile(str(tiny_configs['inductive']))):
        results = load_model(tiny, config, device='cpu').segment(images)
        # two JPEG decoders differ by a grey level here and there
        assert all((result.labels == labels).mean() > 0.98 for result, labels in zip(results, wanted, strict=True))


@pytest.fixture
def official(tmp_path, noise):
    """A checkpoint as the published code saves them, and its text tower's weights."""
    from mmseg.models import build_segmentor
    model = golden_config('inductive')
    names = ['cat', 'dog', 'sofa', 'tree', 'sky', 'sheep']
    model['load_text_embedding'] = None
    del model['class_names']  # which the published scripts put there
    weights = build_segmentor(Config(model)._cfg_dict).state_dict()
    tower = {f'text_encoder.{name}': tensor.float() for name, tensor in clip_weights(seed=3).items()
             if name.startswith(TEXT_TOWER)}
    norm = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
    steps = [dict(type='Resize', keep_ratio=True, min_size=64), dict(type='RandomFlip'), dict(type='Normalize', **norm),
             dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])]
    pipeline = [dict(type='LoadImageFromFile'),
                dict(type='MultiScaleFlipAug', img_scale=(256, 64), flip=False, transforms=steps)]
    config = Config(dict(model=model, data=dict(test=dict(type='ZeroPascalVOCDataset20', pipeline=pipeline))))
    torch.save({'state_dict': {**weights, **tower}, 'meta': {'CLASSES': names, 'PALETTE': [[0, 0, 0]] * 6,
                                                            'config': config.pretty_text}}, tmp_path / 'official.pth')
    return tmp_path / 'official.pth', Checkpoint(tower, {}, 'tower')


def test_an_official_checkpoint(official, noise):
    """Its own text tower, its config read as data."""
    model = load_model(official[0])
    assert model.class_names == ('cat', 'dog', 'sofa', 'tree', 'sky', 'sheep')
    novel = golden_config('inductive')['novel_class']
    assert model.seen_names == tuple(name for index, name in enumerate(model.class_names) if index not in novel)
    names = ['cat', 'pot, flower pot']
    encoder = text_encoder_of(official[1], {'text_encoder': {'transformer_heads': 4}})
    wanted = embed_class_names(encoder, [['cat'], ['pot', 'flower pot']], ['a photo of a {}'])
    assert torch.allclose(model.embed(names), wanted, atol=1e-6)
    assert set(np.unique(model.segment(noise, names).labels)) <= {0, 1}


def test_the_text_tower_of_a_clip_file(tiny, clip_file, noise, tmp_path):
    """The named file, else the config's; a missing one is an error when a new class name needs it."""
    config = Config.fromfile(str(REPOSITORY / 'configs/voc12/clip_rc_zero_vit-b_512x512_40k_voc_10_16.py'))
    config.model = load_model(tiny).config.model.copy()
    config.data.test.pipeline = load_model(tiny).config.data.test.pipeline
    wanted = load_model(tiny).embed(['balloon'])
    config.model.pretrained = config.model.pretrained_text = str(tmp_path / 'gone.pt')
    model = load_model(tiny, config)
    model.segment(noise, ['cat', 'dog'])  # classes of the training
    with pytest.raises(ValueError, match=r'(?s)no CLIP file .*gone.pt.*holds no text tower.*--clip'):
        model.segment(noise, ['cat', 'balloon'])
    assert torch.equal(load_model(tiny, config, clip=clip_file).embed(['balloon']), wanted)
    with pytest.raises(ValueError, match='no CLIP file absent.pt'):
        load_model(tiny, clip='absent.pt').embed(['balloon'])


def test_another_clip_is_refused(tiny, tmp_path):
    torch.save(clip_weights(seed=9), tmp_path / 'other.pt')
    with pytest.raises(ValueError, match=r'other.pt is not the CLIP of the model.*aeroplane.*cosine'):
        load_model(tiny, clip=tmp_path / 'other.pt').embed(['balloon'])


@pytest.mark.parametrize(('change', 'message'), [
    ({'checkpoint': 'missing.pth'}, 'no file missing.pth'), ({'config': 'missing.py'}, 'no config file missing.py'),
    ({'checkpoint': REPOSITORY / 'tools/miniature/clip.pt'}, 'is CLIP itself|does not say how it was trained'),
    ({'device': 'gpu'}, "device='gpu'"), ({'device': 'cuda:99'}, 'PyTorch sees'),
    ({'config': REPOSITORY / 'configs/_base_/models/clip_rc.py'}, 'no complete `model` and `data`'),
    ({'config': REPOSITORY / 'configs/miniature/inductive.py'}, 'was trained with model.backbone.heads=4')])
def test_files_and_options_that_do_not_fit(tiny, change, message):
    with pytest.raises(ValueError, match=message):
        load_model(**{'checkpoint': tiny, **change})


# ---- mmseg's own functions

def test_init_segmentor_of_an_official_checkpoint(official, noise, tmp_path):
    """Official configs name a file of embeddings; mmseg and torch read the rest."""
    config = load_model(official[0]).config
    np.save(tmp_path / 'rows.npy', np.eye(6, 32, dtype=np.float32))
    config.model.load_text_embedding = str(tmp_path / 'rows.npy')
    model = init_segmentor(config, str(official[0]), device='cpu')
    assert model.CLASSES[0] == 'cat'
    labels, = inference_segmentor(model, noise[..., ::-1].copy())
    assert labels.shape == noise.shape[:2]


# ---- from another folder, beside another package named datasets

USE = '''
import sys
import datasets as theirs
sys.path.append({repository!r})
from models.inference import load_model
result = load_model({model!r}).segment('it.png', ['red dots', 'balloon'])
result.save('out')
import datasets
assert datasets is theirs and datasets.NAME == 'decoy'
print(result.labels.shape)
'''


def test_beside_a_package_named_datasets(scene, tmp_path):
    packages = tmp_path / 'packages'
    (packages / 'datasets').mkdir(parents=True)
    (packages / 'datasets/__init__.py').write_text("NAME = 'decoy'\n")
    Image.fromarray(scene.image).save(tmp_path / 'it.png')
    (tmp_path / 'use.py').write_text(USE.format(repository=str(REPOSITORY), model=str(MODEL)))
    done = subprocess.run([sys.executable, 'use.py'], cwd=tmp_path, env={'PYTHONPATH': str(packages), 'PATH': ''},
                          capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == '(128, 128)\n', done.stdout + done.stderr
    # torch 2.6 prints this line where there is a CUDA compiler but no GPU.
    lines = [line for line in done.stderr.splitlines() if not line.startswith('No CUDA runtime is found')]
    assert lines and all("the miniature's model, which knows only its own drawn world" in line for line in lines)
    assert len(json.loads((tmp_path / 'out/result.json').read_text())['classes']) == 2


def test_the_test_data_of_a_config():
    """Of several datasets the first is used."""
    config = Config.fromfile(str(REPOSITORY / 'configs/miniature/inductive.py'))
    one = config.data.test
    for test in ([one, one], {'type': 'ConcatDataset', 'datasets': [one]}):
        config.data.test = test
        assert load_model(MODEL, config).class_names
    for test in (None, [], {}):
        config.data.test = test
        with pytest.raises(UserError, match=r'no data\.test with a pipeline'):
            load_model(MODEL, config)
