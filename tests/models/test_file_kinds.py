"""A wrong file is named for what it is, wherever another was expected."""
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from models.class_names import lines_of
from models.file_kinds import TEXT, WEIGHTS, check_config, check_text, kind_of
from models.weights.files import read, read_embeddings


def image(ending: str) -> bytes:
    file = io.BytesIO()
    Image.new('RGB', (4, 3)).save(file, ending)
    return file.getvalue()


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for name in names:
            archive.writestr(name, b'content')
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as archive:
        archive.addfile(tarfile.TarInfo('iter_100.pth'))
    return file.getvalue()


def table() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones((2, 3)))
    return file.getvalue()


TEXTS = {
    'config.py': (b'# a config\nmodel = dict()\n', 'a Python file, as configs are'),
    'braces.py': (b'model = {"a": 1}\n', 'a Python file'),  # a brace where safetensors have theirs
    'config.json': (b'{"model_type": "clip"}', 'a JSON file'), 'it.yaml': (b'model:\n  type: A\n', 'a YAML file'),
    'train.log': (b'\x1b[32mIter [50/100]\x1b[0m lr: 1e-4\n', 'a log'),
    'said.pth': (b'Entry not found', "a text file that begins 'Entry not found'"),
    'long.txt': ('ä'.encode() * 600, 'a text file'), 'utf16.txt': ('model = 1'.encode('utf-16'), 'a text file'),
    'latin.txt': ('# a config of my own for größe\nmodel = dict()\n'.encode('latin1'), 'a text file')}
OTHERS = {
    'page.pth': (b' <!DOCTYPE html><html>', 'a web page'),
    'denied.pth': (b'<?xml version="1.0"?><Error/>', 'a web page'),
    'lfs.pth': (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'git lfs pull'),
    'a.png': (image('png'), 'a PNG image'), 'a.jpg': (image('jpeg'), 'a JPEG image'),
    'a.tif': (image('tiff'), 'a TIFF image'), 'it.zip': (zipped('a.jpg', 'ViT-B-16.pt'), 'a.jpg, ViT-B-16.pt'),
    'empty.zip': (zipped(), 'an empty zip archive'), 'a.npz': (zipped('a.npy'), 'an .npz archive of numpy'),
    'it.tar': (tarred(), 'a tar archive: unpack it'), 'it.tgz': (b'\x1f\x8b\x08' + bytes(20), 'compressed'),
    'labels.pkl': (pickle.dumps([np.zeros((20, 20), np.uint8)]), 'a pickle that torch.save did not write'),
    'a.onnx': (b'\x08\x08\x12\x07pytorch' + bytes(40), 'an ONNX model'), 'a.h5': (b'\x89HDF\r\n\x1a\n', 'an HDF5 file'),
    'a.gguf': (b'GGUF\x03\0\0\0', 'a GGUF file'), 'a.pdf': (b'%PDF-1.5\n', 'a PDF file')}
NUMPY = {'rows.npy': (table(), 'a .npy table')}


@pytest.fixture
def file(request, tmp_path):
    name, content = request.param
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def files(kinds: dict) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(('file', 'words'), [((name, content), words) for name, (content, words) in
                                                       kinds.items()], ids=list(kinds), indirect=['file'])


@files(TEXTS | OTHERS | NUMPY)
def test_in_place_of_a_checkpoint(file, words):
    with pytest.raises(ValueError, match='is not a checkpoint: it is ') as error:
        read(file)
    assert str(file) in str(error.value) and words in str(error.value) and '\n' not in str(error.value)
    assert ('a config comes before it, or after --config' in str(error.value)) == (file.suffix == '.py')


@files(OTHERS | NUMPY)
def test_in_place_of_a_config_and_of_a_list(file, words):
    for call in (lambda: check_config(file), lambda: check_text(file, 'class names'),
                 lambda: lines_of(file, 'class names')):
        match = rf'{file.name} is not a (config|text file of class names, one a line): '
        with pytest.raises(ValueError, match=match) as error:
            call()
        assert words in str(error.value) and '\n' not in str(error.value)


@files(TEXTS)
def test_texts_pass_where_texts_belong(file, words):
    check_config(file)
    assert kind_of(file).family == TEXT
    if file.suffix in ('.py', '.json', '.yaml'):
        with pytest.raises(ValueError, match=f'is not a text file of prompts, one a line: it is {words}'):
            lines_of(file, 'prompts')
    else:
        check_text(file, 'prompts')


@pytest.mark.parametrize('zip_format', [True, False, None])
def test_a_checkpoint_in_place_of_others(tmp_path, zip_format):
    weights, file = {'a': torch.ones(3)}, tmp_path / 'it.py'
    if zip_format is None:
        save_file(weights, file)
    else:
        torch.save(weights, file, _use_new_zipfile_serialization=zip_format)
    assert kind_of(file).family == WEIGHTS and read(file).weights
    with pytest.raises(ValueError, match=r'it\.py is not a config: it is a .*; the checkpoint comes after it'):
        check_config(file)
    with pytest.raises(ValueError, match=r'it\.py is not a text file of words, one a line: it is a '):
        lines_of(file, 'words')
    with pytest.raises(ValueError, match=r'it\.py is truncated or not a \.npy table of text embeddings: it is a '):
        read_embeddings(file)
    with pytest.raises(ValueError, match='is a folder, not a config'):
        check_config(tmp_path)


@pytest.mark.parametrize('content', [b'\x80\x02', b'\x87\xbd\xc1\xf7z', bytes(300), b'PK\x03\x04'])
def test_what_is_of_no_kind(tmp_path, content):
    (tmp_path / 'it').write_bytes(content)
    assert kind_of(tmp_path / 'it') is None
    check_config(tmp_path / 'it')
