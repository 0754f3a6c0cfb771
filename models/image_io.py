"""Reads images of any kind as a viewer shows them: upright, opaque, RGB with 8 bits."""
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import UserError

MAX_PIXELS = 100_000_000
MAX_ELONGATION = 20  # long side / short side: the short side is resized to a window's, so long images have many windows
ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.gif')
FORMATS = ('JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'GIF', 'PPM')  # others are programs, as EPS is, or rare

ImageSource = str | os.PathLike | Image.Image | np.ndarray


@contextmanager
def opened(source: str | os.PathLike | IO[bytes], name: str, *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image file without decoding it, after checking the size in its header.

    Args:
        name: of the file, for the error message.

    Raises:
        UserError: it has more than `max_pixels` pixels.
        Exception: of any type, from Pillow, for a damaged file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about sizes, which are checked here, and minor damage
        try:
            image = Image.open(source, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise _too_large(name, max_pixels) from error
        with image:
            if image.width * image.height > max_pixels:
                raise _too_large(name, max_pixels)
            yield image


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image -> (H, W, 3) uint8, RGB, as a viewer shows it.

    It is rotated as EXIF says, transparent parts become white, an animation gives its first image, 16 bits the upper 8.

    Args:
        source: a file, a PIL image, or an array: (H, W) or (H, W, 1) grey, (H, W, 3) RGB, (H, W, 4) RGB and opacity;
            uint8, uint16 (0 to 65535), bool, or float (0 to 1).
        max_pixels: larger images are refused before they are decoded.

    Raises:
        UserError: the source is not an image, or is damaged, empty or too large; the message names the remedy.
    """
    if isinstance(source, np.ndarray):
        return _upright(Image.fromarray(_bytes_of(source)), 'the array', max_pixels)
    if isinstance(source, Image.Image):
        return _upright(source, 'the image', max_pixels)
    if not isinstance(source, (str, os.PathLike)):
        raise UserError(f'an image must be a path, a PIL image or a numpy array, not {type(source).__name__}.')
    path = Path(source)
    if path.is_dir():
        raise UserError(f'{path} is a folder, not an image.')
    if not path.is_file():
        raise UserError(f'{path} is not a regular file.' if path.exists() else f'no file {path}.')
    if path.stat().st_size == 0:
        raise UserError(f'{path} is empty. Copy it again.')
    try:
        with opened(path, str(path), max_pixels=max_pixels) as image:
            return _upright(image, str(path), max_pixels)
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f'{path} is not an image of a supported kind ({", ".join(ENDINGS)}), or it is '
                        'damaged: save it as PNG.') from error
    except PermissionError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}.') from error
    except Exception as error:  # of any type, see `opened`
        raise UserError(f'{path} is damaged and cannot be decoded. Copy it again.') from error


def _too_large(name: str, max_pixels: int) -> UserError:
    return UserError(f'{name} has more than {max_pixels:,} pixels, the maximum: make it smaller.')


def _bytes_of(array: np.ndarray) -> np.ndarray:
    """Convert an array that `read_image` accepts to (H, W), (H, W, 3) or (H, W, 4) uint8."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or array.size == 0:
        raise UserError(f'an array of shape {array.shape} is not an image: use (H, W), (H, W, 3) or (H, W, 4).')
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if array.dtype.kind == 'f':
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise UserError('an image of floats must have values from 0 to 1; convert others to uint8.')
        return np.round(array * 255).astype(np.uint8)
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype != np.uint8:
        raise UserError(f'an array of {array.dtype} is not an image: use uint8, uint16, bool or floats from 0 to 1.')
    return np.ascontiguousarray(array)


def _upright(image: Image.Image, name: str, max_pixels: int) -> np.ndarray:
    """Decode an image, rotate it as EXIF says, and put it on white -> (H, W, 3) uint8, RGB."""
    if 0 in image.size:
        raise UserError(f'{name} has no pixels.')
    if image.width * image.height > max_pixels:
        raise _too_large(name, max_pixels)
    if max(image.size) > MAX_ELONGATION * min(image.size):
        raise UserError(f'{name} is {image.width}x{image.height} pixels: one side is more than '
                        f'{MAX_ELONGATION} times the other. Crop it.')
    image.load()  # decoding errors are raised here, and not hidden as damaged EXIF data below
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data
        image = image.copy()
    if image.mode.startswith('I'):  # 16 bits, also in 32
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == 'F':
        try:
            image = Image.fromarray(_bytes_of(np.asarray(image)))
        except UserError as error:
            raise UserError(f'{name}: {error}') from error
    if has_transparency(image):
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return np.asarray(image.convert('RGB'))


def has_transparency(image: Image.Image) -> bool:
    """Tell whether an opened image may have transparent parts."""
    return image.mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa') or 'transparency' in image.info
