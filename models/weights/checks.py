"""Strict checks of the content of a file: plain values, names and shapes of tensors, numbers that can be weights."""
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError

DEEPEST = 100  # levels of nesting
MOST_VALUES = 300_000
MOST_BYTES = 4_000_000_000  # of the tensors of a small file: strides of 0 make one number a large tensor
CONTROL = re.compile(r'[\x00-\x08\x0b-\x1f\x7f-\x9f]')  # all but tabs and ends of lines


def walk(content: Any) -> Iterator[Any]:
    """Yield every value in nested dicts, lists, tuples and sets, keys included.

    Raises:
        ValueError: the values are nested too deeply, or are too many, as where one list stands in many places.
    """
    left, room = [(content, 0)], MOST_VALUES
    while left:
        value, depth = left.pop()
        yield value
        inside = (*value, *dict.values(value)) if isinstance(value, dict) else value if isinstance(
            value, (list, tuple, set)) else ()
        room -= len(inside)
        if room < 0 or inside and depth > DEEPEST:
            raise ValueError('too many values, or nested too deeply')
        left.extend((item, depth + 1) for item in inside)


def check_plain(content: Any, size: int) -> None:
    """Check that a file of `size` bytes holds readable names, and tensors that are not far larger than the file.

    Raises:
        ValueError: it does not.
    """
    room = max(MOST_BYTES, 4 * size)
    for value in walk(content):
        if isinstance(value, Tensor) and value.layout is torch.strided:
            room -= value.numel() * value.itemsize
        elif isinstance(value, dict) and not all(name.isprintable() for name in value if isinstance(name, str)):
            raise ValueError('a name with control characters')
        if room < 0:
            raise ValueError('tensors much larger than the file')


def check(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str,
          remedy: str = 'Use the config that belongs to the file.') -> None:
    """Compare the weights of a file with a model's own state dict.

    Args:
        weights: tensors of the file by name.
        own: the model's state dict.
        source: name of the file in messages.
        remedy: last sentence of the message.

    Raises:
        UserError: tensors are missing, unexpected, of another shape or not weights; the message names them.
    """
    shared = {name: weights[name] for name in own if name in weights}
    check_numbers({name: tensor for name, tensor in shared.items() if own[name].is_floating_point()}, source)
    problems = {'missing': [name for name in own if name not in weights],
                'not known here': [name for name in weights if name not in own],
                'of another shape': [f'{name} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}'
                                     for name, tensor in shared.items() if tensor.shape != own[name].shape]}
    lines = [f'  {problem}: {first_of(names)}' for problem, names in problems.items() if names]
    if lines:
        raise UserError('\n'.join([f'{source} does not fit this model.', *lines,
                                   f'Model and file must have the same sizes. {remedy}']))


def check_numbers(weights: Mapping[str, Tensor], source: str) -> None:
    """Raise a UserError with the names of tensors that are not of a floating-point type, or not finite."""
    retyped = [f'{name} ({tensor.dtype})' for name, tensor in weights.items() if not tensor.is_floating_point()]
    if retyped:
        raise UserError(f'{first_of(retyped, 3)}: weights are of a floating-point type; {source} seems to be '
                        'quantised. Use the file from before that, in float32, float16 or bfloat16.')
    infinite = [name for name, tensor in weights.items() if not (tensor.is_meta or tensor.float().isfinite().all())]
    if infinite:
        raise UserError(f'{first_of(infinite, 3)} has values that are not finite, in {source}: the file is damaged or '
                        'its training failed. Copy it again, or use an earlier one.')


def first_of(names: list[str], most: int = 8) -> str:
    """Join the first names of a list and count the rest."""
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def depth(weights: Mapping[str, Tensor], stack: str) -> int:
    """Count the layers below a name: `depth(weights, 'transformer.resblocks')`."""
    pattern = re.compile(re.escape(stack) + r'\.(\d+)\.')
    return len({match[1] for name in weights if (match := pattern.match(name))})


def single(tensor: Tensor) -> Tensor:
    """Convert weights of any floating-point type to float32; leave other numbers to `check`."""
    return tensor.float() if tensor.is_floating_point() else tensor
