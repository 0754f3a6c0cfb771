"""Answers the requests of the page: an image and class names in, all that the browser draws out. Free of Gradio."""
import base64
import io
import multiprocessing
import time
import zlib
from collections.abc import Callable, Sequence
from functools import wraps
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmseg.utils import get_root_logger
from PIL import Image
from torch.overrides import TorchFunctionMode

from models.class_names import PROMPT_SETS, clean_class_names, parse_class_names, synonyms
from models.errors import UserError
from models.inference import Result, Segmenter, read_image
from tools.explaining.explanation import explain
from tools.explaining.figure import draw
from tools.web_page.limits import CHARACTERS, DECODING, HEAT_SIDE, MORE

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


def _reported(answering: Callable[..., dict]) -> Callable[..., dict]:
    """Make a function return `{'error': message}` instead of raising."""
    @wraps(answering)
    def reporting(segmenter: Segmenter, limits: Limits, file: str | None, *args, **options) -> dict:
        try:
            return answering(segmenter, limits, file, *args, **options)
        except UserError as error:
            message, name = str(error), Path(file or '').name
            return {'error': message if name and message.startswith(name) else message[0].upper() + message[1:]}
        except (MemoryError, torch.OutOfMemoryError):
            return {'error': 'There is not enough memory for this: use fewer class names or a smaller image.'}
        except Exception:
            get_root_logger().exception('a request failed')
            return {'error': 'The request failed because of an error in the server; its log has the details.'}
    return reporting


@_reported
def answer(segmenter: Segmenter, limits: Limits, file: str | None, lists: Sequence[str] = (), *,
           background: str = '', prompts: str = '', threshold: float = 0) -> dict:
    """Return the image and a result for each list of class names as JSON values; or `{'error': message}`.

    Args:
        file: of the image.
        lists: class names as typed; without any only the image is returned.
        prompts: name of a prompt set; '' for that of the training.
        threshold: 0 for none.

    Returns:
        `name` of the file, `image` as a data URL, `width`, `height`, what was `asked`, and `results`, each with its
        `summary`, the label PNG as a data URL (`labels`), and `maps`: base64 of zlib of all labels (1 byte each, or 2
        for more than 255 classes, low byte first), followed by all scores, from 0 to 255. `heat` has the same for the
        scores of each class, at a smaller size (`width`, `height`).
    """
    parsed, background_names = _parse(limits, lists, background, prompts)
    image = _read(file, limits.pixels)
    with torch.no_grad(), Deadline(limits.seconds):
        results = [segmenter.segment(image, names, prompts=prompts or None, background=background_names,
                                     threshold=threshold or None) for names in parsed]
        heats = [result.small_scores(HEAT_SIDE) for result in results]
    height, width = image.shape[:2]
    return {'name': Path(file).stem, 'image': _data_url(Image.fromarray(image), 'JPEG', quality=95, subsampling=0),
            'width': width, 'height': height,
            'asked': {'lists': lists, 'background': background, 'prompts': prompts},
            'results': [_as_json(*pair) for pair in zip(results, heats, strict=True)]}


@_reported
def explanation(segmenter: Segmenter, limits: Limits, file: str | None, asked: object) -> dict:
    """Return what regional clues contribute to a class, as `text` and `figure` (a data URL); or `{'error': message}`.

    Args:
        asked: `names` and `background` as typed, `prompts`, and the `label` of the class. It comes from the browser
            as it is: anything may be in it.
    """
    names, background, prompts, label = (
        asked.get(key) if isinstance(asked, dict) else None for key in ('names', 'background', 'prompts', 'label'))
    (class_names,), background_names = _parse(limits, [names], background, prompts)
    if type(label) is not int or not 0 <= label < len(class_names):
        raise UserError('there is no such class.')
    image = _read(file, limits.pixels)
    with torch.no_grad(), Deadline(limits.seconds):
        explained = explain(segmenter, image, class_names[label], [*class_names, *background_names],
                            prompts=prompts or None)
    drawn = io.BytesIO()
    draw(explained).savefig(drawn, dpi=100)
    return {'text': _in_words(explained.summary(), explained.side),
            'figure': f'data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode()}'}


def _parse(limits: Limits, lists: Sequence[str], background: str, prompts: str
           ) -> tuple[list[list[str]], list[str]]:
    """Parse lists of class names and the background.

    Raises:
        UserError: one has no names, all together are too many or too long, or there is no such prompt set.
    """
    if prompts not in ('', *PROMPT_SETS):
        raise UserError('there is no such prompt set.')  # elsewhere it may name a file
    if not all(isinstance(text, str) for text in (*lists, background)):
        raise UserError('class names must be text.')
    characters = sum(map(len, [*lists, background]))
    parsed = [clean_class_names(parse_class_names(text)) for text in lists]
    background_names = clean_class_names(parse_class_names(background), allow_empty=True)
    count = sum(len(synonyms(name)) for names in [*parsed, background_names] for name in names)
    if count > limits.names:
        raise UserError(f'{count:,} class names are too many: the limit is {limits.names:,} in all lists together. '
                        f'{MORE}')
    if characters > CHARACTERS:
        raise UserError(f'{characters:,} characters are too many: the limit is {CHARACTERS:,} in all lists together. '
                        f'{MORE}')
    return parsed, background_names


def _in_words(summary: dict, side: int) -> str:
    row, column = (1 + place for place in divmod(summary['region_with_highest_mean_logit'], side))
    before, after = summary['with_regions'], summary['ablated']['everywhere']
    place = '' if summary['windows'] == 1 else f' of window {summary["number"]} of {summary["windows"]}'
    scores = (f'Its mean score over {"these" if summary["found"] else "all"} pixels is '
              f'{before["mean_score_in_mask_with_regions"]:.2f} with and '
              f'{after["mean_score_in_mask_with_regions"]:.2f} without region tokens.')
    if not summary['found']:
        return f'Other classes score higher at every pixel{place}. {scores}'
    return (f'With region tokens it is the best class of {100 * before["area"]:.1f} % of the pixels{place}, without '
            f'them of {100 * after["area"]:.1f} %; no minimum score is applied. {scores} The queries of the region in '
            f'row {row}, column {column} of {side} x {side} support it most.')


def _read(file: str | None, max_pixels: int) -> np.ndarray:
    """Decode the image in a process that can be killed.

    Decoding cannot be interrupted otherwise, and files that take hours are easily made: a JPEG with thousands of scans,
    a GIF with an endless comment.

    Raises:
        UserError: the file is not a valid image, is too large, or takes too long.
    """
    if not file:
        raise UserError('no image: drop one, choose one, or use an example.')
    file = Path(file)
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


def _as_json(result: Result, heats: np.ndarray) -> dict:
    labels = result.labels.astype(result.labels.dtype.newbyteorder('<'))
    return {'summary': result.summary(), 'labels': _data_url(result.label_image(), 'PNG'),
            'maps': _packed(labels.tobytes() + _bytes(result.best)),
            'heat': {'height': heats.shape[1], 'width': heats.shape[2], 'maps': _packed(_bytes(heats))}}


def _bytes(scores: np.ndarray) -> bytes:
    return np.round(255 * scores.clip(0, 1)).astype(np.uint8).tobytes()


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, level=1)).decode()
