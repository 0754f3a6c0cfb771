"""What a config leaves out of its CLIP is filled in; a model on another CLIP trains, and is tested without its file."""
import numpy as np
import pytest
import torch
from mmcv import Config

from models.text_encoder import embed_class_names
from models.weights.clip import INTEGERS_OF_OPENAI
from models.weights.clip_sizes import SIZES, fill_in
from models.weights.clip_variant import text_encoder_of
from models.weights.files import Checkpoint
from tests.clip_files import clip_weights
from tests.conftest import REPOSITORY
from tools.engine.build import build_model, describe

LEFT_OUT = {part: dict.fromkeys(keys) for part, keys in SIZES.items()}
OTHER = {'width': 128, 'layers': 2, 'embed': 48, 'patch': 8, 'resolution': 40, 'text_width': 64, 'text_layers': 1}
OF_OTHER = {'patch_size': 8, 'width': 128, 'layers': 2, 'heads': 2, 'output_dim': 48}
TEXT_OF_OTHER = {'context_length': 77, 'vocab_size': 49408, 'transformer_width': 64, 'transformer_heads': 1,
                 'transformer_layers': 1, 'embed_dim': 48}


@pytest.fixture
def open_clip_file(tmp_path):
    """Of another shape than the one that the tiny configs are for."""
    torch.save({name: tensor for name, tensor in clip_weights(**OTHER).items() if name not in INTEGERS_OF_OPENAI},
               tmp_path / 'other.bin')
    return tmp_path / 'other.bin'


@pytest.fixture
def config(tiny_configs, open_clip_file):
    """A config that leaves out all that is CLIP's; its CLIP has plain GELU, and no name."""
    config = Config.fromfile(str(tiny_configs['inductive']))
    config.merge_from_dict({'model': {**LEFT_OUT, 'pretrained': str(open_clip_file),
                                      'pretrained_text': str(open_clip_file)}})
    config.model.backbone.gelu = 'plain'
    return config


def filled(config, checkpoint=None) -> dict:
    fill_in(config, checkpoint)
    return {part: {key: value for key, value in config.model[part].items() if key in SIZES[part]} for part in SIZES}


# ---- from the CLIP file

def test_all_sizes_come_from_the_file(config):
    assert filled(config) == {'backbone': {**OF_OTHER, 'gelu': 'plain'}, 'decode_head': {'in_channels': 48},
                              'text_encoder': {**TEXT_OF_OTHER, 'gelu': 'plain'}}
    model = build_model(config)
    model.init_weights()
    assert torch.equal(model.backbone.conv1.weight, clip_weights(**OTHER)['visual.conv1.weight'].float())


def test_what_the_config_says_stays(config):
    config.model.backbone.heads = 4
    config.model.text_encoder.transformer_heads = 2
    found = filled(config)
    assert found['backbone']['heads'] == 4 and found['text_encoder']['transformer_heads'] == 2
    assert found['backbone']['width'] == 128


def test_a_whole_config_needs_no_file(tiny_configs):
    """As official ones, which say neither heads nor GELU."""
    config = Config.fromfile(str(tiny_configs['inductive']))
    config.model.pretrained = config.model.pretrained_text = 'missing.pt'
    config.model.backbone.update(width=768, output_dim=512, heads=None)
    config.model.decode_head.in_channels = 512
    with torch.device('meta'):
        model = build_model(config)
    block = model.backbone.transformer.resblocks[0]
    assert block.attn.heads == 12 and 'gelu' not in config.model.backbone
    config.model.backbone.width = None
    with pytest.raises(ValueError, match='(?s)no CLIP file missing.pt.*download.py'):
        build_model(config)


# ---- from the checkpoint

def ours(config) -> Checkpoint:
    model = build_model(config)
    model.class_head.set_classes(20, torch.ones(20, config.model.decode_head.in_channels))
    return Checkpoint(model.state_dict(), {'clip_rc': describe(model, config)}, 'ours.pth')


def test_our_checkpoint_tells_all(config, open_clip_file):
    config.model.clip_name = None
    other = config.copy()
    expected, checkpoint = filled(config), ours(config)
    open_clip_file.unlink()
    other.model.backbone.gelu = None
    assert filled(other, checkpoint) == expected


@pytest.mark.parametrize(('key', 'value'), [('heads', 4), ('gelu', 'quick')])
def test_what_contradicts_our_checkpoint(config, key, value):
    checkpoint = ours(config)
    config.model.backbone[key] = value
    with pytest.raises(ValueError, match=f'ours.pth was trained with model.backbone.{key}=.*says {value}'):
        build_model(config, checkpoint)


def test_the_tensors_of_an_official_checkpoint(config):
    config.model.backbone.gelu = None
    weights = {name.replace('visual.', 'backbone.'): value for name, value in clip_weights(**OTHER).items()
               if name.startswith('visual.')}
    found = filled(config, Checkpoint(weights, {}, 'official.pth'))
    assert found['backbone'] == {**OF_OTHER, 'gelu': 'quick'} and found['decode_head'] == {'in_channels': 48}
    config.model.backbone.width = None
    with pytest.raises(ValueError, match='official.pth does not show them'):
        fill_in(config, Checkpoint({'backbone.layer1.conv1.weight': torch.ones(2)}, {}, 'official.pth'))


# ---- the scripts

CUSTOM = '''
_base_ = '{repository}/configs/custom/example.py'
model = dict(
    pretrained='{clip}', pretrained_text='{clip}',
    backbone=dict(gelu=None, **{backbone}), text_encoder=dict({text}), decode_head=dict(in_channels=None))
runner = dict(max_iters=4)
log_config = dict(interval=1)
checkpoint_config = dict(interval=4)
evaluation = dict(interval=100)
'''


def test_the_miniature_trains_on_another_clip(call, open_clip_file, tmp_path):
    backbone = dict.fromkeys(('patch_size', 'width', 'layers', 'heads', 'output_dim'))
    (tmp_path / 'mine.py').write_text(CUSTOM.format(
        repository=REPOSITORY, clip=open_clip_file, backbone=backbone,
        text=', '.join(f'{key}=None' for key in SIZES['text_encoder'])))
    command = ['tools/train.py', tmp_path / 'mine.py', '--work-dir', tmp_path / 'work', '--seed', 1]
    said = call(*command, '--cfg-options', 'model.backbone.gelu=plain').stderr
    losses = [float(line.split(' loss: ')[1].split(',')[0]) for line in said.splitlines() if ' loss: ' in line]
    assert len(losses) == 4 and np.isfinite(losses).all()
    model = torch.load(tmp_path / 'work/iter_4.pth', weights_only=True)['meta']['clip_rc']['config']['model']
    assert OF_OTHER.items() <= model['backbone'].items() and TEXT_OF_OTHER.items() <= model['text_encoder'].items()
    assert model['backbone']['gelu'] == model['text_encoder']['gelu'] == 'plain'
    open_clip_file.unlink()
    tested = call('test.py', tmp_path / 'mine.py', tmp_path / 'work/iter_4.pth', '--eval', 'mIoU')
    assert 'hIoU' in tested.stdout + tested.stderr


def test_text_embeddings_of_a_clip_of_open_clip(call, open_clip_file, tmp_path):
    """Its GELU is plain, which changes them."""
    (tmp_path / 'config.py').write_text(CUSTOM.format(repository=REPOSITORY, clip=open_clip_file, backbone={},
                                                      text='transformer_heads=None, gelu="plain"'))
    call('tools/text_embeddings.py', tmp_path / 'config.py', '--file', tmp_path / 'rows.npy')
    classes = ['red', 'yellow', 'green', 'blue', 'purple']
    expected = {gelu: embed_class_names(text_encoder_of(Checkpoint(clip_weights(**OTHER), {}, ''), {
        'backbone': {'gelu': gelu}}), classes, ['a photo of a {}']).numpy() for gelu in ('quick', 'plain')}
    rows = np.load(tmp_path / 'rows.npy')
    assert np.abs(rows - expected['plain']).max() < 1e-5 < np.abs(rows - expected['quick']).max()
