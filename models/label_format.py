"""How label maps are kept: the number type, and the value of a pixel of no class. Nothing else knows these numbers."""
from typing import NamedTuple

import numpy as np

from .errors import UserError


class LabelFormat(NamedTuple):
    """Of label maps in memory and in files."""
    dtype: type[np.unsignedinteger]
    ignore: int  # the value of a pixel of no class: the largest of the type


def label_format(count: int) -> LabelFormat:
    """Give the format of the labels 0 to `count` - 1: 8 bits and 255 where these hold them, else 16 bits and 65535.

    Raises:
        UserError: there are too many.
    """
    for dtype in (np.uint8, np.uint16):
        if count <= (ignore := int(np.iinfo(dtype).max)):
            return LabelFormat(dtype, ignore)
    raise UserError(f'{count:,} classes: {ignore:,} at most.')
