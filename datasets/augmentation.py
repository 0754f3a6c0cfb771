"""mmseg's augmentation: the same pixels for the same draws, bit for bit, in a fraction of the time."""
import cv2
import mmcv
import numpy as np
import torch
from mmcv.parallel import DataContainer
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import Normalize, PhotoMetricDistortion, RandomCrop, RandomFlip
from mmseg.datasets.pipelines.formatting import DefaultFormatBundle

GREYS = np.arange(256, dtype=np.uint8)


@PIPELINES.register_module()
class QuickRandomCrop(RandomCrop):
    """Crop as mmseg does: the first of ten draws in which no class has more than `cat_max_ratio` of the pixels.

    Counts by histograms; mmseg sorts the labels of each draw.
    """

    def __call__(self, results: dict) -> dict:
        if self.cat_max_ratio >= 1 or results['gt_semantic_seg'].dtype not in (np.uint8, np.uint16):
            return super().__call__(results)
        image, labels = results['img'], results['gt_semantic_seg']
        box, values = self.get_crop_bbox(image), np.iinfo(labels.dtype).max + 1
        for _ in range(10):
            counts = cv2.calcHist([self.crop(labels, box)], [0], None, [values], [0, values]).astype(int)
            counts = counts[np.arange(values) != self.ignore_index]
            if np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < self.cat_max_ratio:
                break
            box = self.get_crop_bbox(image)
        for key in ('img', *results.get('seg_fields', [])):
            results[key] = self.crop(results[key], box)
        results['img_shape'] = results['img'].shape
        return results


@PIPELINES.register_module()
class QuickRandomFlip(RandomFlip):
    """Flip as mmseg does, and copy the image: the next steps are slow on a view with negative strides."""

    def __call__(self, results: dict) -> dict:
        image = results['img']
        super().__call__(results)
        if results['flip']:
            results['img'] = mmcv.imflip_(image.copy(), results['flip_direction'])
        return results


@PIPELINES.register_module()
class QuickPhotoMetricDistortion(PhotoMetricDistortion):
    """Distort as mmseg does, with tables of the 256 results instead of arithmetic on each pixel."""

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """Return img * alpha + beta, cut off at 0 and 255, as uint8."""
        if img.dtype != np.uint8:
            return super().convert(img, alpha, beta)
        return cv2.LUT(img, super().convert(GREYS, alpha, beta))

    def hue(self, img: np.ndarray) -> np.ndarray:
        """Turn the hue, in half of the calls, by up to `hue_delta`."""
        if img.dtype != np.uint8:  # to_float32=True of the loading step, and no draw but this one
            return super().hue(img)
        if not np.random.randint(2):
            return img
        img = mmcv.bgr2hsv(img)
        turned = (GREYS.astype(int) + np.random.randint(-self.hue_delta, self.hue_delta)) % 180
        img[..., 0] = cv2.LUT(img[..., 0], turned.astype(np.uint8))
        return mmcv.hsv2bgr(img)


@PIPELINES.register_module()
class QuickNormalize(Normalize):
    """Normalise as mmseg does, with a table of the 256 results for each channel."""

    def __call__(self, results: dict) -> dict:
        image = results['img']
        if image.dtype != np.uint8 or image.shape[2:] != (3,):
            return super().__call__(results)
        table = super().__call__({'img': GREYS.repeat(3).reshape(1, 256, 3)})
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if self.to_rgb else image
        results |= {**table, 'img': cv2.LUT(image, table['img'])}
        return results


@PIPELINES.register_module()
class QuickDefaultFormatBundle(DefaultFormatBundle):
    """Make tensors as mmseg does, but keep labels of 8 bits at that: an eighth of the bytes to share, pin and send.

    The segmentor makes them int64, on its device.
    """

    def __call__(self, results: dict) -> dict:
        labels = results.get('gt_semantic_seg')
        super().__call__(results)
        if labels is not None and labels.dtype == np.uint8:
            results['gt_semantic_seg'] = DataContainer(torch.from_numpy(np.ascontiguousarray(labels[None])), stack=True)
        return results
