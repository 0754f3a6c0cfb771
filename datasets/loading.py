"""Pipeline steps that load an image and its mask; a damaged file is an error that names it."""
from io import BytesIO
from pathlib import Path

import mmcv
import numpy as np
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import LoadImageFromFile
from PIL import ExifTags, Image

from models.errors import UserError
from models.image_io import has_transparency, opened, read_image

from .masks import MaskColours, MaskIds
from .matlab import read_label_map


@PIPELINES.register_module()
class LoadImage(LoadImageFromFile):
    """Load an image (H, W, 3), BGR, and mmseg's keys of it; the same pixels as `read_image` gives.

    OpenCV decodes plain JPEG and PNG files, as in mmseg's `LoadImageFromFile`. All others go through `read_image`:
    OpenCV shows transparent and CMYK images in other colours than a viewer, or cannot read them.

    Raises:
        UserError: the file is missing, damaged or too large.
    """

    def __call__(self, results: dict) -> dict:
        path = Path(results['img_prefix'] or '') / results['img_info']['filename']
        try:
            data = path.read_bytes()
            with opened(BytesIO(data), str(path)) as file:  # checks the size, which OpenCV does not
                plain = file.format in ('JPEG', 'MPO', 'PNG') and file.mode in ('L', 'RGB') and \
                    not has_transparency(file)
            if not _is_complete(data):
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


def _is_complete(data: bytes) -> bool:
    """Check the end of a JPEG or PNG.

    OpenCV fills a truncated JPEG (no end marker after its last scan) with grey, and allocates up to 4 GB for a PNG
    chunk that claims to be longer than the file.
    """
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
    """Load the mask of an image as class indices; `results['masks']`, from the dataset, decodes its values.

    Args:
        reduce_zero_label: mmseg's argument, without effect: the dataset's own counts, and must agree with it.
    """

    def __init__(self, *, reduce_zero_label: bool | None = None):
        pass

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'

    def __call__(self, results: dict) -> dict:
        if 'ann_info' not in results:  # in testing the masks are loaded for the scores alone
            return results
        path = f'{results["seg_prefix"]}/{results["ann_info"]["seg_map"]}'
        labels = load_mask(path, results['masks'])
        if 'img' in results:
            check_size(path, labels, results['img'].shape[:2])
        results['gt_semantic_seg'] = labels
        results['seg_fields'].append('gt_semantic_seg')
        return results


def load_mask(path: str, masks: MaskIds | MaskColours) -> np.ndarray:
    """Read a mask file, an image or a MATLAB file, as class indices (H, W), see `models.label_format`.

    Raises:
        UserError: the file is missing or damaged, or holds values that stand for nothing.
    """
    try:
        if path.lower().endswith('.mat'):
            if isinstance(masks, MaskColours):
                raise UserError(f'{path}: MATLAB files hold ids. Leave out colour_masks=True, or save masks of colours '
                                'as PNG.')
            return masks.labels(read_label_map(Path(path).read_bytes(), path), path)
        with opened(path, path) as image:
            lossy, values = image.format == 'JPEG', masks.decode(image)
    except FileNotFoundError:
        raise UserError(f'{path}: this mask is missing.') from None
    except UserError:
        raise
    except Exception as error:  # of any kind: Pillow trusts the file
        raise UserError(f'{path}: broken mask, it does not decode. Copy it again.') from error
    if lossy:
        raise UserError(f'{path}: this mask is a JPEG, which changes ids and colours. Make it again, as PNG.')
    return masks.labels(values, path)


def check_size(path: str, labels: np.ndarray, size: tuple[int, int]) -> None:
    """Raise a UserError if a mask does not have the size (H, W) of its image."""
    if labels.shape != size:
        raise UserError(f'{path}: the mask is {labels.shape[1]}x{labels.shape[0]} pixels, its image '
                        f'{size[1]}x{size[0]}. Both must have the same size.')


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return height and width of an opened image as it is loaded: turned by its EXIF orientation."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except Exception:  # damaged EXIF data, which OpenCV disregards
        turned = False
    return (image.width, image.height) if turned else (image.height, image.width)
