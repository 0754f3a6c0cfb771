"""The one kind of error that a person can act on, and how an error of a library becomes one."""
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STANDARD_LIBRARY = Path(sysconfig.get_path('stdlib'))
BY_SETTINGS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, ImportError, ArithmeticError)


class UserError(ValueError):
    """Says what is wrong with a file, a setting or an option, and what to do: shown as one line, without a trace.

    Every other exception is a fault of the code, and shows its trace.
    """


@contextmanager
def building(part: str, explain: Callable[[str], str] = str) -> Iterator[None]:
    """Makes one line of what a library says while it builds a part of the config.

    Errors whose innermost line is in this repository, or in a module of the user's own, pass as they are.

    Args:
        part: of the config, which begins the line.
        explain: given the library's message, returns what is said instead.

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
    """What was raised at first: mmcv's registries raise an error anew, under the name of what they built."""
    while error.__context__ is not None and _innermost(error).filename.endswith('/mmcv/utils/registry.py'):
        error = error.__context__
    return error


def _message(error: Exception, origin: BaseException) -> str:
    text = ' '.join(str(error.args[0] if error.args else '').split())
    if re.fullmatch(r'(\w+: ?)*', text):  # a bare assertion
        return f'{text} {_innermost(origin).line} fails'.strip()
    if isinstance(error, KeyError):  # whose text is the repr of what is missing, if it is no sentence
        text = re.sub(r"^((?:\w+: )*)(['\"])(.*)\2$", r'\1\3', text)
        return text if ' ' in text.rpartition(': ')[2] else f'{text} is missing'
    return text
