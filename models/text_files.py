"""Text files, written by any editor on any system."""
import codecs
import io
from pathlib import Path

from .errors import UserError
from .file_kinds import TEXT, other_kind


def read_text(path: str | Path, content: str = '') -> str:
    """Read a file in UTF-8, or in UTF-16 with a byte-order mark, as Windows writes it; lines end in a line feed.

    Args:
        content: of the text, for messages, such as 'class names'.

    Raises:
        UserError: it is a folder, is not readable, or has another encoding.
        FileNotFoundError: no such file.
    """
    of = f' of {content}' if content else ''
    try:
        data = Path(path).read_bytes()
    except (IsADirectoryError, PermissionError) as error:
        raise UserError(f'{path} cannot be read as a text file{of}: {error.strerror}.') from None
    try:
        text = data.decode('utf-16' if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else 'utf-8-sig')
    except UnicodeDecodeError:
        text = '\0'
    if '\0' in text:  # UTF-16 without its mark, or not a text
        raise UserError(f'{path} is not a UTF-8 text{of}: save it in that encoding (UTF-16 needs a byte-order mark).')
    return io.StringIO(text.removesuffix('\x1a'), newline=None).read()  # the end of a text in old Windows


def lines_of(path: str | Path, content: str) -> list[str]:
    """List the lines of a text file of `content`, such as class names, without blank ones.

    Raises:
        UserError: it is not a text, as a checkpoint or a web page, or is empty.
        FileNotFoundError: no such file.
    """
    if Path(path).is_file() and (kind := other_kind(Path(path), TEXT)):
        raise UserError(f'{path} is not a text file of {content}, one a line: it is {kind}.')
    lines = [line.strip() for line in read_text(path, content).splitlines() if line.strip()]
    if not lines:
        raise UserError(f'{path} is empty: write {content} in it, one a line.')
    return lines
