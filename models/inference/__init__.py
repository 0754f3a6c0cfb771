"""Inference on any image with any class names: `load_model(checkpoint).segment(image, class_names)`.

Does not use the package `datasets`.
"""
from ..class_names import parse_class_names
from ..image_io import read_image
from .load import load_model
from .result import Result
from .segmenter import Segmenter

__all__ = ['Result', 'Segmenter', 'load_model', 'parse_class_names', 'read_image']
