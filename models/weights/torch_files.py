"""Files of `torch.save` and TorchScript archives, read without running anything that they hold.

Such a file is the bytes of tensors and a pickle, which is a program for a small stack machine. This is that machine
with the instructions and functions that tensors and plain values need, and no others. It makes no objects but these:
in place of any other there is an `Unknown`, which is a name and nothing more. It takes no more memory than a few times
the size of the file. A TorchScript archive also holds code, of which only the lists of parameters and buffers are
read, as text.
"""
import math
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError

Plain = str | int | float | bool | bytes | list | tuple | dict | Tensor | None
KEYS = (str, int, float, bool, bytes, type(None))  # what a dict may have as one, or a short tuple of them

DTYPES = {'DoubleStorage': torch.float64, 'FloatStorage': torch.float32, 'HalfStorage': torch.float16,
          'BFloat16Storage': torch.bfloat16, 'LongStorage': torch.int64, 'IntStorage': torch.int32,
          'ShortStorage': torch.int16, 'CharStorage': torch.int8, 'ByteStorage': torch.uint8,
          'BoolStorage': torch.bool, 'ComplexFloatStorage': torch.complex64, 'ComplexDoubleStorage': torch.complex128}
NEWER_DTYPES = [getattr(torch, name) for name in (  # those that have no storage of their own, as far as torch has them
    'uint16', 'uint32', 'uint64', 'float8_e4m3fn', 'float8_e5m2', 'float8_e4m3fnuz', 'float8_e5m2fnuz')
    if hasattr(torch, name)]
NUMBERS = re.compile(r'[<|=]?([fiu][248]|[iu]1|b1)')  # numpy's types of them
HEADER_OF_LEGACY = (0x1950a86a20f9469cfc6c, 1001)  # before torch 1.6: no zip file, pickles one after the other
MOST_TENSORS = 4_000_000_000  # bytes that tensors may come to whose file is smaller, as strides of 0 make possible
DEEPEST = 100  # values in values
MOST_VALUES = 1_000_000
LONGEST_NAME = 10_000  # of a tensor
LONGEST_CODE = 16_000_000  # bytes of a file of a TorchScript archive
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Unknown:
    """Stands for a function, a class or an object that is not listed here, by its name; what it was made of is gone."""
    name: str


def read(path: Path) -> Plain | Unknown:
    """What a file of `torch.save` holds: dicts, lists, numbers, texts, and tensors on the CPU, wherever they were.

    Of a TorchScript archive it is the state dict: parameters and buffers by name. Anything else is an `Unknown`.

    Raises:
        Exception: of any kind, for a damaged file.
    """
    size = path.stat().st_size
    with path.open('rb') as file:
        if file.read(4) == b'PK\x03\x04':
            with zipfile.ZipFile(file) as archive:
                return _read_zip(archive, size)
        file.seek(0)
        return _read_legacy(file, size)


class Budget:
    """What reading may take, in bytes: enough for any file of torch, and bounded by its size."""

    def __init__(self, size: int):
        self.left = 4 * size + 1_000_000

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise UserError('it claims to hold more than it does')


class Storage(NamedTuple):
    """Bytes that tensors are views of, and the type of the numbers in them."""
    content: bytearray
    dtype: torch.dtype

    @property
    def count(self) -> int:
        return len(self.content) // self.dtype.itemsize


class Part(NamedTuple):
    """An object of a TorchScript archive: the name of its class, and its attributes, once they are known."""
    kind: str
    attributes: dict


class _Name(NamedTuple):
    """What a pickle knows by name: a function, a class of a TorchScript archive, a type of storage."""
    function: Callable | None = None
    kind: str | None = None
    dtype: torch.dtype | None = None


class Machine:
    """Runs the pickles of one file.

    Args:
        storage: the type of numbers, the key and the count of a storage -> that storage.
    """

    def __init__(self, storage: Callable[[torch.dtype, str, int], Storage], budget: Budget):
        self.storage, self.budget = storage, budget
        functions = {
            'collections.OrderedDict': lambda: OrderedDict(), 'torch._utils._rebuild_tensor_v2': self._tensor,
            'torch._utils._rebuild_tensor_v3': self._tensor_of_bytes,
            **{f'torch._utils._rebuild_parameter{kind}': lambda data, *_: data for kind in ('', '_with_state')},
            'torch._tensor._rebuild_from_type_v2': lambda function, _, arguments, *__: _called(function, arguments),
            'torch.Size': _size, 'torch.device': _device,
            '_codecs.encode': self._bytes, '__builtin__.bytes': lambda: b'', 'numpy.dtype': _number_type,
            'numpy.core.multiarray.scalar': _number, 'numpy._core.multiarray.scalar': _number,
            **{f'torch.jit._pickle.{name}': lambda value, *_: value for name in (
                'restore_type_tag', 'build_intlist', 'build_doublelist', 'build_boollist', 'build_tensorlist')}}
        self.names = {name: _Name(function) for name, function in functions.items()}
        self.names |= {str(dtype): dtype for dtype in (*DTYPES.values(), *NEWER_DTYPES)}
        for name, dtype in {**DTYPES, 'storage.UntypedStorage': torch.uint8}.items():
            self.names |= dict.fromkeys((f'torch.{name}', f'torch.cuda.{name}'), _Name(dtype=dtype))

    def run(self, file: IO[bytes]) -> Plain | Part | Unknown:
        """What the pickle at the file's position describes; the position is then behind it."""
        stack, marks, memo = [], [], {}

        def since_mark() -> list:
            start = marks.pop()
            items = stack[start:]
            del stack[start:]
            return items

        for instruction, argument, _ in pickletools.genops(file):
            match instruction.name:
                case ('BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'BINFLOAT' | 'SHORT_BINUNICODE' | 'BINUNICODE'
                      | 'BINUNICODE8' | 'SHORT_BINSTRING' | 'SHORT_BINBYTES' | 'BINBYTES' | 'BINBYTES8'):
                    stack.append(argument)
                case 'NONE':
                    stack.append(None)
                case 'NEWTRUE' | 'NEWFALSE':
                    stack.append(instruction.name == 'NEWTRUE')
                case 'EMPTY_TUPLE':
                    stack.append(())
                case 'EMPTY_LIST':
                    stack.append([])
                case 'EMPTY_DICT':
                    stack.append({})
                case 'EMPTY_SET':
                    stack.append(Unknown('builtins.set'))
                case 'FROZENSET':
                    since_mark()
                    stack.append(Unknown('builtins.frozenset'))
                case 'BYTEARRAY8':
                    stack.append(Unknown('builtins.bytearray'))
                case 'MARK':
                    marks.append(len(stack))
                case 'TUPLE':
                    stack.append(tuple(since_mark()))
                case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                    count = int(instruction.name[-1])
                    stack[-count:] = [tuple(stack[-count:])]
                case 'APPEND' | 'APPENDS' | 'ADDITEMS':
                    items = [stack.pop()] if instruction.name == 'APPEND' else since_mark()
                    if not isinstance(stack[-1], Unknown):
                        _of(stack[-1], list).extend(items)
                case 'SETITEM' | 'SETITEMS':
                    items = since_mark() if instruction.name == 'SETITEMS' else [stack.pop(-2), stack.pop()]
                    if not isinstance(stack[-1], Unknown):
                        _of(stack[-1], dict, OrderedDict).update(
                            (_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))
                case 'BINGET' | 'LONG_BINGET':
                    stack.append(memo[argument])
                case 'BINPUT' | 'LONG_BINPUT':
                    memo[argument] = stack[-1]
                case 'MEMOIZE':
                    memo[len(memo)] = stack[-1]
                case 'GLOBAL':
                    stack.append(self._named(argument.replace(' ', '.')))
                case 'STACK_GLOBAL':
                    name, module = _of(stack.pop(), str), _of(stack.pop(), str)
                    stack.append(self._named(f'{module}.{name}'))
                case 'NEWOBJ' | 'NEWOBJ_EX':
                    if instruction.name == 'NEWOBJ_EX':
                        stack.pop()
                    arguments, named = stack.pop(), _of(stack.pop(), _Name, Unknown)
                    if isinstance(named, _Name) and (named.kind is None or arguments != ()):
                        raise UserError('a new object of no class')
                    stack.append(named if isinstance(named, Unknown) else Part(named.kind, {}))
                case 'REDUCE':
                    arguments, function = stack.pop(), stack.pop()
                    stack.append(_called(function, arguments))
                case 'BUILD':
                    state = stack.pop()
                    stack[-1] = _built(stack[-1], state)
                case 'BINPERSID':
                    stack.append(self._stored(*_of(stack.pop(), tuple)))
                case 'PROTO' | 'FRAME' | 'STOP':
                    pass
                case other:
                    raise UserError(f'an instruction {other}')
        return stack.pop()

    def _named(self, name: str) -> _Name | torch.dtype | Unknown:
        if not name.isprintable():
            raise UserError('a name that is no text')
        return _Name(kind=name) if name.startswith('__torch__.') else self.names.get(name, Unknown(name))

    def _stored(self, what: str, kind: _Name, key: str, place: str, count: int = 0, view: None = None
                ) -> Storage | Unknown:
        """`place` is the device that it was on; of a class of module, as old files name them, its source code."""
        if isinstance(kind, Unknown):
            return kind
        if what != 'storage' or view is not None or _of(kind, _Name).dtype is None:
            raise UserError('no storage')
        return self.storage(kind.dtype, _of(key, str), _count(count))

    def _tensor(self, storage: Storage, offset: int, size: tuple, stride: tuple, *_) -> Tensor:
        """A view that stays within its storage; its elements may be one and the same, where strides are 0."""
        size, stride = ([_count(length) for length in _of(lengths, tuple)] for lengths in (size, stride))
        elements = _count(math.prod(size))
        last = _count(offset) + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if elements and last >= _of(storage, Storage).count:
            raise UserError('a tensor that is larger than its storage')
        flat = torch.empty(0, dtype=storage.dtype)
        numbers = torch.frombuffer(storage.content, dtype=storage.dtype) if elements else flat
        return flat.set_(numbers.untyped_storage(), offset if elements else 0, size, stride)

    def _tensor_of_bytes(self, storage: Storage, offset: int, size: tuple, stride: tuple, gradient: bool, hooks: dict,
                         dtype: torch.dtype, *_) -> Tensor | Unknown:
        if isinstance(dtype, Unknown):
            return dtype
        return self._tensor(_of(storage, Storage)._replace(dtype=_of(dtype, torch.dtype)), offset, size, stride)

    def _bytes(self, text: str, encoding: str) -> bytes:
        """How bytes are pickled: as the text that has them as its Latin 1."""
        if encoding != 'latin1':
            raise UserError('another encoding')
        self.budget.spend(len(text))
        return _of(text, str).encode('latin1')


def _of(value, *types: type):
    if type(value) not in types:
        raise UserError(f'a {type(value).__name__} in a wrong place')
    return value


def _called(function: _Name | Unknown, arguments: tuple):
    """What a function gives; of what is unknown, or of a first argument that is, the unknown itself."""
    for value in (function, *_of(arguments, tuple)[:1]):
        if isinstance(value, Unknown):
            return value
    return _of(function, _Name).function(*arguments)


def _key(value):
    """A key of a dict; what is long or deep takes long to be hashed, each time."""
    parts = value if type(value) is tuple and len(value) < 10 else (value,)
    if not all(type(part) in KEYS or isinstance(part, (Unknown, torch.dtype, np.generic)) for part in parts):
        raise UserError(f'a {type(value).__name__} as a key')
    return value


def _count(value: int) -> int:
    if not 0 <= _of(value, int) < 1 << 62:
        raise UserError('a number that counts nothing')
    return value


def _size(lengths: tuple) -> tuple:
    return tuple(_of(length, int) for length in _of(lengths, tuple))


def _device(name: str) -> str:
    return _of(name, str)


def _number_type(name: str, *_) -> np.dtype | Unknown:
    return np.dtype(name) if NUMBERS.fullmatch(_of(name, str)) else Unknown('numpy.dtype')


def _number(kind: np.dtype, data: bytes) -> np.generic:
    """A number of numpy, such as a best score that mmcv has put into its meta."""
    if not isinstance(kind, np.dtype) or len(_of(data, bytes)) != kind.itemsize:
        raise UserError('no number')
    return np.frombuffer(data, kind)[0]


def _built(value, state):
    """A value, once its state is known."""
    if isinstance(value, Unknown):
        return value
    if isinstance(value, Part):
        return value._replace(attributes=_of(state, dict))
    if isinstance(value, OrderedDict):
        value._metadata = state['_metadata']  # torch's versions of the modules of a state dict
    elif not isinstance(value, np.dtype) or _of(state, tuple)[1] not in ('<', '|', '='):
        raise UserError('a state of what has none')
    return value


def _storage(content: bytearray, dtype: torch.dtype, count: int) -> Storage:
    if count * dtype.itemsize != len(content):
        raise UserError('a storage of another length')
    return Storage(content, dtype)


def _read_zip(archive: zipfile.ZipFile, size: int) -> Plain:
    names = set(archive.namelist())
    pickles = [name for name in names if name.endswith('/data.pkl') and name.count('/') == 1]
    if len(pickles) != 1:
        raise UserError('not one pickle')
    folder = pickles[0].removesuffix('data.pkl')
    budget, contents = Budget(size), {}

    def record(name: str) -> bytearray:
        """A file of the archive; its checksum is looked at."""
        entry = archive.getinfo(folder + name)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError('compressed in an unusual way: pack it again as a usual zip file')
        budget.spend(entry.file_size)
        content = bytearray(entry.file_size)
        with archive.open(entry) as file:
            fill(file, content)
            if file.read(1):
                raise UserError('a part of it is longer than it should be')
        return content

    def storage(dtype: torch.dtype, key: str, count: int) -> Storage:
        if key not in contents:
            contents[key] = record(f'data/{key}')
        return _storage(contents[key], dtype, count)

    if f'{folder}byteorder' in names and record('byteorder') != b'little':
        raise UserError('of a machine with another order of bytes')
    content = Machine(storage, budget).run(BytesIO(record('data.pkl')))
    if f'{folder}constants.pkl' in names and not isinstance(content, Unknown):
        content = dict(_state_dict(_of(content, Part), Code(archive, folder)))
    check_plain(content, size)
    return content


def fill(file: IO[bytes], content: bytearray) -> None:
    """Reads as many bytes as it has room for."""
    room = memoryview(content)
    while len(room):
        count = file.readinto(room[:CHUNK])
        if not count:
            raise EOFError
        room = room[count:]


def _read_legacy(file: IO[bytes], size: int) -> Plain:
    budget, contents = Budget(size), {}

    def storage(dtype: torch.dtype, key: str, count: int) -> Storage:
        if key not in contents:
            budget.spend(count * dtype.itemsize)
            contents[key] = Storage(bytearray(count * dtype.itemsize), dtype)  # which is filled at the end
        return _storage(contents[key].content, dtype, count)

    machine = Machine(storage, budget)
    if (machine.run(file), machine.run(file)) != HEADER_OF_LEGACY or machine.run(file)['little_endian'] is not True:
        raise UserError('no file of torch, or of a machine with another order of bytes')
    content, keys = machine.run(file), machine.run(file)
    if sorted(_of(keys, list)) != sorted(contents):
        raise UserError('storages lack')
    for key in keys:
        if int.from_bytes(file.read(8), 'little') != contents[key].count:
            raise UserError('a storage of another length')
        fill(file, contents[key].content)
    check_plain(content, size)
    return content


def check_plain(content: Plain, size: int) -> None:
    """Raises a UserError if there is more than plain values in it, too deep in each other, or far more than fits into
    a file of `size` bytes, as where one value is in many places."""
    left, room, tensors = [(content, 0)], MOST_VALUES, max(MOST_TENSORS, 4 * size)
    while left:
        value, depth = left.pop()
        room -= 1
        if room < 0 or depth > DEEPEST:
            raise UserError('too many values, or too deep in each other')
        if isinstance(value, dict):
            if not all(name.isprintable() for name in value if isinstance(name, str)):  # they are shown in messages
                raise UserError('a name that is no text')
            inside = [*value, *value.values(), getattr(value, '_metadata', None)]
        elif type(value) in (list, tuple):
            inside = value
        elif type(value) is str:
            value.encode()  # raises a ValueError for what is no text
            continue
        elif isinstance(value, Tensor):
            tensors -= value.numel() * value.itemsize
            if tensors < 0:
                raise UserError('tensors much larger than the file')
            continue
        elif value is None or isinstance(value, (int, float, bytes, torch.dtype, np.generic, np.dtype, Unknown,
                                                  Storage, _Name)):
            continue
        else:
            raise UserError(f'a {type(value).__name__} is no plain value')
        if len(inside) > room:
            raise UserError('too many values')
        left.extend((item, depth + 1) for item in inside)


class Code:
    """The code of a TorchScript archive, as text: which attributes of a class are its parameters and buffers."""

    def __init__(self, archive: zipfile.ZipFile, folder: str):
        self.archive, self.folder = archive, folder
        self.texts, self.known = {}, {}

    def tensors_of(self, kind: str) -> set[str] | None:
        """The names of a module's parameters and buffers; None for a class that is no module."""
        if kind not in self.known:
            place, _, name = kind.rpartition('.')
            lists = rf'^class {re.escape(name)}\(Module\):\n  __parameters__ = \[(.*)\]\n' \
                    r'(?:  __buffers__ = \[(.*)\]\n)?'  # which archives of old versions of torch do not have
            found = re.search(lists, self._text(place), re.M)
            self.known[kind] = found and set(re.findall(r'"([^"\\]*)"', found[1] + (found[2] or '')))
        return self.known[kind]

    def _text(self, place: str) -> str:
        if place not in self.texts:
            entry = self.archive.getinfo(f'{self.folder}code/{place.replace(".", "/")}.py')
            if entry.file_size > LONGEST_CODE:
                raise UserError('long code')
            with self.archive.open(entry) as file:
                self.texts[place] = file.read(LONGEST_CODE).decode()
        return self.texts[place]


def _state_dict(part: Part, code: Code) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers of a part and of the parts in it, by name, as torch's `state_dict` has them."""
    left, room = [('', part, 0)], MOST_VALUES
    while left:
        prefix, part, depth = left.pop()
        own = code.tensors_of(part.kind)
        if own is None:
            continue
        room -= 1 + len(part.attributes)
        if room < 0 or depth > DEEPEST or len(prefix) > LONGEST_NAME:
            raise UserError('too many parts, or too deep in each other')
        for name, value in part.attributes.items():
            if isinstance(value, Part):
                left.append((f'{prefix}{name}.', value, depth + 1))
            elif isinstance(value, Tensor) and name in own:
                yield f'{prefix}{name}', value
