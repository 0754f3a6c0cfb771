"""What the page asks of the model: an image and words in, all that the browser draws out. Knows nothing of Gradio."""
import base64
import io
import multiprocessing
import time
import zlib
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode

from models.class_names import synonyms
from models.errors import UserError
from models.inference import Result, Segmenter, parse_words, read_image
from models.inference.words import clean_words

FORKED = multiprocessing.get_context('fork')  # which imports nothing anew; the child uses neither threads nor PyTorch


class Limits(NamedTuple):
    """What one request may take."""
    pixels: int
    words: int  # of all lists together, synonyms counted
    seconds: float  # of the model's work; time in the queue does not count
    characters: int = 20_000  # of all lists together: 200 words of 100 characters
    decoding: float = 10  # seconds: an image of 16 million pixels takes one or two


class Deadline(TorchFunctionMode):
    """Within it, the first operation of PyTorch after so many seconds raises ValueError: an operation itself cannot be
    stopped, but none takes long. Only of the thread that enters it."""

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds, self.end = seconds, time.monotonic() + seconds

    def __enter__(self) -> 'Deadline':
        self.gradients = torch.is_grad_enabled()
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        torch.set_grad_enabled(self.gradients)  # which may be the very operation that came too late

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if time.monotonic() > self.end:
            raise UserError(f'stopped after {self.seconds:g} seconds, the most that a request may take: give fewer '
                            'words or a smaller image.')
        return func(*args, **(kwargs or {}))


def answer(segmenter: Segmenter, limits: Limits, file: str | None, lists: list[str] | None = None, *,
           anything_else: str = '', prompts: str = '', threshold: float = 0) -> dict:
    """The image as it is shown and a result for each list of words, as JSON values; or `{'error': message}`.

    Args:
        file: of the image.
        lists: words as typed; without any the image alone.
        prompts: name of a prompt set; '' for that of the training.
        threshold: 0 is none.

    Returns:
        `name` of the file, `image` as a data URL, `width`, `height`, and `results`: of each the `summary`, the index
        PNG as a data URL (`labels`), and `maps`: base64 of what zlib makes of all labels (of 1 byte, or 2 for more than
        255 words, low byte first), then all scores, from 0 to 255.
    """
    try:
        if not file:
            raise UserError('no image: drop one, choose one, or take an example.')
        parsed = [clean_words(parse_words(text)) for text in lists or []]
        others = clean_words(parse_words(anything_else), none_will_do=True)
        count = sum(len(synonyms(word)) for words in [*parsed, others] for word in words)
        if count > limits.words:
            raise UserError(f'{count:,} words are too many: {limits.words:,} at most, all lists together.')
        typed = sum(map(len, [*(lists or []), anything_else]))
        if typed > limits.characters:
            raise UserError(f'{typed:,} characters are too many: {limits.characters:,} at most, all lists together.')
        image = _read(Path(file), limits)
        with Deadline(limits.seconds):
            results = [segmenter.segment(image, words, prompts=prompts or None, anything_else=others,
                                         threshold=threshold or None) for words in parsed]
    except UserError as error:
        return {'error': _sentence(str(error), Path(file or '').name)}
    except (MemoryError, torch.OutOfMemoryError):
        return {'error': 'There is not enough memory for this: give fewer words or a smaller image.'}
    height, width = image.shape[:2]
    return {'name': Path(file).stem, 'image': _data_url(Image.fromarray(image), 'JPEG', quality=95, subsampling=0),
            'width': width, 'height': height, 'results': [_as_json(result) for result in results]}


def _read(file: Path, limits: Limits) -> np.ndarray:
    """The image, decoded in a process that can be ended: libraries that decode can't be stopped, and files that keep
    them busy for hours are easily made (a JPEG of thousands of scans, a GIF of endless comments).

    Raises:
        UserError: no image, one that is not taken, or one that takes too long.
    """
    if not file.is_file():
        raise UserError(f'{file.name} is kept no longer: choose it again.')
    here, there = FORKED.Pipe(duplex=False)
    process = FORKED.Process(target=_decode, args=(there, file, limits.pixels), daemon=True)
    process.start()
    there.close()  # the child alone has it: that it ends is seen here
    try:
        if not here.poll(limits.decoding):
            raise UserError(f'{file.name} takes more than {limits.decoding:g} seconds to decode, the most that a '
                            'image may take: open it in a viewer and save it anew.')
        image = here.recv()
    except EOFError as error:  # the child was ended, for memory most likely
        raise UserError(f'{file.name} cannot be decoded here: make it smaller, or save it as PNG.') from error
    finally:
        process.kill()
        process.join()
        here.close()
    if isinstance(image, str):  # tells the visitor's name of the file, not the place where the server keeps it
        raise UserError(image.replace(str(file), file.name))
    return image


def _decode(there: Connection, file: Path, most_pixels: int) -> None:
    """Sends the image, or the message that says why there is none."""
    try:
        there.send(read_image(file, most_pixels=most_pixels))
    except UserError as error:
        there.send(str(error))


def _sentence(message: str, name: str) -> str:
    """With a capital, unless it begins with the name of the file."""
    return message if name and message.startswith(name) else message[:1].upper() + message[1:]


def _data_url(image: Image.Image, kind: str, **options) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f'data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}'


def _as_json(result: Result) -> dict:
    scores = np.round(255 * result.best.clip(0, 1)).astype(np.uint8)
    labels = result.labels.astype(result.labels.dtype.newbyteorder('<'))
    maps = zlib.compress(labels.tobytes() + scores.tobytes(), level=1)
    return {'summary': result.summary(), 'labels': _data_url(result.label_image(), 'PNG'),
            'maps': base64.b64encode(maps).decode()}
