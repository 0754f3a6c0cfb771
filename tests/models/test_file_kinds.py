"""A wrong file is named for its kind, wherever another was expected."""
import io
import pickle
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.errors import UserError
from models.file_kinds import CONFIG, TEXT, UNKNOWN, WEIGHTS, kind_of, other_kind
from models.plugins import read_config
from models.text_files import lines_of
from models.weights.files import read, read_embeddings


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for name in names:
            archive.writestr(name, b'content')
    return file.getvalue()


TEXTS = {
    'config.py': (b'# a config\nmodel = dict()\n', 'a Python file, as configs are'),
    'braces.py': (b'model = {"a": 1}\n', 'a Python file'),  # a brace where safetensors have theirs
    'config.json': (b'{"model_type": "clip"}', 'a JSON file'),
    'train.log': (b'\x1b[32mIter [50/100]\x1b[0m lr: 1e-4\n', 'a text file that begins'),
    'error.pth': (b'Entry not found', "a text file that begins 'Entry not found'"),
    'long.txt': ('ä'.encode() * 600, 'a text file'), 'utf16.txt': ('model = 1'.encode('utf-16'), 'a text file'),
    'latin.txt': ('# a config of my own for größe\nmodel = dict()\n'.encode('latin1'), 'a text file')}
OTHERS = {
    'page.pth': (b' <!DOCTYPE html><html>', 'a web page'),
    'lfs.pth': (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'git lfs pull'),
    'a.png': (b'\x89PNG\r\n\x1a\n' + bytes(20), 'an image'),
    'it.zip': (zipped('a.jpg', 'ViT-B-16.pt'), 'a.jpg, ViT-B-16.pt'),
    'it.tgz': (b'\x1f\x8b\x08' + bytes(20), 'compressed'), 'rows.npy': (b'\x93NUMPY\x01\x00v\x00{}', 'a .npy table'),
    'labels.pkl': (pickle.dumps([np.zeros((20, 20), np.uint8)]), 'a pickle that torch.save did not write')}


@pytest.fixture
def file(request, tmp_path):
    name, content = request.param
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def files(kinds: dict) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(('file', 'phrase'), [((name, content), phrase) for name, (content, phrase) in
                                                        kinds.items()], ids=list(kinds), indirect=['file'])


@files(TEXTS | OTHERS)
def test_in_place_of_others(file, phrase):
    kind = kind_of(file)[0]
    assert (kind in (TEXT, CONFIG)) == (file.name in TEXTS)
    refused = {'checkpoint': read}
    if kind != TEXT:
        refused['text file of prompts, one a line'] = partial(lines_of, content='prompts')
    if file.name in OTHERS:
        refused['config'] = read_config
    for wanted, call in refused.items():
        with pytest.raises(UserError, match=f'is not a {wanted}: it is ') as error:
            call(file)
        assert str(file) in str(error.value) and phrase in str(error.value) and '\n' not in str(error.value)
        assert ('a config comes before it' in str(error.value)) == (file.suffix == '.py' and wanted == 'checkpoint')


@pytest.mark.parametrize('zip_format', [True, False, None])
def test_a_checkpoint_in_place_of_others(tmp_path, zip_format):
    weights, file = {'a': torch.ones(3)}, tmp_path / 'it.py'
    if zip_format is None:
        save_file(weights, file)
    else:
        torch.save(weights, file, _use_new_zipfile_serialization=zip_format)
    assert kind_of(file)[0] == WEIGHTS and read(file).weights
    with pytest.raises(UserError, match=r'it\.py is not a config: it is a .*; the checkpoint comes after it'):
        read_config(file)
    with pytest.raises(UserError, match=r'it\.py is truncated or not a \.npy table of text embeddings: it is a '):
        read_embeddings(file)
    with pytest.raises(UserError, match='is a folder, not a config'):
        read_config(tmp_path)


def test_a_header_of_any_length(tmp_path):
    """The length of a safetensors header comes first; as 0x80 it looks like a pickle."""
    for length in range(0, 256, 8):
        save_file({'a': torch.ones(3)}, tmp_path / 'it', {'meta': length * ' '})
        assert kind_of(tmp_path / 'it')[0] == WEIGHTS


@pytest.mark.parametrize('content', [b'\x80\x02', b'\x87\xbd\xc1\xf7z', bytes(300), b'PK\x03\x04'])
def test_unknown_kinds(tmp_path, content):
    (tmp_path / 'it').write_bytes(content)
    assert kind_of(tmp_path / 'it')[0] == UNKNOWN and not other_kind(tmp_path / 'it', TEXT)
