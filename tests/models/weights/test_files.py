"""Weights in, strictly: CLIP in every file format, damaged and hostile files, embedding tables, vision towers."""
import hashlib
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from models import CLIPTextEncoder
from models.weights import openai_files
from models.weights.clip import holds_text_tower, load_vision_tower, text_tower
from models.weights.files import Checkpoint, read, read_embeddings
from tests.clip_files import clip_weights, save_torchscript
from tests.models.naive import bilinear, close, encoder

SMALL = {'vocabulary': 60, 'text_width': 8, 'text_layers': 1}
FORMATS = {
    'torchscript.pt': save_torchscript,
    'state_dict.pt': torch.save,
    'in_a_key.pth': lambda weights, path: torch.save({'state_dict': weights, 'meta': {'epoch': 1}}, path),
    'module.pth': lambda weights, path: torch.save({f'module.{name}': value for name, value in weights.items()}, path),
    'legacy.pt': lambda weights, path: torch.save(weights, path, _use_new_zipfile_serialization=False),
    'clip.safetensors': safetensors.torch.save_file,
}


def vision_encoder(**changes):
    return encoder(**{'width': 64, 'output_dim': 32, **changes})


@pytest.fixture(params=FORMATS)
def file(request, tmp_path, monkeypatch):
    """A small CLIP in each of the formats; the TorchScript archive is taken for one of OpenAI's."""
    file = tmp_path / request.param
    FORMATS[request.param](clip_weights(**SMALL), file)
    monkeypatch.setitem(openai_files.MODELS, 'small', hashlib.sha256(file.read_bytes()).hexdigest())
    return file


class Payload:
    """What a hostile pickle does when it is loaded: here it leaves a trace."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def test_every_format_gives_the_same_encoder(file):
    clip, model = clip_weights(**SMALL), vision_encoder()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_vision_tower(model, read(file))
    loaded = model.state_dict()
    assert loaded.keys() == before.keys() and all(value.dtype == torch.float32 for value in loaded.values())
    positions = clip['visual.positional_embedding'].float()  # a grid of 2x2
    for name, value in loaded.items():
        if 'prompt' in name:
            assert torch.equal(value, before[name]), name
        elif name == 'region_level_bridge':
            assert torch.equal(value, (clip['visual.class_embedding'].float() + positions[0]).expand(4, 64))
        elif name == 'positional_embedding':
            assert torch.equal(value[0], positions[0])
            assert close(value[1:].T.reshape(64, 4, 4), bilinear(positions[1:].T.reshape(64, 2, 2), (4, 4)))
        else:
            assert torch.equal(value, clip[f'visual.{name}'].float()), name


def test_every_format_gives_the_same_text_encoder(file):
    tower, clip = text_tower(read(file)), clip_weights(**SMALL)
    CLIPTextEncoder.like(tower)
    assert tower and all(torch.equal(value, clip[name].float()) and value.dtype == torch.float32
                         for name, value in tower.items())
    assert not holds_text_tower(read(file))  # of CLIP-RC


def test_region_tokens_can_be_trained_apart(tmp_path):
    model = vision_encoder()
    load_vision_tower(model, Checkpoint(clip_weights(**SMALL), {}, 'clip.pt'))
    with torch.no_grad():
        model.region_level_bridge[0] += 1
    assert not torch.equal(*model.region_level_bridge[:2])


@pytest.mark.parametrize('kept', [0, 10, 0.3, 0.9, -1])
def test_truncated_files(file, kept):
    content = file.read_bytes()
    file.write_bytes(content[:int(kept * len(content)) if 0 < kept < 1 else kept])
    with pytest.raises(ValueError, match=rf'{file.name} is (truncated|empty).*\. Fetch or copy it again\.$'):
        read(file)


@pytest.mark.parametrize('file', [name for name in FORMATS if name.endswith('.pt') and name != 'legacy.pt'],
                         indirect=True)  # the others hold no checksums
@pytest.mark.parametrize('place', [0.2, 0.5, 0.8])
def test_bytes_that_were_lost(file, place):
    """As a bad disk or a broken download leaves them: the length is right, and torch reads on."""
    content = bytearray(file.read_bytes())
    start = int(place * len(content))
    content[start:start + 64] = bytes(64)
    file.write_bytes(content)
    with pytest.raises(ValueError, match='is truncated or damaged'):
        read(file)


@pytest.mark.parametrize('content', [b'\x87\xbd\xc1\xf7z', b'M\x9e', bytes(300)])
def test_files_that_are_no_checkpoint(tmp_path, content):
    file = tmp_path / 'page.pth'
    file.write_bytes(content)
    with pytest.raises(ValueError, match='page.pth is truncated or damaged, or not a checkpoint'):
        read(file)


@pytest.mark.parametrize(('content', 'words'), [
    (b'', 'is empty'), (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n', 'git lfs pull'),
    (b'\n<!DOCTYPE html><html>not found</html>', 'is a web page'), (b'PK\x03\x04', r'damaged.*\(File is not a zip')])
def test_what_a_file_is_instead(tmp_path, content, words):
    (tmp_path / 'it.safetensors').write_bytes(content)
    with pytest.raises(ValueError, match=rf'it\.safetensors.*{words}'):
        read(tmp_path / 'it.safetensors')


def test_what_is_wrong_is_said(tmp_path):
    torch.save({'a': torch.ones(1)}, tmp_path / 'it.pth')
    with zipfile.ZipFile(tmp_path / 'it.pth') as old, zipfile.ZipFile(tmp_path / 'new.pth', 'w') as new:
        for name in old.namelist():
            new.writestr(name, b'middle' if name.endswith('byteorder') else old.read(name))
    with pytest.raises(ValueError, match=r'new\.pth .*damaged.*\(Unknown endianness type: middle\)'):
        read(tmp_path / 'new.pth')


@pytest.mark.parametrize('name', ['clip.safetensors', 'state_dict.pt', 'legacy.pt'])
def test_a_file_is_read_by_what_it_is_and_not_by_its_ending(tmp_path, name):
    file = tmp_path / ('it.pth' if name == 'clip.safetensors' else 'it.safetensors')
    FORMATS[name](clip_weights(**SMALL), file)
    assert read(file).weights.keys() == clip_weights(**SMALL).keys()


def test_an_unknown_torchscript_archive_is_not_run(tmp_path, monkeypatch):
    """The message has the command that converts it."""
    file = tmp_path / 'it is.pt'
    save_torchscript(clip_weights(**SMALL), file)
    with pytest.raises(ValueError, match=r'it is\.pt is a TorchScript archive, .* trust its source') as error:
        read(file)
    assert '\n' not in str(error.value)
    monkeypatch.chdir(tmp_path)
    subprocess.run(str(error.value).split(': ')[-1].replace('python', sys.executable, 1), shell=True, check=True)
    converted = read('weights.pt').weights
    assert converted.keys() == clip_weights(**SMALL).keys()
    assert all(torch.equal(converted[name], tensor) for name, tensor in clip_weights(**SMALL).items())


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'it.pth')
    with pytest.raises(ValueError, match=r'it\.pth is not a regular file'):
        read(tmp_path / 'it.pth')


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match='ViT-B-16.pt'):
        read(tmp_path / 'ViT-B-16.pt')


@pytest.mark.parametrize('content', [[1, 2], {}, {'a': 1}, torch.zeros(2), {0: torch.zeros(2)}, {'state_dict': [1]},
                                     {'state_dict': None}])
def test_files_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / 'other.pt')
    with pytest.raises(ValueError, match='other.pt holds no state dict'):
        read(tmp_path / 'other.pt')


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('place', ['weights', 'meta'])
def test_code_in_a_file_is_not_run(tmp_path, place, zipped):
    trace = tmp_path / 'trace'
    content = {'state_dict': clip_weights(**SMALL), 'meta': {}}
    if place == 'weights':
        content['state_dict']['x'] = Payload(trace)
    else:
        content['meta']['hook_msgs'] = {'best_ckpt': [Payload(trace)]}
    torch.save(content, tmp_path / 'hostile.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match='hostile.pth.*safely'):
        read(tmp_path / 'hostile.pth')
    assert not trace.exists()


def test_meta_with_numbers_of_numpy(tmp_path):
    meta = {'best': np.float64(0.5), 'hook_msgs': {'score': np.float32(0.25)}, 'epoch': np.int64(3), 'text': 'a'}
    torch.save({'state_dict': clip_weights(**SMALL), 'meta': meta}, tmp_path / 'best.pth')
    checkpoint = read(str(tmp_path / 'best.pth'))
    assert checkpoint.meta == meta and checkpoint.path.endswith('best.pth')


@pytest.mark.parametrize(('clip', 'model', 'names'), [
    ({'width': 32}, {}, ['class_embedding (32,) instead of (64,)', 'ln_pre.weight', 'proj (32, 32)']),
    ({'embed': 16}, {}, ['proj (64, 16) instead of (64, 32)']),
    ({'patch': 8}, {}, ['conv1.weight (64, 3, 8, 8) instead of (64, 3, 16, 16)']),
    ({'layers': 2}, {}, ['missing: transformer.resblocks.2.']),
    ({'layers': 4}, {}, ['not known here: transformer.resblocks.3.'])])
def test_clip_of_another_shape(clip, model, names):
    with pytest.raises(ValueError, match=r'some\.pt') as error:
        load_vision_tower(vision_encoder(**model), Checkpoint(clip_weights(**SMALL, **clip), {}, 'some.pt'))
    assert all(name in str(error.value) for name in names)


@pytest.mark.parametrize('name', ['visual.conv1.weight', 'visual.transformer.resblocks.1.ln_2.bias', 'visual.proj'])
def test_one_tensor_more_or_less(name):
    weights = clip_weights(**SMALL)
    weights[f'{name}.twice'] = weights[name]
    with pytest.raises(ValueError, match=f'not known here: {name.removeprefix("visual.")}.twice'):
        load_vision_tower(vision_encoder(), Checkpoint(weights, {}, 'clip.pt'))
    del weights[name], weights[f'{name}.twice']
    with pytest.raises(ValueError, match=f'missing: {name.removeprefix("visual.")}\n'):
        load_vision_tower(vision_encoder(), Checkpoint(weights, {}, 'clip.pt'))


@pytest.mark.parametrize('names', [['fc.weight'], ['visual.attnpool.positional_embedding', 'visual.conv1.weight']])
def test_not_a_clip_transformer(names):
    checkpoint = Checkpoint(dict.fromkeys(names, torch.zeros(2, 2)), {}, 'resnet.pt')
    with pytest.raises(ValueError, match=r'resnet\.pt .*CLIP ViT'):
        load_vision_tower(vision_encoder(), checkpoint)
    with pytest.raises(ValueError, match=r'resnet\.pt .*text encoder'):
        text_tower(checkpoint)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_embeddings_are_read_as_stored(tmp_path, dtype):
    table = (0.9995 * np.eye(3, 4)).astype(dtype)
    np.save(tmp_path / 'rows.npy', table)
    read_table = read_embeddings(tmp_path / 'rows.npy')
    assert read_table.dtype == torch.float32 and np.array_equal(read_table.numpy(), table.astype(np.float32))


@pytest.mark.parametrize('content', [np.zeros(4), np.zeros((2, 3, 4)), np.zeros((3, 4), int), np.array([['a']])])
def test_tables_that_are_none(tmp_path, content):
    np.save(tmp_path / 'rows.npy', content)
    with pytest.raises(ValueError, match='rows.npy'):
        read_embeddings(tmp_path / 'rows.npy')


@pytest.mark.parametrize('wrong', [0, np.nan, np.inf])
def test_rows_that_are_no_embeddings(tmp_path, wrong):
    table = np.eye(3, 4)
    table[1] = wrong
    np.save(tmp_path / 'rows.npy', table)
    with pytest.raises(ValueError, match=r'rows\.npy: row 1'):
        read_embeddings(tmp_path / 'rows.npy')


@pytest.mark.parametrize('kept', [0, 5, 100, -1])
def test_truncated_tables(tmp_path, kept):
    np.save(tmp_path / 'whole.npy', np.zeros((3, 4)))
    (tmp_path / 'rows.npy').write_bytes((tmp_path / 'whole.npy').read_bytes()[:kept])
    with pytest.raises(ValueError, match='rows.npy'):
        read_embeddings(tmp_path / 'rows.npy')


def test_other_files_in_place_of_tables(tmp_path):
    np.savez(tmp_path / 'archive.npz', np.zeros((3, 4)))
    np.save(tmp_path / 'hostile.npy', np.array([[Payload(tmp_path / 'trace')]]), allow_pickle=True)
    with pytest.raises(ValueError, match='is a folder'):
        read_embeddings(tmp_path)
    for name in ('archive.npz', 'hostile.npy'):
        with pytest.raises(ValueError, match=name):
            read_embeddings(tmp_path / name)
    assert not (tmp_path / 'trace').exists()
    with pytest.raises(ValueError, match=r'missing\.npy.*load_text_embedding=None'):
        read_embeddings(tmp_path / 'missing.npy')


@pytest.mark.parametrize(('name', 'shape'), [('rubbish', (2,)), ('visual.prompt_embeddings', (1, 3, 64)),
                                             ('visual.region_level_bridge', (4, 64)), ('visual.rubbish', (2,)),
                                             ('visual.positional_embedding', (4, 64)),
                                             ('visual.positional_embedding', (5, 32)),
                                             ('visual.class_embedding', (32,))])
def test_nothing_strange_in_a_clip_file(tmp_path, name, shape):
    torch.save({**clip_weights(), name: torch.zeros(shape)}, tmp_path / 'clip.pt')
    with pytest.raises(ValueError, match=rf'(?s)clip.pt.*{name.removeprefix("visual.")}'):
        load_vision_tower(vision_encoder(), read(tmp_path / 'clip.pt'))


@pytest.mark.parametrize('name', ['text_projection', 'ln_final.bias', 'positional_embedding'])
def test_a_part_of_a_text_tower_is_none(tmp_path, name):
    weights = clip_weights()
    del weights[name]
    torch.save(weights, tmp_path / 'clip.pt')
    with pytest.raises(ValueError, match=f'clip.pt holds no CLIP text encoder: {name}'):
        text_tower(read(tmp_path / 'clip.pt'))


# ---- numbers that are no weights

@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn])
def test_weights_of_every_floating_type(tmp_path, dtype):
    weights = {name: value.to(dtype) if value.is_floating_point() else value
               for name, value in clip_weights(**SMALL).items()}
    torch.save(weights, tmp_path / 'clip.pt')
    model = vision_encoder()
    load_vision_tower(model, read(tmp_path / 'clip.pt'))
    assert torch.equal(model.proj, weights['visual.proj'].float())
    assert torch.equal(text_tower(read(tmp_path / 'clip.pt'))['text_projection'], weights['text_projection'].float())


@pytest.mark.parametrize(('change', 'words'), [
    (lambda value: value.to(torch.int8), r'\(torch\.int8\).*quantised'),
    (lambda value: value.to(torch.complex64), r'\(torch\.complex64\)'),
    (lambda value: torch.full_like(value, float('nan')), 'has values that are not finite'),
    (lambda value: torch.full(value.shape, 1e300, dtype=torch.float64), 'not finite')])
def test_numbers_that_are_no_weights(tmp_path, change, words):
    for name, load in (('visual.proj', lambda clip: load_vision_tower(vision_encoder(), clip)),
                       ('text_projection', text_tower)):
        weights = clip_weights(**SMALL)
        torch.save({**weights, name: change(weights[name])}, tmp_path / 'clip.pt')
        with pytest.raises(ValueError, match=rf'{name.removeprefix("visual.")} .*{words}') as error:
            load(read(tmp_path / 'clip.pt'))
        assert str(tmp_path / 'clip.pt') in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('value', [
    torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr(), torch.empty(3, device='meta'),
    torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)], ids=['sparse', 'csr', 'meta', 'quantised'])
def test_tensors_that_are_no_tables(tmp_path, value):
    torch.save({**clip_weights(**SMALL), 'visual.proj': value}, tmp_path / 'clip.pt')
    with pytest.raises(ValueError, match=r'clip\.pt has tensors that are sparse, quantised or.*visual\.proj') as error:
        read(tmp_path / 'clip.pt')
    assert 'weights_only=False' not in str(error.value), 'that would not help'
