"""Images of any kind as people see them: upright, opaque, in colours of 8 bits."""
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import UserError

MOST_PIXELS = 100_000_000
MOST_ELONGATED = 20  # long side / short side, which is made as long as a window's: there are more windows then
ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.gif')
FORMATS = ('JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'GIF', 'PPM')  # others, such as EPS, are programs, or little tried
STARTS_OF_TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')

ImageSource = str | os.PathLike | Image.Image | np.ndarray


class InvalidImage(UserError):
    """An image that is not taken; the message says why, and what to do."""


@contextmanager
def opened(source: str | os.PathLike | IO[bytes], name: str, *, most_pixels: int = MOST_PIXELS
           ) -> Iterator[Image.Image]:
    """An image file, not decoded yet, of whose size its header tells that it can be.

    Args:
        name: of the file, for the message.

    Raises:
        InvalidImage: it has more pixels than `most_pixels`.
        Exception: of any kind, in opening or decoding it, as Pillow raises them for damaged files.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of sizes, which are looked at here, and of damage, which need not matter
        try:
            image = Image.open(source, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise _too_large(name, most_pixels) from error
        with image:
            if image.width * image.height > most_pixels:
                raise _too_large(name, most_pixels)
            yield image


def read_image(source: ImageSource, *, most_pixels: int = MOST_PIXELS) -> np.ndarray:
    """An image (H, W, 3) uint8, RGB, as a viewer shows it.

    Turned as its EXIF data say; transparent parts on white; of an animation the first image; of 16 bits the upper 8.

    Args:
        source: a file, a PIL image, or an array: (H, W) or (H, W, 1) grey, (H, W, 3) RGB, (H, W, 4) RGB and opacity, of
            uint8, uint16 (0 to 65535), bool, or floats from 0 to 1.
        most_pixels: what has more is refused before it is decoded.

    Raises:
        UserError: no image, a damaged or an empty one, or one that is too large; the message names the remedy.
    """
    if isinstance(source, np.ndarray):
        return _upright(Image.fromarray(_bytes_of(source, most_pixels)), 'the array')
    if isinstance(source, Image.Image):
        if source.width * source.height > most_pixels:
            raise _too_large('the image', most_pixels)
        return _upright(source, 'the image')
    if not isinstance(source, (str, os.PathLike)):
        raise UserError(f'an image is a path, a PIL image or a numpy array, not {type(source).__name__}.')
    path = Path(source)
    if path.is_dir():
        raise UserError(f'{path} is a folder, no image.')
    if not path.is_file():
        raise UserError(f'{path} is no regular file.' if path.exists() else f'no file {path}.')
    if path.stat().st_size == 0:
        raise UserError(f'{path} is empty. Copy it again.')
    try:
        with opened(path, str(path), most_pixels=most_pixels) as image:
            return _upright(image, str(path))
    except InvalidImage:
        raise
    except UnidentifiedImageError as error:
        with path.open('rb') as file:
            if file.read(4) in STARTS_OF_TIFF:
                raise UserError(f'{path} is a TIFF of a kind that is not read here: save it as PNG.') from error
        raise UserError(f'{path} is no image of a kind that is known here ({", ".join(ENDINGS)}), or it is '
                        'damaged.') from error
    except PermissionError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}.') from error
    except Exception as error:  # of any kind, see `opened`
        raise UserError(f'{path} is damaged, it does not decode. Copy it again.') from error


def _too_large(name: str, most_pixels: int) -> InvalidImage:
    return InvalidImage(f'{name} has more than {most_pixels:,} pixels, the most that are taken: make it smaller.')


def _bytes_of(array: np.ndarray, most_pixels: int) -> np.ndarray:
    """An array of any of the kinds that `read_image` takes -> (H, W), (H, W, 3) or (H, W, 4) uint8."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or array.size == 0:
        raise UserError(f'an array of shape {array.shape} is no image: (H, W), (H, W, 3) or (H, W, 4) is one.')
    if array.shape[0] * array.shape[1] > most_pixels:
        raise _too_large('the array', most_pixels)
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if array.dtype.kind == 'f':
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise UserError('an image of floats has values from 0 to 1; make others uint8 first.')
        return np.round(array * 255).astype(np.uint8)
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype != np.uint8:
        raise UserError(f'an array of {array.dtype} is no image: uint8, uint16, bool or floats from 0 to 1.')
    return np.ascontiguousarray(array)


def _upright(image: Image.Image, name: str) -> np.ndarray:
    if 0 in image.size:
        raise InvalidImage(f'{name} has no pixels.')
    if max(image.size) > MOST_ELONGATED * min(image.size):
        raise InvalidImage(f'{name} is {image.width}x{image.height} pixels: one side is more than '
                           f'{MOST_ELONGATED} times the other. Cut it.')
    image.load()  # whose errors are of the image itself
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # of damaged EXIF data
        image = image.copy()
    if image.mode.startswith('I;16'):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == 'F':
        try:
            image = Image.fromarray(_bytes_of(np.asarray(image), image.width * image.height))
        except UserError as error:
            raise InvalidImage(f'{name}: {error}') from error
    elif image.mode == 'I':  # 16 bits in 32
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if has_transparency(image):
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return np.asarray(image.convert('RGB'))


def has_transparency(image: Image.Image) -> bool:
    """Tell whether an opened image may have transparent parts."""
    return image.mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa') or 'transparency' in image.info
