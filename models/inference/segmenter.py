"""A model with its text tower: images and class names in, results out.

C class names, E CLIP space.
"""
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from mmcv import Config
from mmcv.utils import get_logger
from mmseg.datasets.pipelines import Compose
from torch import Tensor
from tqdm import tqdm

from ..class_names import clean_class_names, parse_class_names, synonyms, templates_of
from ..errors import UserError
from ..image_io import ImageSource, read_image
from ..label_format import label_format
from ..segmentor import CLIPRC
from ..text_encoder import CONTEXT_LENGTH, CLIPTextEncoder, count_tokens, embed_class_names
from ..training_labels import Setting
from ..weights.config_text import with_pairs
from .drawing import shorten
from .result import Result

if TYPE_CHECKING:
    from .text_tower import TextTower

CACHE_SIZE = 10_000  # embeddings of new class names; those of CLIP ViT-B/16 take 20 MB
NAMES_PER_BATCH = 64  # of new class names, kept in the cache as soon as they are embedded
MINIATURE = ('This is the miniature\'s model, which knows only its own drawn world: colours with paint, stripes, dots '
             'or checks. It is useless on photographs.')
SAME, RELATED = 0.98, 0.5  # cosines of one CLIP's embeddings of a name: other rounding, other prompts


class Segmenter:
    """Segments images with any class names; made by `load_model`. Threads may share it and take turns.

    Attributes:
        model: the `CLIPRC`, on its device.
        class_names: of its training; () if the checkpoint does not name them.
        seen_names: those trained with masks, whose scores are lowered by the seen penalty; () in self-training.
        prompts: the prompt set of its training.
        note: a warning about this model for its users, or ''.
        warned: whether an unreliable result has been logged; only the first one is.
    """

    def __init__(self, model: CLIPRC, config: Config, *, tower: 'TextTower', class_names: Sequence[str],
                 seen_names: Sequence[str], prompts: str | tuple[str, ...], known: dict[str, Tensor]):
        self.model, self.config, self.tower = model, config, tower
        self.class_names, self.seen_names, self.prompts = tuple(class_names), tuple(seen_names), prompts
        self.note = MINIATURE if config.data.test.get('type') == 'Miniature' else ''
        self.warned = False
        if self.note:
            get_logger('mmseg').warning('%s', self.note)
        self._known = {(name.casefold(), templates_of(prompts)): row for name, row in known.items()}
        self._cache: dict[tuple[str, tuple[str, ...]], Tensor] = {}  # the last computed ones
        self._seen = {synonym.casefold() for name in seen_names for synonym in synonyms(name)}
        self._encoder: CLIPTextEncoder | None = None
        self._lock = threading.RLock()  # reentrant: inside `using`, the same thread may call `embed`
        self._pipeline = Compose(with_pairs(config.data.test.pipeline[1:]))  # without the loading step

    def __repr__(self) -> str:
        """Describe the model in a line: classes of its training, and device."""
        known = f'{len(self.class_names)} classes' if self.class_names else 'unknown classes'
        all_names, seen_names = len(self.class_names), len(self.seen_names)
        seen = f', {seen_names} of them with masks' if 0 < seen_names < all_names else ''
        prompts = self.prompts if isinstance(self.prompts, str) else f'{len(self.prompts)} texts'
        return f'<Segmenter: trained on {known}{seen}; prompts: {prompts}; device: {self.device}>'

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def segment(self, images: ImageSource | Sequence[ImageSource],
                class_names: Sequence[str | Sequence[str]] | None = None, *,
                prompts: str | Sequence[str] | None = None, background: str | Sequence[str] = (),
                threshold: float | None = None) -> Result | list[Result]:
        """Give each pixel the best of the classes. Classes compete: scores depend on the whole list.

        Args:
            images: one or a list: files, PIL images or arrays, see `read_image`.
            class_names: each one name, or several of one class ('sofa, couch'); without them those of the training. A
                name that comes twice is one class, see `Result.class_names`.
            prompts: name of a prompt set, or texts such as 'a photo of a {}'; without it those of the training.
            background: more classes that compete, as a list or a text such as 'wall, floor'; their pixels are left
                unlabelled.
            threshold: pixels whose best score is below it are left unlabelled.

        Returns:
            a `Result`, or a list of them for a list of images.

        Raises:
            UserError: an image, a class name, a prompt or the threshold is invalid, class names are too many, or they
                are new and there is no text tower.
        """
        if not isinstance(images, (list, tuple)):
            return self.segment([images], class_names, prompts=prompts, background=background, threshold=threshold)[0]
        names = clean_class_names(self.class_names if class_names is None else class_names)
        label_format(len(names))  # raises if there are too many
        taken = {name.casefold() for name in names}
        background = parse_class_names(background) if isinstance(background, str) else list(background)
        background = [name for name in clean_class_names(background, allow_empty=True) if name.casefold() not in taken]
        if threshold is not None and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
            raise UserError(f'threshold={threshold!r} is not between 0 and 1.')
        threshold = None if threshold is None else float(threshold)
        arrays = [read_image(image) for image in images]
        settings = {'prompts': prompts or self.prompts, 'background': background, 'threshold': threshold}
        with self.using(names + background, prompts) as model:
            prepared = [self.prepare(array) for array in arrays]
            stitched = model.stitch([tensor.to(self.device) for tensor, _ in prepared], [meta for _, meta in prepared])
            penalty = model.decode_head.class_head.penalty.flatten().tolist()
            results = [Result(array, names, scores, threshold=threshold, settings=settings, penalty=penalty,
                              note=self.note) for array, scores in zip(arrays, stitched, strict=True)]
        warning = next((result.warning for result in results if result.warning), None)
        if warning and not self.warned:
            self.warned = True
            get_logger('mmseg').warning('%s', warning)
        return results

    def embed(self, class_names: Sequence[str], prompts: str | Sequence[str] | None = None) -> Tensor:
        """Embed class names -> (C, E). Embeddings of the training's classes and of recent names are cached.

        Raises:
            UserError: a name is too long for CLIP or has no letters, or there is no text tower.
        """
        templates = templates_of(self.prompts if prompts is None else prompts)
        keys = [(name.casefold(), templates) for name in class_names]  # CLIP ignores case
        with self._lock:
            new = {key: name for key, name in zip(keys, class_names, strict=True)
                   if key not in self._known and key not in self._cache}
            for name in new.values():
                _check_length(name, templates)
            waiting = iter(new.items())
            with tqdm(total=len(new), desc='class names', unit='name', leave=False,
                      disable=None if len(new) > NAMES_PER_BATCH else True) as progress:
                while batch := dict(islice(waiting, NAMES_PER_BATCH)):
                    rows = embed_class_names(self._text_encoder(), [*map(synonyms, batch.values())], templates)
                    self._cache.update(zip(batch, rows.cpu(), strict=True))
                    progress.update(len(batch))
            rows = torch.stack([self._known[key] if key in self._known else self._cache[key] for key in keys])
            for key in [*self._cache][:-max(CACHE_SIZE, len(keys))]:
                del self._cache[key]
            return rows

    @contextmanager
    def using(self, class_names: Sequence[str], prompts: str | Sequence[str] | None = None) -> Iterator[CLIPRC]:
        """Lend the model with these classes, without gradients, to one thread; other threads wait."""
        with self._lock, torch.no_grad():
            self.model.class_head.set_classes(
                len(class_names), self.embed(class_names, prompts), setting=Setting.INDUCTIVE,
                seen=[index for index, name in enumerate(class_names)
                      if any(synonym.casefold() in self._seen for synonym in synonyms(name))])
            yield self.model

    def prepare(self, image: np.ndarray) -> tuple[Tensor, dict]:
        """Turn an image (H, W, 3), RGB, into the model's input (3, h, w) and mmseg's metadata."""
        bgr = np.ascontiguousarray(image[..., ::-1])
        views = self._pipeline({'img': bgr, 'img_shape': bgr.shape, 'ori_shape': bgr.shape, 'pad_shape': bgr.shape,
                                'img_fields': ['img'], 'scale_factor': 1., 'filename': None, 'ori_filename': None})
        if len(views['img']) != 1:
            raise UserError('the config\'s test pipeline makes several views of an image; only one is supported here.')
        return views['img'][0], views['img_metas'][0].data

    def _text_encoder(self) -> CLIPTextEncoder:
        """Load the text tower when it is first needed.

        Raises:
            UserError: its embedding of a class name differs from that of the training: it is of another CLIP.
        """
        if self._encoder is not None:
            return self._encoder
        encoder = self.tower.load().to(self.device)
        for (name, templates), known in islice(self._known.items(), 1):
            row = embed_class_names(encoder, [synonyms(name)], templates)[0].cpu()
            cosine = float(F.cosine_similarity(row, known, dim=0)) if row.shape == known.shape else 0.
            if cosine < RELATED:
                raise UserError(f'{self.tower.source} is not the CLIP of the model\'s training: its embedding of '
                                f'{name!r} differs (cosine {cosine:.2f}). Name the right one: clip=FILE, --clip FILE.')
            if cosine < SAME:
                get_logger('mmseg').warning(
                    '%s embeds %r differently than in training (cosine %.2f): it is another CLIP, or the training '
                    'read its embeddings from a file', self.tower.source, name, cosine)
        self._encoder = encoder
        return encoder


def _check_length(name: str, templates: Sequence[str]) -> None:
    for synonym in synonyms(name):
        if count_tokens(synonym) == 0:
            raise UserError(f'{shorten(synonym)!r} contains nothing that CLIP reads: use letters.')
        longest = max(count_tokens(template.format(synonym)) for template in templates) + 2  # start and end
        if longest > CONTEXT_LENGTH:
            raise UserError(f'{shorten(synonym)!r} is too long: CLIP reads {CONTEXT_LENGTH} tokens with the prompt, '
                            f'this has {longest}. Use fewer words.')
