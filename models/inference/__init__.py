"""Anyone's image, anyone's words: `load_model(checkpoint).segment(image, words)`. Needs nothing of `datasets`."""
from ..image_io import read_image
from .load import load_model
from .result import Result
from .segmenter import Segmenter
from .words import parse_words

__all__ = ['Result', 'Segmenter', 'load_model', 'parse_words', 'read_image']
