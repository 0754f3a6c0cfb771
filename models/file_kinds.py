"""The kind of a file by its content, for messages about a file of the wrong kind."""
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from .errors import UserError

TEXT, WEIGHTS, OTHER = 'text', 'weights', 'other'
STARTS = {  # first bytes of other files
    **dict.fromkeys((b'\x89PNG', b'\xff\xd8\xff', b'GIF8', b'BM', b'II*\0', b'MM\0*', b'RIFF'), 'an image'),
    b'%PDF': 'a PDF file', b'\x93NUMPY': 'a .npy table of numpy',
    **dict.fromkeys((b'\x1f\x8b', b'BZh', b'\xfd7zXZ', b'7z\xbc\xaf', b'Rar!', b'\x28\xb5\x2f\xfd'),
                    'a compressed file or archive: unpack it, and name the file in it')}
ENDINGS = {'.py': 'a Python file, as configs are', '.json': 'a JSON file', '.yaml': 'a YAML file',
           '.yml': 'a YAML file'}
MAGIC_OF_LEGACY = b'l\xfc\x9cF\xf9 j\xa8P\x19'  # the number that files of torch before 1.6 begin with
LENGTH = 1024  # bytes that are read
CONTROL = re.compile(rb'[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]')  # not in texts; logs have \x1b


class Kind(NamedTuple):
    """A kind of file."""
    family: str  # TEXT, WEIGHTS or OTHER
    phrase: str  # 'a PDF file'

    def __str__(self) -> str:
        return self.phrase


TABLE = Kind(OTHER, STARTS[b'\x93NUMPY'])


def kind_of(path: Path) -> Kind | None:
    """Recognise a file by its first bytes, whatever its name; None if its kind is unknown.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open('rb') as file:
        start = file.read(LENGTH)
    if start.startswith(b'version https://git-lfs'):
        return Kind(OTHER, 'a pointer of git-LFS, which stands for a file: fetch that with `git lfs pull`')
    if start.lstrip().lower().startswith((b'<!doctype html', b'<html', b'<?xml')):
        return Kind(OTHER, 'a web page, as failed downloads leave. Fetch the file itself')
    if phrase := next((phrase for begin, phrase in STARTS.items() if start.startswith(begin)), None):
        return Kind(OTHER, phrase)
    if start.startswith((b'PK\x03\x04', b'PK\x05\x06')):
        return _kind_of_zip(path)
    if start[:1] == b'\x80' and len(start) > 40:
        return Kind(WEIGHTS, 'a checkpoint of PyTorch') if MAGIC_OF_LEGACY in start[:40] else Kind(
            OTHER, 'a pickle that torch.save did not write, such as the label maps of test.py --out')
    if start[8:9] == b'{' and start[6:8] == b'\0\0':
        return Kind(WEIGHTS, 'a safetensors file')
    if _is_text(start):
        first = start.decode(errors='replace').strip().split('\n')[0][:40]
        return Kind(TEXT, ENDINGS.get(path.suffix.lower(), f'a text file that begins {ascii(first)}'))
    return None


def _kind_of_zip(path: Path) -> Kind | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return None
    if any(name.endswith('/data.pkl') for name in names):
        return Kind(WEIGHTS, 'a checkpoint of PyTorch')
    inside = ', '.join(ascii(name)[1:-1][:60] for name in names[:3]) + (', ...' if len(names) > 3 else '')
    return Kind(OTHER, f'a zip archive ({inside}): unpack it, and name the file in it')


def _is_text(start: bytes) -> bool:
    if start.startswith((b'\xff\xfe', b'\xfe\xff')):  # UTF-16, as on Windows
        return True
    if not start or CONTROL.search(start):
        return False
    try:
        start.decode()
    except UnicodeDecodeError as error:  # a cut letter, or an older encoding of mostly ASCII
        return error.start > LENGTH - 4 or sum(byte > 127 for byte in start) < len(start) / 10
    return True


def check_config(path: Path) -> None:
    """Refuse a file that is not a config, before it is run as one.

    Raises:
        UserError: it is a folder, a checkpoint, an image or the like.
    """
    needed = 'A config is needed here, a .py file such as those in configs/'
    if path.is_dir():
        raise UserError(f'{path} is a folder, not a config. {needed}.')
    kind = kind_of(path) if path.is_file() else None
    if kind is not None and kind.family != TEXT:
        order = '; the checkpoint comes after it' if kind.family == WEIGHTS else ''
        raise UserError(f'{path} is not a config: it is {kind}. {needed}{order}.')


def check_text(path: Path, content: str) -> None:
    """Refuse a file that cannot be a list of `content`, such as 'class names', one a line.

    Raises:
        UserError: it is a checkpoint, a web page, a JSON file or the like.
    """
    kind = kind_of(path) if path.is_file() else None
    if kind is not None and (kind.family != TEXT or path.suffix.lower() in ENDINGS):
        raise UserError(f'{path} is not a text file of {content}, one a line: it is {kind}.')
