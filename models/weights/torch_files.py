"""Files of `torch.save`, by `torch.load(weights_only=True)`, and OpenAI's TorchScript archives.

`torch.load` makes tensors, plain values and the classes in `SAFE_GLOBALS`, and refuses every other class and function.
A TorchScript archive is a program, so only files with the SHA-256 of OpenAI's published ones are loaded.
"""
import hashlib
import pickle
import pickletools
import re
import shlex
import zipfile
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ..errors import UserError
from . import published_files
from .checks import DEEPEST, MOST_VALUES

NUMBERS = re.compile(r'[<|=]?([fiu][248]|[iu]1|b1)')  # numpy's names of number types
PROTOCOL = 2  # of pickle, as `torch.save` writes it
PICKLES_OF_LEGACY = 4  # at the start of a file from before torch 1.6


class NumberType:
    """Stands for `numpy.dtype` in a pickle: a type of numbers, no other."""

    def __init__(self, name: str, *_):
        if not NUMBERS.fullmatch(name):
            raise pickle.UnpicklingError(f'GLOBAL numpy.dtype({name!r})')
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple):
        self.dtype = self.dtype.newbyteorder(state[1])


class Array(list):
    """Stands for `numpy.ndarray` in a pickle: a nested list of numbers."""

    def __setstate__(self, state: tuple):
        _, shape, kind, by_columns, data = state
        self[:] = np.frombuffer(data, kind.dtype).reshape(shape, order='F' if by_columns else 'C').tolist()


def _number(kind: NumberType, data: bytes) -> int | float | bool:
    """Make a Python number of a numpy scalar, such as mmcv's best score."""
    number, = np.frombuffer(data, kind.dtype)
    return number.item()


def _empty_array(*_) -> Array:
    return Array()


SAFE_GLOBALS = [
    (OrderedDict, 'mmcv.utils.config.ConfigDict'), (NumberType, 'numpy.dtype'), (Array, 'numpy.ndarray'),
    *((function, f'numpy.{core}.multiarray.{name}') for core in ('core', '_core')  # of numpy 1 and 2
      for function, name in ((_number, 'scalar'), (_empty_array, '_reconstruct')))]


def load(path: Path) -> Any:
    """Load the content of a file of `torch.save`, with tensors on the CPU, or a TorchScript archive's state dict.

    Raises:
        UserError: the file needs a class or function that is not safe, or is an unknown TorchScript archive.
        Exception: of any kind, for a damaged file.
    """
    with path.open('rb') as file:
        if file.read(4) == b'PK\x03\x04':
            with zipfile.ZipFile(file) as archive:
                if _check_archive(archive, path):
                    return _load_torchscript(path)
        else:
            file.seek(0)
            for _ in range(PICKLES_OF_LEGACY):
                _check_pickle(file, path)
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        if not (unsafe := re.search(r"GLOBAL ([\w.]+\w(\('.*?'\))?)", str(error))):
            raise
        code = "import sys, torch; torch.save(torch.load(sys.argv[1], weights_only=False)['state_dict'], 'weights.pth')"
        raise UserError(f'{path} cannot be read safely: beside tensors and plain values it has {unsafe[1]}, and '
                        'nothing of a file is run here. If you trust its source, save its weights alone (state_dict, '
                        f'or the entry that holds them): python -c "{code}" {shlex.quote(str(path))}') from None


def _check_archive(archive: zipfile.ZipFile, path: Path) -> bool:
    """Check sizes, checksums and pickle of an archive; tell whether it is TorchScript's."""
    if sum(entry.file_size for entry in archive.infolist()) > 4 * path.stat().st_size + 1_000_000:
        raise ValueError('its parts are much larger than the file')
    if damaged := archive.testzip():  # torch itself does not compare checksums
        raise ValueError(f'the checksum of {ascii(damaged)} is wrong')
    for name in archive.namelist():
        if name.endswith('/constants.pkl'):
            return True
        if name.endswith('/data.pkl'):
            _check_pickle(BytesIO(archive.read(name)), path)
    return False


def _check_pickle(file: IO[bytes], path: Path) -> None:
    """Refuse the pickle in a file that `torch.load` cannot read, or would take very long to read.

    Tuples that stand many times in each other take for ever to hash as a key, and texts can be encoded again and
    again. So this adds up the sizes of the values on the pickle's stack, without making any of them.
    """
    most = 8 * path.stat().st_size + 100_000
    stack, marks, memo = [], [], {}  # (depth, size) of tuples and texts; others count 1
    for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        name, before = instruction.name, instruction.stack_before
        if name == 'PROTO' and argument != PROTOCOL:
            raise UserError(f'{path} was saved with pickle_protocol={argument}, which PyTorch does not read safely: '
                            'save it again with torch.save alone.')
        if name == 'MARK':
            marks.append(len(stack))
        elif name in ('BINPUT', 'LONG_BINPUT'):
            memo[argument] = stack[-1]
        elif name in ('BINGET', 'LONG_BINGET'):
            stack.append(memo[argument])
        else:
            marked = pickletools.markobject in before
            start = marks.pop() - before.index(pickletools.markobject) if marked else len(stack) - len(before)
            items = stack[start:]
            del stack[start:]
            depth, total = max((item[0] for item in items), default=0) + 1, sum(item[1] for item in items) + 1
            value = (0, len(argument)) if isinstance(argument, str) else (0, 1)
            if name.startswith('TUPLE') or name in ('REDUCE', 'NEWOBJ'):
                value = depth, total * (4 if name == 'REDUCE' else 1)
            if value[0] > DEEPEST or value[1] > most or count > MOST_VALUES:
                raise ValueError('values that would take very long to read')
            stack.extend([value] * len(instruction.stack_after))


def _load_torchscript(path: Path) -> dict[str, torch.Tensor]:
    if hashlib.sha256(np.memmap(path, mode='r')).hexdigest() not in published_files.MODELS.values():
        code = "import sys, torch; torch.save(torch.jit.load(sys.argv[1], 'cpu').state_dict(), 'weights.pt')"
        raise UserError(f'{path} is a TorchScript archive, which is a program, and not one of OpenAI\'s published '
                        'files: it is not run. If you trust its source, save its weights and use weights.pt: '
                        f'python -c "{code}" {shlex.quote(str(path))}')
    return dict(torch.jit.load(path, map_location='cpu').state_dict())
