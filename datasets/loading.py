"""Pipeline steps that load a picture and its mask, and say which file is wrong when one is."""
import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import mmcv
import numpy as np
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import LoadAnnotations, LoadImageFromFile
from PIL import ExifTags, Image

from models.errors import UserError
from models.inference.pictures import NoPicture, has_transparency, opened, read_picture

IGNORE = 255


@PIPELINES.register_module()
class LoadPicture(LoadImageFromFile):
    """Load an image (H, W, 3), BGR, and mmseg's keys of it; the same image that `read_picture` gives.

    OpenCV decodes plain JPEG and PNG files, as in mmseg's `LoadImageFromFile`. `read_picture` reads all others, as
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
                raise UserError(f'{path}: broken picture, its end is missing. Copy it again.')
            image = mmcv.imfrombytes(data, self.color_type, backend=self.imdecode_backend) if plain else \
                read_picture(path)[..., ::-1]
            image = np.ascontiguousarray(image, np.float32 if self.to_float32 else image.dtype)
        except FileNotFoundError:
            raise UserError(f'{path}: this picture is missing.') from None
        except UserError:
            raise
        except Exception as error:  # of any kind: Pillow and OpenCV trust the file
            raise UserError(f'{path}: broken picture, it does not decode. Copy it again.') from error
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
class LoadLabels(LoadAnnotations):
    """mmseg's `LoadAnnotations`; a ValueError names a mask that does not decode or does not fit.

    Beside mmseg's keys reads `num_classes`, `reduce_zero_label` and `mask_colours` of `results`, which
    `ZeroShotDataset` puts there.

    Args:
        reduce_zero_label: id 0 is no class, and the others count from 1; without it as the data set says.
    """

    def __init__(self, *, reduce_zero_label: bool | None = None, **kwargs):
        super().__init__(**kwargs)
        self.asked = reduce_zero_label

    def __call__(self, results: dict) -> dict:
        self.reduce_zero_label = results['reduce_zero_label'] if self.asked is None else self.asked
        path = f'{results["seg_prefix"]}/{results["ann_info"]["seg_map"]}'
        colours = results['mask_colours']
        try:
            with opened(path, path) as image:
                mode, lossy, size = image.mode, image.format == 'JPEG', (image.height, image.width)
                picture = None if colours is None else np.asarray(image.convert('RGB'))
            if colours is None:
                results = super().__call__(results)
                if results['gt_semantic_seg'].size == math.prod(size):  # mmseg drops sides of 1 pixel
                    results['gt_semantic_seg'] = results['gt_semantic_seg'].reshape(size)
        except FileNotFoundError:
            raise UserError(f'{path}: this mask is missing.') from None
        except IsADirectoryError:
            raise UserError(f'{path} is a folder, no mask.') from None
        except NoPicture:
            raise
        except Exception as error:  # of any kind: Pillow trusts the file
            raise UserError(f'{path}: broken mask, it does not decode. Copy it again.') from error
        if lossy:
            raise UserError(f'{path}: this mask is a JPEG, which changes ids and colours. Make it again, as PNG.')
        if colours is not None:
            results['gt_semantic_seg'] = colours.labels(picture, path)
            results['seg_fields'].append('gt_semantic_seg')
        elif mode.startswith(('I', 'F')):
            raise UserError(f'{path}: the mask has more than 8 bits a pixel; label ids are 0 to 255.')
        self._check(results, path)
        return results

    def _check(self, results: dict, path: str) -> None:
        labels = results['gt_semantic_seg']
        if labels.ndim != 2:
            raise UserError(f'{path}: a mask has one label per pixel, this one has {labels.shape[2]} channels. '
                             'If its colours mean classes: colour_masks=True and palette=[...] in the config.')
        if 'img' in results and labels.shape != results['img'].shape[:2]:
            picture = results['img'].shape[:2]
            raise UserError(f'{path}: the mask is {labels.shape[1]}x{labels.shape[0]} pixels, its picture '
                             f'{picture[1]}x{picture[0]}. They must be of one size.')
        first_wrong = results['num_classes'] + (results['reduce_zero_label'] and not self.reduce_zero_label)
        wrong = np.unique(labels[(labels >= first_wrong) & (labels != IGNORE)])
        if len(wrong):
            raise UserError(f'{path}: label ids {wrong[:5].tolist()} are out of range: '
                             f'{results["num_classes"]} classes, 255 is no class.')


class MaskColours:
    """The colours of masks that are pictures, and the class that each means.

    Args:
        palette: (red, green, blue), each 0 to 255, of each class.
        ignored: colours that are no class.

    Raises:
        UserError: a colour is none, or occurs twice.
    """

    def __init__(self, palette: Sequence[Sequence[int]], ignored: Sequence[Sequence[int]] = ()):
        colours = [colour if isinstance(colour, str) else tuple(colour) for colour in (*palette, *ignored)]
        for colour in colours:
            if len(colour) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in colour):
                shown = colour if isinstance(colour, str) else list(colour)
                raise UserError(f'palette: {shown} is no colour; [red, green, blue], each 0 to 255, is one.')
        if len(set(colours)) != len(colours):
            twice = sorted({colour for colour in colours if colours.count(colour) > 1})
            raise UserError(f'palette: {", ".join(str(list(colour)) for colour in twice)} means two things.')
        codes = _codes(np.array(colours, dtype=np.uint8).reshape(-1, 3))
        labels = np.array([*range(len(palette)), *[IGNORE] * len(ignored)], dtype=np.uint8)
        order = codes.argsort()
        self.codes, self.meanings = codes[order], labels[order]

    def labels(self, picture: np.ndarray, path: str) -> np.ndarray:
        """Picture (H, W, 3) uint8 -> class indices (H, W) uint8, 255 for no class.

        Raises:
            UserError: it has other colours; the message names `path` and them.
        """
        codes = _codes(picture)
        places = np.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
        unknown = np.unique(codes[self.codes[places] != codes])
        if len(unknown):
            colours = [[int(code) >> 16, int(code) >> 8 & 255, int(code) & 255] for code in unknown[:5]]
            more = f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''
            raise UserError(f'{path}: the palette has no colour {", ".join(map(str, colours))}{more}. Add them to '
                             'palette, or to ignored_colours if they are no class. (Thousands of colours come from '
                             'smooth resizing: masks must be saved without.)')
        return self.meanings[places]


def _codes(colours: np.ndarray) -> np.ndarray:
    """Colours (..., 3) uint8 -> numbers (...)."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width of an opened picture as it is loaded: turned as its EXIF orientation says."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except Exception:  # of damaged EXIF data, which OpenCV disregards
        turned = False
    return (image.width, image.height) if turned else (image.height, image.width)
