"""Number type of label maps, and the value of a pixel of no class: the one place that defines them."""
from typing import NamedTuple

import numpy as np

from .errors import UserError


class LabelFormat(NamedTuple):
    """Format of label maps in memory and in files."""
    dtype: type[np.unsignedinteger]
    ignore: int  # the value of a pixel of no class: the largest of the type


def label_format(count: int) -> LabelFormat:
    """Give the format of the labels 0 to `count` - 1: 8 bits and 255 where these hold them, else 16 bits and 65535.

    Raises:
        UserError: more than 65,535 classes.
    """
    for dtype in (np.uint8, np.uint16):
        if count <= (ignore := int(np.iinfo(dtype).max)):
            return LabelFormat(dtype, ignore)
    raise UserError(f'{count:,} classes: {ignore:,} at most.')
