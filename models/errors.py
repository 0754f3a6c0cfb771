"""The error that a user can fix, and how an error of a library becomes one."""
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STANDARD_LIBRARY = Path(sysconfig.get_path('stdlib'))
BY_SETTINGS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, ImportError, ArithmeticError)


class UserError(ValueError):
    """A fault in a file, a setting or an option, with its remedy: shown as one line, without a trace.

    Every other exception is a fault of the code, and shows its trace.
    """


@contextmanager
def building(part: str, explain: Callable[[str], str] = str) -> Iterator[None]:
    """Turn the errors of a library that builds a part of the config into a UserError of one line.

    Errors whose innermost line is in this repository, or in a module of the user's own, pass unchanged.

    Args:
        part: the part of the config, with which the line begins.
        explain: the library's message -> the message to show.

    Raises:
        UserError: a library refused its arguments, or its registry knows no such name.
    """
    try:
        yield
    except UserError:
        raise
    except BY_SETTINGS as error:
        origin = _origin(error)
        if not _in_library(_innermost(origin).filename):
            raise
        raise UserError(f'{part}: {explain(_message(error, origin))}') from error


def _innermost(error: BaseException) -> traceback.FrameSummary:
    return traceback.extract_tb(error.__traceback__)[-1]


def _in_library(file: str) -> bool:
    return (not {'site-packages', 'dist-packages'}.isdisjoint(Path(file).parts) or file.startswith('<')
            or Path(file).is_relative_to(STANDARD_LIBRARY))


def _origin(error: BaseException) -> BaseException:
    """Return the first error: mmcv's registries raise it again, with the name of the part that they built."""
    while error.__context__ is not None and _innermost(error).filename.endswith('/mmcv/utils/registry.py'):
        error = error.__context__
    return error


def _message(error: Exception, origin: BaseException) -> str:
    text = ' '.join(str(error.args[0] if error.args else '').split())
    if re.fullmatch(r'(\w+: ?)*', text):  # a bare assertion
        return f'{text} {_innermost(origin).line} fails'.strip()
    if isinstance(error, KeyError):  # its text is the repr of the missing key, or a sentence
        text = re.sub(r"^((?:\w+: )*)(['\"])(.*)\2$", r'\1\3', text)
        return text if ' ' in text.rpartition(': ')[2] else f'{text} is missing'
    return text
