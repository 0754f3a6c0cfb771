"""Label maps in MATLAB files, as PASCAL Context's owners publish them."""
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from math import prod

import numpy as np

from models.errors import UserError
from models.image_io import MAX_PIXELS

NUMBERS = {'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64', 'single', 'double'}
MATRIX, COMPRESSED = 14, 15  # types of elements in a file (MAT-File Format, version 5, table 1-1)
TYPES = {*range(1, 8), 9, 12, 13, MATRIX, 16, 17, 18}  # of elements of a matrix
MOST_BYTES = 8 * MAX_PIXELS + 4096  # of a label map and what describes it


def read_label_map(content: bytes, name: str) -> np.ndarray:
    """Read the variable `LabelMap` of a MATLAB file, ids (H, W). Nothing in the file is run.

    Args:
        name: of the file, for messages.

    Raises:
        UserError: it is no MATLAB file or damaged, or has no such variable of numbers (H, W).
    """
    from scipy.io import loadmat, whosmat  # slow to import, and few datasets need it
    try:
        found = {variable: (shape, kind) for variable, shape, kind in whosmat(BytesIO(content))}
        shape, kind = found.get('LabelMap', ((), ''))
        if len(shape) == 2 and kind in NUMBERS and 0 < prod(shape) <= MAX_PIXELS:
            _check_types(content)
            ids = loadmat(BytesIO(content), variable_names=['LabelMap'])['LabelMap']
            whole = ids.dtype.kind == 'f' and (ids == ids.astype(np.int32)).all()  # MATLAB's numbers are doubles
            return ids.astype(np.int32) if whole else ids
    except NotImplementedError:
        raise UserError(f'{name}: this MATLAB file is of version 7.3. Save it with -v7, or save PNG masks.') from None
    except Exception as error:  # of any kind: SciPy trusts the file
        raise UserError(f'{name}: broken mask, it is no MATLAB file or damaged. Copy it again.') from error
    held = ', '.join(f'{variable} {"x".join(map(str, shape))} {kind}' for variable, (shape, kind) in found.items())
    raise UserError(f'{name}: a variable LabelMap of ids, height x width, is needed; the file holds {held or "none"}.')


def _check_types(content: bytes) -> None:
    """Raise a ValueError if a matrix of a version 5 file has elements of an unknown type: SciPy 1.17 would crash."""
    order = {b'IM': '<', b'MI': '>'}.get(content[126:128])
    for kind, data in _elements(content[128:], order) if order else ():
        if kind == COMPRESSED:
            (kind, data), = _elements(zlib.decompressobj().decompress(data, MOST_BYTES), order)
        if kind == MATRIX and not {each for each, _ in _elements(data, order)} <= TYPES:
            raise ValueError('an element of an unknown type')


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each element, by the order of its bytes, '<' or '>'."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from(f'{order}II', data, place)
        if kind >> 16:  # a small one: its size and type share four bytes, and its content has the other four
            yield kind & 0xffff, data[place + 4:place + 8]
            place += 8
        else:
            yield kind, data[place + 8:place + 8 + size]
            place += 8 + size + (0 if kind == COMPRESSED else -size % 8)
