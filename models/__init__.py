"""CLIP-RC's parts. Importing this package registers them with mmsegmentation."""
from .losses import MaskLoss
from .region_clue_head import RegionClueHead
from .segmentor import CLIPRC
from .text_class_head import TextClassHead
from .text_encoder import CLIPTextEncoder
from .vision_encoder import CLIPVisionEncoder

__all__ = ['CLIPRC', 'CLIPTextEncoder', 'CLIPVisionEncoder', 'MaskLoss', 'RegionClueHead', 'TextClassHead']
