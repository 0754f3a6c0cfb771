"""Weights in, strictly: CLIP in every file format, damaged and hostile files, embedding tables, vision towers."""
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch

from models.weights import published_files
from models.weights.clip import holds_text_tower, load_vision_tower, text_tower
from models.weights.clip_variant import text_encoder_of
from models.weights.files import Checkpoint, read, read_embeddings
from tests.clip_files import clip_weights, save_torchscript
from tests.models.naive import close, encoder

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
    monkeypatch.setitem(published_files.MODELS, 'small', hashlib.sha256(file.read_bytes()).hexdigest())
    return file


def test_every_format_gives_the_same_encoders(file, monkeypatch):
    monkeypatch.setattr('models.weights.clip_variant.VOCABULARY', SMALL['vocabulary'])
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
            assert close(value[1:].T.reshape(1, 64, 4, 4), torch.nn.functional.interpolate(
                positions[1:].T.reshape(1, 64, 2, 2).float(), (4, 4), mode='bilinear', align_corners=False))
        else:
            assert torch.equal(value, clip[f'visual.{name}'].float()), name
    tower = text_tower(read(file))
    text_encoder_of(read(file))
    assert tower and all(torch.equal(value, clip[name].float()) and value.dtype == torch.float32
                         for name, value in tower.items())
    assert not holds_text_tower(read(file))  # of CLIP-RC


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


@pytest.mark.parametrize('content', [[1, 2], {}, {'a': 1}, torch.zeros(2), {0: torch.zeros(2)}, {'state_dict': [1]},
                                     {'state_dict': None}])
def test_files_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / 'other.pt')
    with pytest.raises(ValueError, match='other.pt holds no state dict'):
        read(tmp_path / 'other.pt')


@pytest.mark.parametrize(('clip', 'names'), [
    ({'width': 32}, ['class_embedding (32,) instead of (64,)', 'ln_pre.weight', 'proj (32, 32)']),
    ({'patch': 8}, ['conv1.weight (64, 3, 8, 8) instead of (64, 3, 16, 16)']),
    ({'layers': 2}, ['missing: transformer.resblocks.2.']),
    ({'layers': 4}, ['not known here: transformer.resblocks.3.'])])
def test_clip_of_another_shape(clip, names):
    with pytest.raises(ValueError, match=r'some\.pt') as error:
        load_vision_tower(vision_encoder(), Checkpoint(clip_weights(**SMALL, **clip), {}, 'some.pt'))
    assert all(name in str(error.value) for name in names)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_embeddings_are_read_as_stored(tmp_path, dtype):
    table = (0.9995 * np.eye(3, 4)).astype(dtype)
    np.save(tmp_path / 'rows.npy', table)
    read_table = read_embeddings(tmp_path / 'rows.npy')
    assert read_table.dtype == torch.float32 and np.array_equal(read_table.numpy(), table.astype(np.float32))


@pytest.mark.parametrize('content', [
    np.zeros(4), np.zeros((2, 3, 4)), np.zeros((3, 4), int), np.array([['a']]),
    *(np.array([[1., 2.], [number, number]]) for number in (0, np.nan, np.inf))], ids=str)
def test_files_that_are_not_tables_of_embeddings(tmp_path, content):
    np.save(tmp_path / 'rows.npy', content)
    message = r'rows\.npy: row 1' if content.shape == (2, 2) else r'rows\.npy is not a \(classes, width\) table'
    with pytest.raises(ValueError, match=message):
        read_embeddings(tmp_path / 'rows.npy')


def test_damaged_and_missing_tables(tmp_path):
    np.save(tmp_path / 'whole.npy', np.zeros((3, 4)))
    np.savez(tmp_path / 'archive.npy.npz', np.zeros((3, 4)))
    whole = (tmp_path / 'whole.npy').read_bytes()
    for content in (b'', whole[:5], whole[:100], whole[:-1], (tmp_path / 'archive.npy.npz').read_bytes()):
        (tmp_path / 'rows.npy').write_bytes(content)
        with pytest.raises(ValueError, match=r'rows\.npy is truncated or not a \.npy table'):
            read_embeddings(tmp_path / 'rows.npy')
    with pytest.raises(ValueError, match='is a folder'):
        read_embeddings(tmp_path)
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
def test_a_part_of_a_text_tower(tmp_path, name):
    weights = clip_weights()
    del weights[name]
    torch.save(weights, tmp_path / 'clip.pt')
    with pytest.raises(ValueError, match=f'clip.pt holds no CLIP text encoder: {name}'):
        text_tower(read(tmp_path / 'clip.pt'))


# ---- types of numbers

@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn])
def test_weights_of_every_floating_type(tmp_path, dtype):
    weights = {name: value.to(dtype) if value.is_floating_point() else value
               for name, value in clip_weights(**SMALL).items()}
    torch.save({**weights, 'visual.proj': torch.nn.Parameter(weights['visual.proj'])}, tmp_path / 'clip.pt')
    model = vision_encoder()
    load_vision_tower(model, read(tmp_path / 'clip.pt'))
    assert torch.equal(model.proj, weights['visual.proj'].float())
    assert torch.equal(text_tower(read(tmp_path / 'clip.pt'))['text_projection'], weights['text_projection'].float())


@pytest.mark.parametrize(('change', 'message'), [
    (lambda value: value.to(torch.int8), r'\(torch\.int8\).*quantised'),
    (lambda value: torch.full_like(value, float('nan')), 'has values that are not finite'),
    (lambda value: torch.full(value.shape, 1e300, dtype=torch.float64), 'not finite')])
def test_numbers_that_cannot_be_weights(tmp_path, change, message):
    for name, load in (('visual.proj', lambda clip: load_vision_tower(vision_encoder(), clip)),
                       ('text_projection', text_tower)):
        weights = clip_weights(**SMALL)
        torch.save({**weights, name: change(weights[name])}, tmp_path / 'clip.pt')
        with pytest.raises(ValueError, match=rf'{name.removeprefix("visual.")} .*{message}') as error:
            load(read(tmp_path / 'clip.pt'))
        assert str(tmp_path / 'clip.pt') in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('value', [
    torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr(), torch.empty(3, device='meta'),
    torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)], ids=['sparse', 'csr', 'meta', 'quantised'])
def test_tensors_that_are_not_dense(tmp_path, value):
    torch.save({**clip_weights(**SMALL), 'visual.proj': value}, tmp_path / 'clip.pt')
    with pytest.raises(ValueError, match=r'clip\.pt has tensors that are sparse, quantised or.*visual\.proj') as error:
        read(tmp_path / 'clip.pt')
    assert 'weights_only=False' not in str(error.value), 'that would not help'
