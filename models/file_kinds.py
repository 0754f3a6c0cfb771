"""The kind of a file by its content, for messages about a file of the wrong kind."""
import re
import zipfile
from pathlib import Path

TEXT, CONFIG, WEIGHTS, TABLE, OTHER, UNKNOWN = 'text', 'config', 'weights', 'table', 'other', 'unknown'
STARTS = {  # first bytes of files -> (kind, description)
    b'version https://git-lfs': (OTHER, 'a pointer of git-LFS, which stands for a file: fetch it with `git lfs pull`'),
    b'\x93NUMPY': (TABLE, 'a .npy table of numpy'),
    **dict.fromkeys((b'\x89PNG', b'\xff\xd8\xff', b'GIF8', b'BM', b'II*\0', b'MM\0*', b'RIFF'), (OTHER, 'an image')),
    **dict.fromkeys((b'\x1f\x8b', b'BZh', b'\xfd7zXZ', b'7z\xbc\xaf', b'Rar!', b'\x28\xb5\x2f\xfd'),
                    (OTHER, 'a compressed file or archive: unpack it, and name the file in it'))}
CONFIGS = {'.py': 'a Python file, as configs are', '.json': 'a JSON file', '.yaml': 'a YAML file',
           '.yml': 'a YAML file'}
MAGIC_OF_LEGACY = b'l\xfc\x9cF\xf9 j\xa8P\x19'  # the number that files of torch before 1.6 begin with
LENGTH = 1024  # bytes that are read
CONTROL = re.compile(rb'[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]')  # not in texts; logs have \x1b


def other_kind(path: Path, *wanted: str) -> str:
    """Describe a file that is not of a wanted kind, such as 'an image'; empty if it is, or if its kind is unknown.

    Raises:
        OSError: the file cannot be read.
    """
    kind, description = kind_of(path)
    return '' if kind in (*wanted, UNKNOWN) else description


def kind_of(path: Path) -> tuple[str, str]:
    """Recognise a file by its first bytes, whatever its name: TEXT, CONFIG, WEIGHTS, ..., and a description.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open('rb') as file:
        start = file.read(LENGTH)
    if start[8:9] == b'{' and start[6:8] == b'\0\0':  # before them the header's length, which may begin as any file
        return WEIGHTS, 'a safetensors file'
    if start.lstrip().lower().startswith((b'<!doctype html', b'<html', b'<?xml')):
        return OTHER, 'a web page, as failed downloads leave. Fetch the file itself'
    if known := next((known for begin, known in STARTS.items() if start.startswith(begin)), None):
        return known
    if start.startswith((b'PK\x03\x04', b'PK\x05\x06')):
        return _kind_of_zip(path)
    if start[:1] == b'\x80' and len(start) > 40:
        return (WEIGHTS, 'a checkpoint of PyTorch') if MAGIC_OF_LEGACY in start[:40] else (
            OTHER, 'a pickle that torch.save did not write, such as the label maps of test.py --out')
    if start.startswith((b'\xff\xfe', b'\xfe\xff')) or start and not CONTROL.search(start) and start.decode(
            errors='replace').count('\ufffd') < len(start) / 10:  # UTF-16, UTF-8, or an older encoding of mostly ASCII
        first = start.decode(errors='replace').strip().split('\n')[0][:40]
        return (CONFIG, CONFIGS[path.suffix.lower()]) if path.suffix.lower() in CONFIGS else (
            TEXT, f'a text file that begins {ascii(first)}')
    return UNKNOWN, ''


def _kind_of_zip(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return UNKNOWN, ''
    if any(name.endswith('/data.pkl') for name in names):
        return WEIGHTS, 'a checkpoint of PyTorch'
    inside = ', '.join(ascii(name)[1:-1][:60] for name in names[:3]) + (', ...' if len(names) > 3 else '')
    return OTHER, f'a zip archive ({inside}): unpack it, and name the file in it'
