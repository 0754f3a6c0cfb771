"""CLIP-RC's parts. Importing this package registers them with mmsegmentation, and repairs mmcv."""
import logging
import warnings

CPP_EXTENSION = logging.getLogger('torch.utils.cpp_extension')
with warnings.catch_warnings():  # notices that users can't fix
    warnings.filterwarnings('ignore', message='On January 1, 2023, MMCV will release')
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
    level = CPP_EXTENSION.level
    CPP_EXTENSION.setLevel(logging.ERROR)  # mmcv's operators ask for a CUDA compiler
    import mmseg.models  # noqa: F401
    CPP_EXTENSION.setLevel(level)

from . import mmcv_compat
from .losses import MaskLoss
from .region_clue_head import RegionClueHead
from .segmentor import CLIPRC
from .text_class_head import TextClassHead
from .text_encoder import CLIPTextEncoder
from .vision_encoder import CLIPVisionEncoder

mmcv_compat.apply()

__all__ = ['CLIPRC', 'CLIPTextEncoder', 'CLIPVisionEncoder', 'MaskLoss', 'RegionClueHead', 'TextClassHead']
