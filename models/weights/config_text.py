"""The text of an mmcv config, as official checkpoints hold it, read as data and never run."""
import ast
from collections.abc import Mapping

from ..errors import UserError

LONGEST = 200_000  # characters; those of official checkpoints have 10,000
Plain = None | bool | int | float | str | list | tuple | dict


def read_config_text(text: str | Mapping) -> dict[str, Plain]:
    """Read `name = value` lines; return {} for a text that is too long or has more than literals and `dict(...)`.

    Some tools store a mapping instead of a text: it is returned unchanged.
    """
    if isinstance(text, Mapping):
        return dict(text)
    if not isinstance(text, str) or len(text) > LONGEST:
        return {}
    try:
        lines = ast.parse(text).body
        return {line.targets[0].id: _value(line.value) for line in lines}
    except (SyntaxError, ValueError, TypeError, AttributeError, RecursionError, MemoryError):
        return {}


def _value(node: ast.expr) -> Plain:
    match node:
        case ast.Constant(value=None | bool() | float() | str() as value):
            return value
        case ast.Constant(value=int() as value) if abs(value) < 1 << 63:
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(items):
            return [_value(item) for item in items]
        case ast.Tuple(items):
            return tuple(_value(item) for item in items)
        case ast.Dict(keys, values):
            return {_value(key): _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=pairs) if all(pair.arg for pair in pairs):
            return {pair.arg: _value(pair.value) for pair in pairs}
    raise UserError('not a literal')


def with_pairs(value: Plain, name: str = '') -> Plain:
    """Turn the pairs of numbers in the steps of a pipeline into tuples again: JSON and YAML have only lists.

    `img_ratios`, which may be two numbers, stay a list.
    """
    if isinstance(value, Mapping):
        return type(value)({key: with_pairs(inside, key) for key, inside in value.items()})
    if not isinstance(value, list):
        return value
    pair = len(value) == 2 and all(type(number) in (int, float) for number in value) and name != 'img_ratios'
    return tuple(value) if pair else [with_pairs(inside, name) for inside in value]
