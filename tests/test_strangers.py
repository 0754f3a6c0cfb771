"""Files from strangers: no code in them is run, whichever command reads them, and small ones take little memory.

Every hostile file here would make a folder, `trace`, and does where it is read without care.
"""
import argparse
import collections
import json
import os
import pathlib
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv import ConfigDict
from torch import nn

from models.inference import load_model
from models.weights import files
from tests.clip_files import clip_weights
from tests.conftest import REPOSITORY
from tests.test_fuzz import peak
from tools.engine.errors import plain_message

SMALL = {'vocabulary': 60, 'text_width': 8, 'text_layers': 1}


class Payload:
    def __init__(self, trace: Path):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.fixture
def trace(tmp_path):
    return tmp_path / 'trace'


def hostile_checkpoint(path: Path, trace: Path, **options) -> Path:
    content = {'state_dict': {**clip_weights(**SMALL), 'x': Payload(trace)}, 'meta': {'CLASSES': ['cat']}}
    torch.save(content, path, **options)
    return path


# ---- the payloads work

def test_the_files_do_harm_where_they_are_read_without_care(tmp_path, trace):
    for options in ({}, {'_use_new_zipfile_serialization': False}):
        torch.load(hostile_checkpoint(tmp_path / 'it.pth', trace, **options), weights_only=False)
        trace.rmdir()
    np.save(tmp_path / 'it.npy', np.array([[Payload(trace)]]), allow_pickle=True)
    np.load(tmp_path / 'it.npy', allow_pickle=True)
    assert trace.is_dir()


# ---- every way in

TRAIN = 'tools/train.py'
SCRIPTS = {
    'test': ('test.py', lambda file, config: [config, file, '--eval', 'mIoU']),
    'load': (TRAIN, lambda file, config: [config, '--load-from', file, '--work-dir', file.parent]),
    'resume': (TRAIN, lambda file, config: [config, '--resume-from', file, '--work-dir', file.parent]),
    'pretrained': (TRAIN, lambda file, config: [config, '--work-dir', file.parent, '--cfg-options',
                                                f'model.pretrained={file}']),
    'inspect': ('tools/inspect_checkpoint.py', lambda file, config: [file]),
    'export': ('tools/export.py', lambda file, config: [file, '--slim', '--out', file.parent]),
    'embeddings': ('tools/text_embeddings.py', lambda file, config: ['voc12', '--clip', file, '--file',
                                                                     file.with_suffix('.npy')]),
    'demo': ('tools/demo.py', lambda file, config: [REPOSITORY / '.github/assets/method.png', '--checkpoint', file,
                                                    '--out', file.parent]),
}
REFUSED = r'it\.pth cannot be read safely: .* it has posix\.mkdir,.*torch\.save'


@pytest.mark.parametrize('way', SCRIPTS)
def test_scripts_do_not_run_a_checkpoint(fails, tiny_configs, tmp_path, trace, way):
    script, arguments = SCRIPTS[way]
    file = hostile_checkpoint(tmp_path / 'it.pth', trace)
    assert re.search(REFUSED, fails(script, *arguments(file, tiny_configs['inductive'])))
    assert not trace.exists()


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('read', [load_model, files.read_content])
def test_calls_do_not_run_a_checkpoint(tmp_path, trace, read, zipped, monkeypatch):
    """A setting of the environment changes nothing."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    file = hostile_checkpoint(tmp_path / 'it.pth', trace, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=REFUSED):
        read(file)
    assert not trace.exists()


def test_embeddings_are_read_and_not_run(tmp_path, trace):
    np.save(tmp_path / 'it.npy', np.array([[Payload(trace)]]), allow_pickle=True)
    with pytest.raises(ValueError, match=r'it\.npy is truncated or not a \.npy table'):
        files.read_embeddings(tmp_path / 'it.npy')
    assert not trace.exists()


# ---- the content of a file

def test_numbers_of_numpy_and_configs_of_mmcv(tmp_path):
    """As mmcv's training leaves them in meta; they become plain values."""
    config = ConfigDict(model=dict(type='A', items=[1, 2]), keys='x')
    content = {'state_dict': nn.Linear(2, 2).state_dict(), 'meta': {
        'seed': np.int64(3), 'hook_msgs': {'best_score': np.float64(0.5)}, 'PALETTE': np.arange(6).reshape(2, 3),
        'config': config, 'other': [np.float32(0.25), np.bool_(True), np.dtype('>f4').type(1)]}}
    for zipped in (True, False):
        torch.save(content, tmp_path / 'it.pth', _use_new_zipfile_serialization=zipped)
        meta = files.read(tmp_path / 'it.pth').meta
        assert meta['seed'] == 3 and type(meta['seed']) is int and meta['hook_msgs'] == {'best_score': 0.5}
        assert meta['PALETTE'] == [[0, 1, 2], [3, 4, 5]] and meta['other'] == [0.25, True, 1.0]
        assert type(meta['config']) is collections.OrderedDict and meta['config'] == config.to_dict()


@pytest.mark.parametrize(('part', 'name'), [
    (argparse.Namespace(a=1), 'argparse.Namespace'), (pathlib.PosixPath('/a'), 'pathlib.PosixPath'),
    (nn.Linear(2, 2), 'torch.nn.modules.linear.Linear'), (np.array(['a']), 'numpy.dtype'),
    (np.array([None]), 'numpy.dtype'), (frozenset([1]), 'frozenset')])
def test_parts_of_other_classes_are_refused(tmp_path, part, name):
    """Wherever they are in the file; the message names the class and the command that saves the weights alone."""
    torch.save({'state_dict': {'a': torch.ones(1)}, 'args': part}, tmp_path / 'it.pth')
    with pytest.raises(ValueError, match=rf'it\.pth cannot be read safely: .* it has {name}.*python -c') as error:
        files.read(tmp_path / 'it.pth')
    assert '\n' not in str(error.value)


def test_other_protocols_of_pickle(tmp_path):
    torch.save({'a': torch.ones(1)}, tmp_path / 'it.pth', pickle_protocol=4)
    with pytest.raises(ValueError, match='pickle_protocol=4.*save it again'):
        files.read(tmp_path / 'it.pth')


# ---- files that claim to be large

def archive(path: Path, content: bytes, *, storage: bytes = b'', **options) -> None:
    with zipfile.ZipFile(path, 'w', **options) as file:
        file.writestr('it/version', b'3\n')
        file.writestr('it/data.pkl', content)
        file.writestr('it/data/0', storage)


def tensor_of(count: int, size: int, stride: int = 1) -> bytes:
    """The pickle of a state dict of one tensor of `size` in a storage of `count` numbers."""
    def long(value: int) -> bytes:
        return b'\x8a\x08' + value.to_bytes(8, 'little', signed=True)

    return (b'\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n'
            b'FloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu' + long(count) + b'tQK\x00' + long(size) + b'\x85'
            + long(stride) + b'\x85\x89ccollections\nOrderedDict\n)RtRs.')


DOUBLING = b'\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x06\x00\x00\x00latin1\x86R' + b''.join(
    b'q\x00c_codecs\nencode\nh\x00X\x03\x00\x00\x00hex\x86R' for _ in range(36)) + b'.'
LAUGHS = b'\x80\x02]q\x00' + b''.join(b'](' + b'h\x00' * 10 + b'eq\x00' for _ in range(12)) + b'.'
LARGE = {
    'a storage that is not there': tensor_of(10**12, 10), 'a storage that is shorter': tensor_of(10**9, 10**9),
    'beyond the storage': tensor_of(2, 10**12), 'below zero': tensor_of(2, -3),
    'strides below zero': tensor_of(2, 2, -1),
    'one number many times': tensor_of(2, 10**12, 0),
    'bytes by number': b'\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R.',
    'doubling': DOUBLING, 'lists of lists of lists': LAUGHS,
    'deep': b'\x80\x02' + b']' * 10**5 + b'a' * (10**5 - 1) + b'.',
    'a text of a length': b'\x80\x04\x8d' + (1 << 60).to_bytes(8, 'little') + b'a.',
    'bytes of a length': b'\x80\x04\x8e' + (1 << 33).to_bytes(8, 'little') + b'a.',
    'a deep key': b'\x80\x02})' + b'\x85' * 10**6 + b'Ns.',
    'a key that takes long to hash': b'\x80\x02})' + b''.join(b'q\x00h\x00\x86' for _ in range(40)) + b'Ns.',
    'strange names': b'\x80\x02]' + b'ca\nb\na' * 10**5 + b'.',
}


@pytest.mark.parametrize('name', LARGE)
def test_a_small_file_takes_little_memory(tmp_path, name):
    archive(tmp_path / 'it.pth', LARGE[name], storage=bytes(8))
    check_memory(tmp_path / 'it.pth')


def test_a_zip_bomb(tmp_path):
    archive(tmp_path / 'it.pth', tensor_of(10**9, 10**9), compression=zipfile.ZIP_DEFLATED, storage=bytes(4 * 10**8))
    assert (tmp_path / 'it.pth').stat().st_size < 10**6
    check_memory(tmp_path / 'it.pth')


def test_a_table_of_a_header(tmp_path):
    for shape in ('(1000000, 1000000)', '(99999999999, 0)', '(1, -1)', '(' * 5000, '(1e400, 2)'):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        (tmp_path / 'it.npy').write_bytes(b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header + bytes(64))
        check_memory(tmp_path / 'it.npy', files.read_embeddings)


def test_a_header_of_safetensors(tmp_path):
    for shape, end in ((10**12, 4 * 10**12), (1, 8), (2**62, 8)):
        header = json.dumps({'w': {'dtype': 'F32', 'shape': [shape], 'data_offsets': [0, end]}}).encode()
        (tmp_path / 'it.safetensors').write_bytes(len(header).to_bytes(8, 'little') + header + bytes(8))
        check_memory(tmp_path / 'it.safetensors')
    (tmp_path / 'it.safetensors').write_bytes((2**60).to_bytes(8, 'little') + b'{}')
    check_memory(tmp_path / 'it.safetensors')


def check_memory(path: Path, read: Callable[[Path], object] = files.read) -> None:
    """Check that the file is refused, with less than 300 MB of memory."""
    before = peak(anew=True)
    with pytest.raises(ValueError, match=path.name):
        read(path)
    assert peak() - before < 300_000_000


# ---- configs in checkpoints

MINIATURE = REPOSITORY / 'tools/miniature/model.safetensors'


@pytest.fixture
def checkpoint():
    return files.read(MINIATURE)


@pytest.mark.parametrize(('change', 'message'), [
    (lambda model: model['backbone'].update(type='TIMMBackbone', model_name='resnet18'), 'which is mmseg'),
    (lambda model: model['backbone'].update(layers=10**9), 'layers=1000000000, more than'),
    (lambda model: model['backbone'].update(width=2**15), 'parameters, the file'),
    (lambda model: model['test_cfg'].update(stride=(1, 1)), 'every 1 pixels'),
    (lambda model: model['test_cfg'].update(crop_size=(1, 1), stride=(1, 1)), 'windows of 1 pixels'),
    (lambda model: model.update(decode_head=3), 'damaged'), (lambda model: model.update(test_cfg=[1]), 'it')])
def test_limits_of_a_config_in_a_checkpoint(checkpoint, change, message):
    change(checkpoint.meta['clip_rc']['config']['model'])
    with pytest.raises(ValueError, match=message) as error:
        load_model(checkpoint, device='cpu')
    assert str(MINIATURE) in str(error.value)


@pytest.mark.parametrize('change', [{'img_scale': [10**6, 64]}, {'img_scale': [[10**6, 64]]}, {'img_ratios': [1e6]},
                                    {'transforms': [{'type': 'Pad', 'size': (1, 10**6)}]}, {'img_scale': float('nan')}])
def test_how_large_a_config_in_a_checkpoint_makes_images(checkpoint, change):
    checkpoint.meta['clip_rc']['config']['data']['test']['pipeline'][1].update(change)
    with pytest.raises(ValueError, match='makes images too large') as error:
        load_model(checkpoint, device='cpu')
    assert str(MINIATURE) in str(error.value)


def test_prompts_and_class_names_of_a_checkpoint_are_not_read_from_a_file(checkpoint, tmp_path, monkeypatch):
    (tmp_path / 'secret').write_text('secret {}\n')
    monkeypatch.chdir(tmp_path)
    entry = checkpoint.meta['clip_rc']
    entry['config']['data']['test'].update(classes='secret', prompt_set='secret')
    official = checkpoint._replace(meta={'config': entry['config']})
    assert 'secret' not in str(load_model(official, device='cpu').class_names)
    entry['prompt_set'] = ['secret {}']
    assert load_model(checkpoint, device='cpu').prompts == ('secret {}',)
    entry['prompt_set'] = 'secret'
    with pytest.raises(ValueError, match='damaged'):
        load_model(checkpoint, device='cpu')


@pytest.mark.parametrize('meta', [
    {'clip_rc': {'format': '\x1b[2J'}}, {'hook_msgs': {'best_ckpt': '\x07'}}, {'CLASSES': ['\x9b']},
    {'clip_rc': {'config': {'custom_imports': {'imports': ['\x9b']}}}}, {'hook_msgs': {'best_score': 'x'}}])
def test_texts_do_not_reach_the_terminal_raw(tmp_path, meta):
    torch.save({'state_dict': clip_weights(**SMALL), 'meta': meta}, tmp_path / 'it.pth')
    with pytest.raises(ValueError, match=r'it\.pth: its metadata \(meta\) are damaged'):
        files.read(tmp_path / 'it.pth')


def test_errors_do_not_reach_the_terminal_raw():
    assert plain_message(ValueError('a \x1b[2J\nb')) == 'a \\x1b[2J\nb'


def test_modules_that_a_checkpoint_names_are_not_imported(checkpoint, tmp_path, monkeypatch, trace):
    (tmp_path / 'strange.py').write_text(f'import os\nos.mkdir({str(trace)!r})\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    checkpoint.meta['clip_rc']['config']['custom_imports'] = {'imports': ['strange']}
    load_model(checkpoint, device='cpu')
    assert not trace.exists()
    __import__('strange')
    assert trace.exists()
