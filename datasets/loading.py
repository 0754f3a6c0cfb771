"""Pipeline steps that load a picture and its mask, and say which file is wrong when one is."""
from pathlib import Path

import cv2
import numpy as np
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import LoadAnnotations, LoadImageFromFile
from PIL import Image

IGNORE = 255


@PIPELINES.register_module()
class LoadPicture(LoadImageFromFile):
    """mmseg's `LoadImageFromFile`; a picture that does not decode is a ValueError that names it."""

    def __call__(self, results: dict) -> dict:
        path = Path(results['img_prefix'] or '') / results['img_info']['filename']
        try:
            whole = _is_whole(path.read_bytes())
            results = super().__call__(results) if whole else results
        except FileNotFoundError:
            raise ValueError(f'{path}: this picture is missing.') from None
        # AttributeError: OpenCV returns None for what it can't decode
        except (AttributeError, OSError, cv2.error) as error:
            raise ValueError(f'{path}: broken picture, it does not decode. Copy it again.') from error
        if not whole:
            raise ValueError(f'{path}: broken picture, the end of the JPEG is missing. Copy it again.')
        return results


def _is_whole(data: bytes) -> bool:
    """False for a cut-off JPEG, which OpenCV would fill up with grey: no end marker after its last scan."""
    return not data.startswith(b'\xff\xd8') or data.rfind(b'\xff\xd9') > data.rfind(b'\xff\xda')


@PIPELINES.register_module()
class LoadLabels(LoadAnnotations):
    """mmseg's `LoadAnnotations`; a ValueError names a mask that does not decode or does not fit.

    Beside mmseg's keys reads `num_classes` and `reduce_zero_label` of `results`, which `ZeroShotDataset` puts there.
    """

    def __call__(self, results: dict) -> dict:
        path = f'{results["seg_prefix"]}/{results["ann_info"]["seg_map"]}'
        try:
            with Image.open(path) as image:
                mode = image.mode
            results = super().__call__(results)
        except FileNotFoundError:
            raise ValueError(f'{path}: this mask is missing.') from None
        except (AttributeError, OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged files
            raise ValueError(f'{path}: broken mask, it does not decode. Copy it again.') from error
        if mode.startswith(('I', 'F')):
            raise ValueError(f'{path}: the mask has more than 8 bits a pixel; label ids are 0 to 255.')
        self._check(results, path)
        return results

    def _check(self, results: dict, path: str) -> None:
        labels = results['gt_semantic_seg']
        if labels.ndim != 2:
            raise ValueError(f'{path}: a mask has one label per pixel, this one has {labels.shape[2]} channels.')
        if 'img' in results and labels.shape != results['img'].shape[:2]:
            picture = results['img'].shape[:2]
            raise ValueError(f'{path}: the mask is {labels.shape[1]}x{labels.shape[0]} pixels, its picture '
                             f'{picture[1]}x{picture[0]}.')
        first_wrong = results['num_classes'] + (results['reduce_zero_label'] and not self.reduce_zero_label)
        wrong = np.unique(labels[(labels >= first_wrong) & (labels != IGNORE)])
        if len(wrong):
            raise ValueError(f'{path}: label ids {wrong[:5].tolist()} are out of range: '
                             f'{results["num_classes"]} classes, 255 is no class.')


def picture_size(path: str) -> tuple[int, int]:
    """Height and width, read from the file's header alone."""
    with Image.open(path) as image:
        return image.height, image.width
