"""Pipeline steps that load an image and its mask, and say which file is wrong when one is."""
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import mmcv
import numpy as np
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import LoadImageFromFile
from PIL import ExifTags, Image

from models.errors import UserError
from models.image_io import InvalidImage, has_transparency, opened, read_image
from models.label_format import label_format


@PIPELINES.register_module()
class LoadImage(LoadImageFromFile):
    """Load an image (H, W, 3), BGR, and mmseg's keys of it; the same image that `read_image` gives.

    OpenCV decodes plain JPEG and PNG files, as in mmseg's `LoadImageFromFile`. `read_image` reads all others, as
    OpenCV sees other colours in some of them than a viewer (transparency, CMYK), or none.

    Raises:
        UserError: a file that is missing, does not decode or is too large to; the message names it.
    """

    def __call__(self, results: dict) -> dict:
        path = Path(results['img_prefix'] or '') / results['img_info']['filename']
        try:
            data = path.read_bytes()
            with opened(BytesIO(data), str(path)) as file:  # OpenCV would decode whatever size
                plain = file.format in ('JPEG', 'MPO', 'PNG') and file.mode in ('L', 'RGB') and \
                    not has_transparency(file)
            if not _is_whole(data):
                raise UserError(f'{path}: broken image, its end is missing. Copy it again.')
            image = mmcv.imfrombytes(data, self.color_type, backend=self.imdecode_backend) if plain else \
                read_image(path)[..., ::-1]
            image = np.ascontiguousarray(image, np.float32 if self.to_float32 else image.dtype)
        except FileNotFoundError:
            raise UserError(f'{path}: this image is missing.') from None
        except UserError:
            raise
        except Exception as error:  # of any kind: Pillow and OpenCV trust the file
            raise UserError(f'{path}: broken image, it does not decode. Copy it again.') from error
        results |= {'filename': str(path), 'ori_filename': results['img_info']['filename'], 'img': image}
        results |= dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), image.shape)
        results |= {'scale_factor': 1., 'img_norm_cfg': {'mean': np.zeros(3, np.float32), 'std': np.ones(3, np.float32),
                                                         'to_rgb': False}}
        return results


def _is_whole(data: bytes) -> bool:
    """False for a cut-off JPEG, which OpenCV would fill up with grey: no end marker after its last scan. And for a PNG
    with a chunk that is longer than the file: OpenCV would make room for it, up to 4 GB."""
    if data.startswith(b'\xff\xd8'):
        return data.rfind(b'\xff\xd9') > data.rfind(b'\xff\xda')
    place = 8 if data.startswith(b'\x89PNG') else len(data)
    while place < len(data):
        kind, place = data[place + 4:place + 8], place + 12 + int.from_bytes(data[place:place + 4], 'big')
        if kind == b'IEND':
            return True
    return place == len(data)


@PIPELINES.register_module()
class LoadLabels:
    """Loads the mask of an image as class indices, by what `ZeroShotDataset` puts into `results['masks']`.

    Args:
        reduce_zero_label: as the dataset says, which checks that both agree; mmseg's name for its own step.
    """

    def __init__(self, *, reduce_zero_label: bool | None = None):
        pass

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'

    def __call__(self, results: dict) -> dict:
        if 'ann_info' not in results:  # in testing, where scores load the masks
            return results
        path = f'{results["seg_prefix"]}/{results["ann_info"]["seg_map"]}'
        labels = load_mask(path, results['masks'])
        if 'img' in results:
            check_size(path, labels, results['img'].shape[:2])
        results['gt_semantic_seg'] = labels
        results['seg_fields'].append('gt_semantic_seg')
        return results


def load_mask(path: str, masks: 'MaskIds | MaskColours') -> np.ndarray:
    """Read a mask file -> class indices (H, W) in their `label_format`.

    Raises:
        UserError: it is missing, does not decode, or has values that mean nothing; the message names it.
    """
    try:
        with opened(path, path) as image:
            lossy, values = image.format == 'JPEG', masks.decode(image)
    except FileNotFoundError:
        raise UserError(f'{path}: this mask is missing.') from None
    except IsADirectoryError:
        raise UserError(f'{path} is a folder, no mask.') from None
    except InvalidImage:
        raise
    except UserError as error:
        raise UserError(f'{path}: {error}') from None
    except Exception as error:  # of any kind: Pillow trusts the file
        raise UserError(f'{path}: broken mask, it does not decode. Copy it again.') from error
    if lossy:
        raise UserError(f'{path}: this mask is a JPEG, which changes ids and colours. Make it again, as PNG.')
    return masks.labels(values, path)


def check_size(path: str, labels: np.ndarray, size: tuple[int, int]) -> None:
    """Raises a UserError where the mask is not of its image's size (H, W)."""
    if labels.shape != size:
        raise UserError(f'{path}: the mask is {labels.shape[1]}x{labels.shape[0]} pixels, its image '
                        f'{size[1]}x{size[0]}. They must be of one size.')


MASK_VALUES = 2**16  # of masks of 8 or 16 bits


class MaskIds:
    """The ids of masks, and the class that each means.

    Args:
        names: of the classes, whose ids follow each other.
        reduce_zero_label: id 0 is no class, and the classes count from 1.
        ignore_index: the id of pixels of no class in the mask files; without it the largest of 8 or of 16 bits,
            whichever holds all ids.

    Attributes:
        ids: of the classes, in order.
        void: the id of pixels of no class.
        ignore: the label that they get.

    Raises:
        UserError: `ignore_index` is no id of a mask, or that of a class.
    """

    def __init__(self, names: Sequence[str], *, reduce_zero_label: bool = False, ignore_index: int | None = None):
        self.ids = range(int(reduce_zero_label), int(reduce_zero_label) + len(names))
        self.void = label_format(self.ids.stop).ignore if ignore_index is None else ignore_index
        if type(self.void) is not int or not 0 <= self.void < MASK_VALUES:
            raise UserError(f'ignore_index={ignore_index!r}: the id of pixels of no class is needed, from 0 to '
                            f'{MASK_VALUES - 1}.')
        if self.void < self.ids.stop:
            whose = f'the id of class {names[self.void - self.ids.start]!r}' if self.void in self.ids else \
                'no class already (reduce_zero_label=True)'
            raise UserError(f'ignore_index={self.void} is {whose}. Where 0 is background and the classes count from 1, '
                            'say reduce_zero_label=True alone; else ignore_index is an id that no class has.')
        dtype, self.ignore = label_format(len(names))
        self.table = np.full(MASK_VALUES, self.ignore, dtype)
        self.table[self.ids.start:self.ids.stop] = np.arange(len(names))
        self.known = np.zeros(MASK_VALUES, bool)
        self.known[[*range(self.ids.stop), self.void]] = True

    @staticmethod
    def decode(image: Image.Image) -> np.ndarray:
        """The ids as they are in the file.

        Raises:
            UserError: a palette of greys, of which it is not clear whether its places or its greys are the ids.
        """
        raw = image.tile[0][3] if image.tile else ''  # how the file packs its pixels
        depth = re.fullmatch(r'L;([24])\w?', raw if isinstance(raw, str) else str(raw[0]))
        values = np.asarray(image)
        if depth:  # greys of 2 or 4 bits, which Pillow spreads to 255
            values = values // (255 // (2**int(depth[1]) - 1))
        if image.mode == 'P':
            used, colours = np.unique(values), np.reshape(image.getpalette('RGB'), (-1, 3))
            greys = colours[used[used < len(colours)], 0]
            if (colours == colours[:, :1]).all() and (greys != used[:len(greys)]).any():
                raise UserError('the mask has a palette of greys, whose places and values are not the same: '
                                f'{used[:4].tolist()} are shown as {greys[:4].tolist()}. Save it as greys of 8 bits, '
                                'without a palette, that are the ids.')
        return values

    def labels(self, ids: np.ndarray, path: str) -> np.ndarray:
        """Mask (H, W) of ids -> class indices (H, W).

        Raises:
            UserError: it has several channels, or other ids; the message names `path` and them.
        """
        if ids.ndim != 2:
            raise UserError(f'{path}: a mask has one label per pixel, this one has {ids.shape[2]} channels. '
                            'If its colours mean classes: colour_masks=True and palette=[...] in the config.')
        if ids.dtype.kind == 'f':
            raise UserError(f'{path}: the mask has floating-point values: save it with whole ids, of 8 or 16 bits.')
        if ids.dtype.itemsize > 2 and (ids.min() < 0 or ids.max() >= MASK_VALUES):
            strange = ids[(ids < 0) | (ids >= MASK_VALUES)]
        else:
            narrow = ids.dtype.itemsize == 1
            ids = ids.astype(np.uint8 if narrow else np.uint16, copy=False)
            strange = ids[~self.known[ids]]
            if narrow and self.ids.stop > 255 and (ids == 255).any():
                raise UserError(f'{path}: 255 in a mask of 8 bits could be one of the {len(self.ids)} classes or none. '
                                f'Save the masks with 16 bits, with {self.void} for no class.')
        if strange.size:
            raise UserError(f'{path}: label ids {np.unique(strange)[:5].tolist()} are out of range: the '
                            f'{len(self.ids)} classes have the ids {self.ids.start} to {self.ids.stop - 1}, '
                            f'{self.void} is no class (ignore_index).')
        return self.table[ids]


class MaskColours:
    """The colours of masks that are images, and the class that each means.

    Args:
        palette: (red, green, blue), each 0 to 255, of each class.
        ignored: colours that are no class.

    Raises:
        UserError: a colour is none, or occurs twice.
    """

    def __init__(self, palette: Sequence[Sequence[int]], ignored: Sequence[Sequence[int]] = ()):
        colours = checked_colours([*palette, *ignored])
        if len(set(colours)) != len(colours):
            twice = sorted({colour for colour in colours if colours.count(colour) > 1})
            raise UserError(f'palette: {", ".join(str(list(colour)) for colour in twice)} means two things.')
        codes = _codes(np.array(colours, dtype=np.uint8).reshape(-1, 3))
        dtype, self.ignore = label_format(len(palette))
        self.void = self.ignore
        labels = np.array([*range(len(palette)), *[self.ignore] * len(ignored)], dtype)
        order = codes.argsort()
        self.codes, self.meanings = codes[order], labels[order]

    @staticmethod
    def decode(image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert('RGB'))

    def labels(self, image: np.ndarray, path: str) -> np.ndarray:
        """Mask (H, W, 3) uint8 of colours -> class indices (H, W).

        Raises:
            UserError: it has other colours; the message names `path` and them.
        """
        codes = _codes(image)
        places = np.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
        unknown = np.unique(codes[self.codes[places] != codes])
        if len(unknown):
            colours = [[int(code) >> 16, int(code) >> 8 & 255, int(code) & 255] for code in unknown[:5]]
            more = f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''
            raise UserError(f'{path}: the palette has no colour {", ".join(map(str, colours))}{more}. Add them to '
                            'palette, or to ignored_colours if they are no class. (Thousands of colours come from '
                            'smooth resizing: masks must be saved without.)')
        return self.meanings[places]


def checked_colours(colours: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Raises a UserError where one is no colour (red, green, blue), each 0 to 255."""
    for colour in colours:
        if not isinstance(colour, (list, tuple)) or len(colour) != 3 or not all(
                isinstance(value, int) and 0 <= value <= 255 for value in colour):
            shown = list(colour) if isinstance(colour, tuple) else colour
            raise UserError(f'palette: {shown} is no colour; [red, green, blue], each 0 to 255, is one.')
    return [tuple(colour) for colour in colours]


def _codes(colours: np.ndarray) -> np.ndarray:
    """Colours (..., 3) uint8 -> numbers (...)."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width of an opened image as it is loaded: turned as its EXIF orientation says."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except Exception:  # of damaged EXIF data, which OpenCV disregards
        turned = False
    return (image.width, image.height) if turned else (image.height, image.width)
