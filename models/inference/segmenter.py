"""A model and its text tower: images and words in, results out.

W words, T templates, E CLIP space.
"""
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from mmcv import Config
from mmcv.utils import get_logger
from mmseg.datasets.pipelines import Compose
from torch import Tensor

from ..class_names import synonyms, templates_of
from ..errors import UserError
from ..image_io import ImageSource, read_image
from ..segmentor import CLIPRC
from ..text_encoder import CONTEXT_LENGTH, CLIPTextEncoder, count_tokens, embed_class_names
from ..training_labels import Setting
from ..weights.config_text import with_pairs
from .result import Result
from .words import clean_words, parse_words

if TYPE_CHECKING:
    from .load import TextTower

KEPT = 10_000  # embeddings of new words; of CLIP ViT-B/16 they take 20 MB
MINIATURE = ('This is the miniature\'s model, which knows its own drawn world only: colours with paint, stripes, dots '
             'or checks. On photographs it is useless.')
SAME, RELATED = 0.98, 0.5  # cosines of embeddings by one CLIP, with other rounding or other prompts


class Segmenter:
    """Made by `load_model`. May be called by several threads: they wait for each other.

    Attributes:
        model: the `CLIPRC`, on its device.
        class_names: of its training; () where the checkpoint does not tell.
        seen_names: those of them whose masks training has shown, so that the model prefers them; () if it does not.
        prompts: the prompt set of its training.
        note: what to know of this model; '' for nothing.
        warned: whether a result that means little has been logged, which only the first one is: each has a `warning`.
    """

    def __init__(self, model: CLIPRC, config: Config, *, tower: 'TextTower', class_names: Sequence[str],
                 seen_names: Sequence[str], prompts: str | tuple[str, ...], known: dict[str, Tensor]):
        self.model, self.config, self.tower = model, config, tower
        self.class_names, self.seen_names, self.prompts = tuple(class_names), tuple(seen_names), prompts
        self.note = MINIATURE if config.data.test.get('type') == 'Miniature' else ''
        self.warned = False
        if self.note:
            get_logger('mmseg').warning('%s', self.note)
        self._known = {(word.casefold(), templates_of(prompts)): row for word, row in known.items()}
        self._new: dict[tuple[str, tuple[str, ...]], Tensor] = {}  # the last used at the end
        self._seen = {synonym.casefold() for name in seen_names for synonym in synonyms(name)}
        self._encoder: CLIPTextEncoder | None = None
        self._lock = threading.RLock()  # within `using`, its thread may call `embed`
        self._pipeline = Compose(with_pairs(config.data.test.pipeline[1:]))  # without the loading

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def segment(self, images: ImageSource | Sequence[ImageSource],
                words: Sequence[str | Sequence[str]] | None = None, *,
                prompts: str | Sequence[str] | None = None, anything_else: str | Sequence[str] = (),
                threshold: float | None = None) -> Result | list[Result]:
        """Each pixel takes the word that fits it best, among these: scores depend on the whole list.

        Args:
            images: one, or a list of them: files, PIL images or arrays, see `read_image`.
            words: each a word, or several for one thing ('sofa, couch'); without them the classes of the training.
            prompts: name of a prompt set, or texts such as 'a photo of a {}'; without it the training's.
            anything_else: words for what is not looked for, a list or a text such as 'background, wall': pixels that
                one of them fits best take no word.
            threshold: pixels whose best score is lower take no word.

        Returns:
            a `Result`, or a list of them for a list of images.

        Raises:
            UserError: an image, a word or a prompt that is none; new words, and no text tower.
        """
        if isinstance(images, (list, tuple)):
            return self._segment(images, words, prompts, anything_else, threshold)
        return self._segment([images], words, prompts, anything_else, threshold)[0]

    def embed(self, words: Sequence[str], prompts: str | Sequence[str] | None = None) -> Tensor:
        """Embeddings (W, E) of words. Those of the training's classes and of the last new words are kept.

        Raises:
            UserError: a word is too long for CLIP or holds no letter, or there is no text tower.
        """
        templates = templates_of(self.prompts if prompts is None else prompts)
        keys = [(word.casefold(), templates) for word in words]  # CLIP reads small letters
        with self._lock:
            for key, word in zip(keys, words, strict=True):
                if key not in self._known and key not in self._new:
                    self._check_length(word, templates)
            return torch.stack([self._row(key, word) for key, word in zip(keys, words, strict=True)])

    @contextmanager
    def using(self, words: Sequence[str], prompts: str | Sequence[str] | None = None) -> Iterator[CLIPRC]:
        """The model of these words, without gradients, and for one thread alone: the others wait."""
        with self._lock, torch.no_grad():
            self.model.class_head.set_classes(
                len(words), self.embed(words, prompts), setting=Setting.INDUCTIVE,
                seen=[index for index, word in enumerate(words) if self._was_seen(word)])
            yield self.model

    def _segment(self, images: Sequence[ImageSource], words: Sequence[str | Sequence[str]] | None,
                 prompts: str | Sequence[str] | None, anything_else: str | Sequence[str], threshold: float | None
                 ) -> list[Result]:
        words = clean_words(self.class_names if words is None else words)
        taken = {word.casefold() for word in words}
        others = parse_words(anything_else) if isinstance(anything_else, str) else list(anything_else)
        others = [other for other in clean_words(others, none_will_do=True) if other.casefold() not in taken]
        if threshold is not None and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
            raise UserError(f'threshold={threshold!r} is not from 0 to 1.')
        arrays = [read_image(image) for image in images]
        threshold = None if threshold is None else float(threshold)
        settings = {'prompts': prompts or self.prompts, 'anything_else': others, 'threshold': threshold}
        with self.using(words + others, prompts) as model:
            prepared = [self.prepare(array) for array in arrays]
            stitched = model.stitch([tensor.to(self.device) for tensor, _ in prepared], [meta for _, meta in prepared])
            penalty = model.decode_head.class_head.penalty.flatten().tolist()
            results = [Result(array, words, scores, threshold=threshold, settings=settings, penalty=penalty,
                              note=self.note) for array, scores in zip(arrays, stitched, strict=True)]
            for warning in [result.warning for result in results if result.warning and not self.warned][:1]:
                self.warned = True
                get_logger('mmseg').warning('%s', warning)
            return results

    def _row(self, key: tuple[str, tuple[str, ...]], word: str) -> Tensor:
        """The embedding (E) of a word, whose key holds the templates, too."""
        if key in self._known:
            return self._known[key]
        row = self._new.pop(key, None)
        if row is None:
            row = embed_class_names(self._text_encoder(), [synonyms(word)], key[1])[0].cpu()
        self._new[key] = row
        if len(self._new) > KEPT:
            del self._new[next(iter(self._new))]
        return row

    def _was_seen(self, word: str) -> bool:
        return any(synonym.casefold() in self._seen for synonym in synonyms(word))

    def prepare(self, image: np.ndarray) -> tuple[Tensor, dict]:
        """ImageSource (H, W, 3), RGB -> (3, h, w) as the model gets it, and what mmseg says of it."""
        bgr = np.ascontiguousarray(image[..., ::-1])
        views = self._pipeline({'img': bgr, 'img_shape': bgr.shape, 'ori_shape': bgr.shape, 'pad_shape': bgr.shape,
                                'img_fields': ['img'], 'scale_factor': 1., 'filename': None, 'ori_filename': None})
        if len(views['img']) != 1:
            raise UserError('the config\'s test pipeline makes several views of an image: one is needed here.')
        return views['img'][0], views['img_metas'][0].data

    def _text_encoder(self) -> CLIPTextEncoder:
        if self._encoder is None:
            self._encoder = self.tower.load().to(self.device)
            self._check_tower(self._encoder)
        return self._encoder

    def _check_tower(self, encoder: CLIPTextEncoder) -> None:
        """The text tower must be of the CLIP that the model was trained with: it gives the training's embeddings.

        Raises:
            UserError: it gives quite others.
        """
        (word, templates), known = next(iter(self._known.items()), ((None, None), None))
        if known is None:
            return
        row = embed_class_names(encoder, [synonyms(word)], templates)[0].cpu()
        likeness = float(F.cosine_similarity(row, known, dim=0)) if row.shape == known.shape else 0.
        if likeness < RELATED:
            self._encoder = None
            raise UserError(f'{self.tower.source} is not the CLIP of the model\'s training: it embeds {word!r} '
                            f'otherwise (cosine {likeness:.2f}). Name the right one: clip=FILE, --clip FILE.')
        if likeness < SAME:
            get_logger('mmseg').warning(
                '%s embeds %r otherwise than the training did (cosine %.2f): another CLIP, or the training read its '
                'embeddings from a file', self.tower.source, word, likeness)

    @staticmethod
    def _check_length(word: str, templates: Sequence[str]) -> None:
        for synonym in synonyms(word):
            shown = synonym if len(synonym) <= 40 else f'{synonym[:39]}…'
            if count_tokens(synonym) == 0:
                raise UserError(f'{shown!r} holds nothing that CLIP reads: name the thing in letters.')
            longest = max(count_tokens(template.format(synonym)) for template in templates) + 2  # start and end
            if longest > CONTEXT_LENGTH:
                raise UserError(f'{shown!r} is too long: CLIP reads {CONTEXT_LENGTH} tokens with the prompt, this has '
                                f'{longest}. Say it in fewer words.')
