"""Answers the requests of the page: an image and class names in, all that the browser draws out. Free of Gradio."""
import base64
import io
import multiprocessing
import time
import zlib
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmseg.utils import get_root_logger
from PIL import Image
from torch.overrides import TorchFunctionMode

from models.class_names import clean_class_names, parse_class_names, synonyms
from models.errors import UserError
from models.inference import Result, Segmenter, read_image
from tools.web_page.limits import CHARACTERS, DECODING

FORK = multiprocessing.get_context('fork')  # starts at once; the child uses neither threads nor PyTorch


class Limits(NamedTuple):
    """Limits of one request that the command has options for."""
    pixels: int
    names: int  # class names in all lists, synonyms included
    seconds: float  # of the model's work, without the time in the queue


class Deadline(TorchFunctionMode):
    """Makes the first operation of PyTorch after so many seconds raise UserError, in the thread that enters it.

    A running operation is not interrupted, but none takes long. Enter it inside `torch.no_grad()`, which restores the
    mode of gradients even if the operation that would have restored it was stopped.
    """

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds, self.end = seconds, time.monotonic() + seconds

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if time.monotonic() > self.end:
            raise UserError(f'stopped after {self.seconds:g} seconds, the limit of a request: use fewer class '
                            'names or a smaller image.')
        return func(*args, **(kwargs or {}))


def answer(segmenter: Segmenter, limits: Limits, file: str | None, lists: Sequence[str] = (), *,
           background: str = '', prompts: str = '', threshold: float = 0) -> dict:
    """Return the image and a result for each list of class names as JSON values; or `{'error': message}`.

    Args:
        file: of the image.
        lists: class names as typed; without any only the image is returned.
        prompts: name of a prompt set; '' for that of the training.
        threshold: 0 for none.

    Returns:
        `name` of the file, `image` as a data URL, `width`, `height`, and `results`, each with its `summary`, the label
        PNG as a data URL (`labels`), and `maps`: base64 of zlib of all labels (1 byte each, or 2 for more than 255
        classes, low byte first), followed by all scores, from 0 to 255.
    """
    try:
        if not file:
            raise UserError('no image: drop one, choose one, or use an example.')
        if not all(isinstance(text, str) for text in (*lists, background)):
            raise UserError('class names must be text.')
        parsed = [clean_class_names(parse_class_names(text)) for text in lists]
        background_names = clean_class_names(parse_class_names(background), allow_empty=True)
        count = sum(len(synonyms(name)) for names in [*parsed, background_names] for name in names)
        if count > limits.names:
            raise UserError(f'{count:,} class names are too many: the limit is {limits.names:,} in all lists together.')
        characters = sum(map(len, [*lists, background]))
        if characters > CHARACTERS:
            raise UserError(f'{characters:,} characters are too many: the limit is {CHARACTERS:,} in all lists '
                            'together.')
        image = _read(Path(file), limits.pixels)
        with torch.no_grad(), Deadline(limits.seconds):
            results = [segmenter.segment(image, names, prompts=prompts or None, background=background_names,
                                         threshold=threshold or None) for names in parsed]
        height, width = image.shape[:2]
        return {'name': Path(file).stem, 'image': _data_url(Image.fromarray(image), 'JPEG', quality=95, subsampling=0),
                'width': width, 'height': height, 'results': [_as_json(result) for result in results]}
    except UserError as error:
        message, name = str(error), Path(file or '').name
        return {'error': message if name and message.startswith(name) else message[0].upper() + message[1:]}
    except (MemoryError, torch.OutOfMemoryError):
        return {'error': 'There is not enough memory for this: use fewer class names or a smaller image.'}
    except Exception:
        get_root_logger().exception('a request failed')
        return {'error': 'The request failed because of an error in the server; its log has the details.'}


def _read(file: Path, max_pixels: int) -> np.ndarray:
    """Decode the image in a process that can be killed.

    Decoding cannot be interrupted otherwise, and files that take hours are easily made: a JPEG with thousands of scans,
    a GIF with an endless comment.

    Raises:
        UserError: the file is not a valid image, is too large, or takes too long.
    """
    if not file.is_file():
        raise UserError(f'{file.name} is no longer on the server: choose it again.')
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_decode, args=(sender, file, max_pixels), daemon=True)
    process.start()
    sender.close()  # so that the end of the child ends the pipe
    try:
        if not receiver.poll(DECODING):
            raise UserError(f'{file.name} takes more than {DECODING} seconds to decode, the limit: open it in a '
                            'viewer and save it again.')
        image = receiver.recv()
    except EOFError as error:  # the child was killed, probably for its memory
        raise UserError(f'{file.name} cannot be decoded here: make it smaller, or save it as PNG.') from error
    finally:
        process.kill()
        process.join()
        receiver.close()
    if isinstance(image, str):  # an error; the visitor knows the name of the file, not its place on the server
        raise UserError(image.replace(str(file), file.name))
    return image


def _decode(sender: Connection, file: Path, max_pixels: int) -> None:
    """Send the decoded image, or the error message."""
    try:
        sender.send(read_image(file, max_pixels=max_pixels))
    except UserError as error:
        sender.send(str(error))


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
