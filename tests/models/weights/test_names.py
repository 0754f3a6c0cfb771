"""The names that other savers give to tensors: wrappers' prefixes, nests of dicts, Hugging Face's layout."""
import json
import logging

import pytest
import safetensors.torch
import torch
from mmcv.runner import load_checkpoint

from models import CLIPVisionEncoder
from models.inference import load_model
from models.text_encoder import tokenize
from models.weights import cliprc
from models.weights.clip import load_vision_tower, text_tower
from models.weights.clip_variant import text_encoder_of, variant_of
from models.weights.files import read
from models.weights.names import own_names
from tests.clip_files import clip_weights, hugging_face_weights
from tests.conftest import REPOSITORY
from tests.models.naive import close

MINIATURE = REPOSITORY / 'tools/miniature/model.safetensors'
SMALL = {'vocabulary': 60, 'text_width': 8, 'text_layers': 1, 'layers': 1}
WRAPPED = ['module.', '_orig_mod.', 'model._orig_mod.module.clip.', '_fsdp_wrapped_module.']


def prefixed(weights: dict, prefix: str) -> dict:
    return {f'{prefix}{name}': tensor for name, tensor in weights.items()}


def same(found: dict, expected: dict) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


# ---- wrappers and nests

@pytest.mark.parametrize('prefix', WRAPPED)
def test_prefixes_of_wrappers(tmp_path, prefix):
    weights = clip_weights(**SMALL)
    torch.save({'state_dict': prefixed(weights, prefix), 'epoch': 3}, tmp_path / 'clip.ckpt')
    assert same(read(tmp_path / 'clip.ckpt').weights, weights)
    tower = {name: tensor for name, tensor in weights.items() if not name.startswith('visual.')}
    assert same(own_names(prefixed(tower, prefix)), tower), 'of a text tower alone'


@pytest.mark.parametrize('weights', [
    prefixed({'layers.0.weight': torch.ones(1)}, 'model.'),
    {**prefixed(clip_weights(**SMALL), 'model.'), 'loss.weight': torch.ones(1)}, {}], ids=['other', 'mixed', 'none'])
def test_a_prefix_stays_unless_all_is_a_clip_without_it(weights):
    assert same(own_names(weights), weights)


def test_a_clip_in_a_larger_model_is_pointed_to(tmp_path):
    torch.save({'state_dict': {**prefixed(clip_weights(**SMALL), 'model.'), 'loss.weight': torch.ones(1)}},
               tmp_path / 'it.ckpt')
    found = read(tmp_path / 'it.ckpt')
    for call in (lambda: text_tower(found), lambda: load_vision_tower(None, found), lambda: variant_of(found),
                 lambda: cliprc.check_clip_rc(found)):
        with pytest.raises(ValueError, match=r"it\.ckpt .*below 'model\.' in it is one: save those tensors alone"):
            call()


@pytest.mark.parametrize('nest', [
    lambda weights: {'model': weights}, lambda weights: {'model_state_dict': weights, 'optimizer_state_dict': {}},
    lambda weights: {'state_dict': {'model': weights}}, lambda weights: {'model': {'depth': 3}, 'weights': weights},
    lambda weights: {'model_ema': clip_weights(**SMALL, seed=1), 'model': weights, 'epoch': 3}])
def test_nests(tmp_path, nest, caplog):
    weights = clip_weights(**SMALL)
    torch.save(nest(prefixed(weights, 'module.')), tmp_path / 'clip.pt')
    with caplog.at_level(logging.INFO, 'mmseg'):
        assert same(read(tmp_path / 'clip.pt').weights, weights)
    assert 'its weights are those in ' in caplog.text


@pytest.mark.parametrize('prefix', ['module.', 'model._orig_mod.module.'])
def test_a_wrapped_clip_rc(tmp_path, prefix):
    """By our own reading and by mmcv's, into a model."""
    model, slim = load_model(MINIATURE, device='cpu').model, read(MINIATURE)
    torch.save({'model': prefixed(slim.weights, prefix), 'meta': slim.meta}, tmp_path / 'it.pth')
    assert same(load_model(tmp_path / 'it.pth', device='cpu').model.state_dict(), model.state_dict())
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    torch.save({'state_dict': prefixed(slim.weights, prefix)}, tmp_path / 'it.pth')  # mmcv knows no other nest
    load_checkpoint(model, str(tmp_path / 'it.pth'), strict=True)
    assert all(torch.equal(model.state_dict()[name], tensor.float()) for name, tensor in slim.weights.items())


# ---- Hugging Face's layout

TEXTS = ['a photo of a cat', 'two dogs, and a sofa in the garden']
RECORDED = {  # by transformers 5.24.0: the first five values of each embedding of TEXTS and of two images
    'quick_gelu': ([[0.3033813, -1.9204371, -1.1591682, 1.9409761, 0.179698],
                    [-0.9786216, -2.1374736, -1.6662784, 0.5462179, 1.1261469]],
                   [[0.1525208, -0.1330698, 0.0272334, -0.1606634, -0.2157764],
                    [0.134163, -0.103747, 0.056811, -0.1608856, -0.2297639]]),
    'gelu': ([[0.3026722, -1.9205976, -1.1624544, 1.9371482, 0.1665876],
              [-0.9735061, -2.1521444, -1.6592298, 0.5362763, 1.1308516]],
             [[0.1529456, -0.1327348, 0.0284431, -0.1629743, -0.2139063],
              [0.1353193, -0.1044379, 0.0582038, -0.1629786, -0.2282209]])}
CONFIG = {'model_type': 'clip', 'text_config': {'hidden_size': 32, 'num_attention_heads': 2},
          'vision_config': {'hidden_size': 64, 'num_attention_heads': 4}}


def write_config(folder, **changes) -> None:
    """transformers' config.json; changes are of both towers."""
    config = {**CONFIG, **{tower: {**CONFIG[tower], **changes} for tower in ('text_config', 'vision_config')}}
    (folder / 'config.json').write_text(json.dumps(config))


@pytest.mark.parametrize('name', ['pytorch_model.bin', 'model.safetensors', 'wrapped.pth'])
@pytest.mark.parametrize('kind', RECORDED)
def test_embeddings_are_those_of_transformers(tmp_path, kind, name):
    weights, file = hugging_face_weights(), tmp_path / name
    if name == 'model.safetensors':
        safetensors.torch.save_file(weights, file)
    else:  # as older versions: with constants
        weights |= {f'{tower}_model.embeddings.position_ids': torch.arange(5)[None] for tower in ('text', 'vision')}
        torch.save({'model': prefixed(weights, 'clip.')} if name == 'wrapped.pth' else weights, file)
    write_config(tmp_path, **({'hidden_act': kind} if kind == 'gelu' else {}))  # transformers leave out defaults
    clip = read(file)
    texts, images = (torch.tensor(rows) for rows in RECORDED[kind])
    assert close(text_encoder_of(clip)(tokenize(TEXTS))[:, :5], texts, 2e-5)
    vision = variant_of(clip).vision
    assert vision['heads'] == 4 and vision['output_dim'] == 24
    encoder = CLIPVisionEncoder(input_resolution=16, num_tokens=0, region_level_bridge_size=0, **vision).eval()
    load_vision_tower(encoder, clip)
    encoder.prompt_norm = torch.nn.Identity()
    with torch.no_grad():
        encoder.class_embedding /= 2  # CLIP-RC adds it twice
        pixels = torch.sin(torch.arange(2 * 3 * 16 * 16) * 0.9).reshape(2, 3, 16, 16)
        assert close(encoder(pixels).cls[:, :5], images, 2e-5)


@pytest.mark.parametrize('changes', [{'hidden_act': 'gelu_new'}, {'hidden_act': ['gelu']}, {'hidden_size': 768},
                                     {'num_attention_heads': 3}, {'num_attention_heads': None},
                                     '', '[1]', '{"vision_config": 3}', '\0'])
def test_a_config_json_that_is_damaged_or_of_another_model(tmp_path, changes):
    torch.save(hugging_face_weights(vocabulary=60), tmp_path / 'pytorch_model.bin')
    if isinstance(changes, dict):
        write_config(tmp_path, **changes)
    else:
        (tmp_path / 'config.json').write_text(changes)
    with pytest.raises(ValueError, match=r'config\.json is not the config of the CLIP beside it'):
        variant_of(read(tmp_path / 'pytorch_model.bin'))


def test_files_in_several_parts(tmp_path):
    for name in ('pytorch_model-00001-of-00002.bin', 'model-00002-of-00010.safetensors'):
        safetensors.torch.save_file({'a': torch.ones(1)}, tmp_path / name)
        with pytest.raises(ValueError, match=rf'{name} is one of (2|10) files .*save it in one'):
            read(tmp_path / name)
    (tmp_path / 'model.safetensors.index.json').write_text('{"weight_map": {}}')
    with pytest.raises(ValueError, match=r'is the list of the files .*save it in one'):
        read(tmp_path / 'model.safetensors.index.json')
    safetensors.torch.save_file(clip_weights(**SMALL), tmp_path / 'model-00001-of-00001.safetensors')
    assert read(tmp_path / 'model-00001-of-00001.safetensors').weights
    with pytest.raises(ValueError, match=r'is a folder: name a file in it: model-00001-of-00001\.safetensors, '):
        read(tmp_path)
