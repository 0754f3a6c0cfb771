"""Text files as editors on any system write them."""
import codecs
import re

import pytest

import datasets  # noqa: F401  registers ours
from models.errors import UserError
from models.text_files import lines_of, read_text

TEXT = 'café\r\n\r\nmaïs, 玉米\r\n'


@pytest.mark.parametrize(('encoding', 'mark'), [
    ('utf-8', b''), ('utf-8', codecs.BOM_UTF8), ('utf-16-le', codecs.BOM_UTF16_LE),
    ('utf-16-be', codecs.BOM_UTF16_BE)])
def test_encodings(tmp_path, encoding, mark):
    (tmp_path / 'a.txt').write_bytes(mark + TEXT.encode(encoding))
    assert read_text(tmp_path / 'a.txt') == 'café\n\nmaïs, 玉米\n'
    assert lines_of(tmp_path / 'a.txt', 'class names') == ['café', 'maïs, 玉米']


@pytest.mark.parametrize('content', ['café'.encode('latin-1'), 'cafe'.encode('utf-16-le'), b'\xff\xfea',
                                     codecs.BOM_UTF32_LE + 'cafe'.encode('utf-32-le'), b'PK\3\4\0\0'])
def test_what_is_no_text(tmp_path, content):
    (tmp_path / 'a.txt').write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f'{tmp_path}/a.txt is not a UTF-8 text of class names')):
        lines_of(tmp_path / 'a.txt', 'class names')


def test_what_is_no_file(tmp_path):
    with pytest.raises(UserError, match='cannot be read as a text file: Is a directory'):
        read_text(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / 'none.txt')
