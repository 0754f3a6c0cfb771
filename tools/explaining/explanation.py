"""What the regional clues do for one word in one window of an image: which region speaks for it, what each region
token looks at, and what is left when the region tokens are silent.

C words in all, R = r*r regions, Gh x Gw patches and h x w pixels of the window, H attention heads.
Region k is in row k // r and column k % r.
"""
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from models.class_names import synonyms
from models.errors import UserError
from models.image_io import ImageSource, read_image
from models.inference.result import Result
from models.inference.segmenter import Segmenter
from models.inference.words import clean_words
from models.precision import autocast, upcast, without_autocast
from models.region_clue_head import Decoded
from models.resizing import resize
from models.sliding_window import Window
from models.vision_encoder import CLIPVisionEncoder, ImageFeatures


class Attention(NamedTuple):
    """What the region tokens look at in each block, mean over the heads.

    A token sees itself and the patches of its cell, nothing else: its weights on these add up to 1.
    """
    patches: Tensor  # (blocks, Gh, Gw), the weight that its cell's region token gives to a patch
    itself: Tensor  # (blocks, R)


class Reading(NamedTuple):
    """What a model makes of the window, for the word."""
    scores: np.ndarray  # (h, w) from 0 to 1, less the seen penalty where the word has one
    found: np.ndarray  # (h, w) bool, where it is the best of all words

    def numbers(self, where: np.ndarray) -> dict:
        """The word's share of the window, its mean score there, and its mean score in `where`, (h, w) bool."""
        return {'area': _rounded(self.found.mean()), 'mean_score': _mean(self.scores, self.found),
                'mean_score_where_found_with_regions': _mean(self.scores, where)}


class Explanation(NamedTuple):
    """All that is told of a word in a window.

    `silenced` says it again without region tokens, 'everywhere' as a model of `region_level_bridge_size=0` with the
    same other weights: patches see no region tokens, the queries are CLS * text, the regions' part of the pixels is
    zeros. 'in the encoder': CLS and patches are of that, the region features are still used. 'in the head': CLS and
    patches have seen the region tokens, but the region features are zeros.
    """
    result: Result  # of the whole image, all its windows
    word: str
    window: Window  # of the image in `size`
    number: int  # of the window, from 1
    windows: int  # how many the image has
    size: tuple[int, int]  # (H, W) of the image as the model gets it, without padding
    view: np.ndarray  # (h, w, 3) uint8, the window
    by_region: np.ndarray  # (R, h, w) mask logits of the word's query of each region; their mean is the model's
    attention: Attention
    block: int  # which of the attention's blocks is meant, from 1
    reading: Reading
    silenced: dict[str, Reading]

    @property
    def side(self) -> int:
        """r."""
        return math.isqrt(len(self.by_region))

    @property
    def where(self) -> np.ndarray:
        """(h, w) bool: the pixels that the numbers are of, the word's; all where it is not found."""
        return self.reading.found if self.reading.found.any() else np.ones_like(self.reading.found)

    @property
    def speaks(self) -> np.ndarray:
        """(R,) how much each region speaks for the word: the mean of its mask logits over `where`.

        The mean over the regions is that of the model's own mask logits there.
        """
        return self.by_region[:, self.where].mean(axis=1)

    def summary(self) -> dict:
        """Plain values for JSON."""
        cell, where, found = cell_of(self.where.shape, self.side).numpy(), self.where, self.reading.found
        leads = np.take_along_axis(self.by_region, cell[None], axis=0)[0] - self.by_region.mean(axis=0)  # (h, w)
        patches = self.attention.patches[self.block - 1].float().cpu()
        on_word = patches * F.adaptive_avg_pool2d(torch.from_numpy(found)[None].float(), patches.shape)[0]
        cell_of_patch = cell_of(patches.shape, self.side)
        regions = []
        for region, speaks in enumerate(self.speaks):
            own, looked = cell == region, cell_of_patch == region
            regions.append({
                'row': region // self.side, 'column': region % self.side, 'speaks': _rounded(speaks),
                'lead_in_own_cell': _mean(leads, where & own), 'word_in_cell': _rounded(found[own].mean()),
                'attention_to_itself': _rounded(self.attention.itself[self.block - 1, region]),
                'attention_to_word': _rounded(on_word[looked].sum() / patches[looked].sum())})
        return {
            'word': self.word, 'words': self.result.words, 'window': self.window._asdict(), 'number': self.number,
            'windows': self.windows, 'found': bool(found.any()), 'loudest': int(self.speaks.argmax()),
            'lead_in_own_cell': _mean(leads, where), 'block': self.block, 'regions': regions,
            'attention_to_itself_by_block': [_rounded(weights.mean()) for weights in self.attention.itself],
            'with_regions': self.reading.numbers(where),
            'silenced': {name: {**reading.numbers(where), 'same_pixels': _rounded((reading.found == found).mean())}
                         for name, reading in self.silenced.items()}}


def explain(segmenter: Segmenter, image: ImageSource, word: str, words: Sequence[str] | None = None, *,
            window: int | None = None, block: int | None = None) -> Explanation:
    """What the regional clues do for a word in a window of an image.

    Args:
        words: that compete with it for pixels; without them the classes of the training. Those that have a name in
            common with the word are left out.
        window: its number, from 1, row by row; without it the one that holds most of the word, by what the model makes
            of this window alone, or the one in the middle where none holds any.
        block: whose attention is meant, from 1; without it the last.

    Raises:
        UserError: a model without region tokens, or with a head of another kind; a window, a block, an image or a
            word that is none.
    """
    encoder = segmenter.model.backbone
    if encoder.side == 0:
        raise UserError('this model has no region tokens (region_level_bridge_size=0): there is nothing to explain.')
    blocks = len(encoder.transformer.resblocks)
    if block is not None and not 1 <= block <= blocks:
        raise UserError(f'no block {block}: the encoder has {blocks}, from 1 to {blocks}.')
    word, = clean_words([word])
    texts = [word, *_competing(word, segmenter.class_names if words is None else clean_words(words))]
    if len(texts) == 1:
        raise UserError(f'nothing competes with {word!r}: name other words (--words "sky, grass"), of which each '
                        'pixel takes the best.')
    array = read_image(image)
    with segmenter.using(texts) as model:
        tensor, meta = segmenter.prepare(array)
        stitched, = model.stitch([tensor.to(segmenter.device)], [meta])
        count = len(stitched.windows)
        if window is not None and not 1 <= window <= count:
            raise UserError(f'no window {window}: the image has {count}, from 1 to {count}.')
        if window is None:
            window = 1 + _fullest([read(model.decode_head, logits[None], stitched.resizing)
                                   for logits in stitched.logits])
        place = stitched.windows[window - 1]
        size = place.height, place.width
        view = resize(place.of(tensor.to(segmenter.device))[None], encoder.nearest_size(size))
        with autocast(view.device, model.amp_dtype):
            features, attention = look(encoder, view)
            decoded = model.decode_head(features)
            silenced = {name: read(model.decode_head, model.decode_head(silent).logits, stitched.resizing)
                        for name, silent in silence(encoder, view, features).items()}
        reading = read(model.decode_head, decoded.logits, stitched.resizing)
        regional = region_logits(decoded, len(texts))
        if (regional.mean(dim=1) - decoded.logits).abs().max() > 0.01 * (1 + decoded.logits.abs().max()):
            raise UserError(f'{type(model.decode_head).__name__} does not make its mask logits as the mean over the '
                            'regions of queries times pixels: which region speaks cannot be told of it.')
        by_region = stitched.resizing(regional[0, :, 0]).float().cpu().numpy()
        shown = Image.fromarray(array).resize(stitched.size[::-1])
        return Explanation(
            result=Result(array, texts, stitched), word=word, window=place, number=window, windows=count,
            size=stitched.size, view=np.asarray(shown.crop((place.left, place.top, place.left + place.width,
                                                          place.top + place.height))),
            by_region=by_region, attention=attention, block=block or blocks, reading=reading, silenced=silenced)


def _competing(word: str, others: Sequence[str]) -> list[str]:
    """The other words that do not name the same."""
    names = {name.casefold() for name in synonyms(word)}
    return [other for other in others if names.isdisjoint(name.casefold() for name in synonyms(other))]


def _fullest(readings: Sequence[Reading]) -> int:
    """The window with most pixels of the word; the one in the middle if none has any."""
    counts = [int(reading.found.sum()) for reading in readings]
    return int(np.argmax(counts)) if any(counts) else len(counts) // 2


def read(head, logits: Tensor, resizing) -> Reading:
    """Mask logits (1, C, Gh, Gw) of a window -> its scores and pixels of the first word."""
    scores = head.class_head.scores(resizing(logits)[0], head.class_head.penalty)  # (C, h, w)
    return Reading(scores[0].float().cpu().numpy(), (scores.argmax(dim=0) == 0).cpu().numpy())


def region_logits(decoded: Decoded, words: int) -> Tensor:
    """Mask logits (B, R, C, Gh, Gw) of every region's own queries. Their mean over R is `decoded.logits`."""
    queries = upcast(decoded.queries)  # (B, R*C, E)
    with without_autocast(queries.device):
        logits = queries @ upcast(decoded.pixels).transpose(1, 2)
    return logits.unflatten(2, decoded.logits.shape[2:]).unflatten(1, (-1, words))


def look(encoder: CLIPVisionEncoder, image: Tensor) -> tuple[ImageFeatures, Attention]:
    """The features of an image (1, 3, H, W), and what its region tokens look at to make them.

    The attention proper keeps no weights: they are computed again, of these tokens alone.
    """
    regions, rows = encoder.side**2, []

    def remember(attention, inputs):
        tokens, visible, prompts = inputs
        rows.append(attention.weights(tokens, visible, prompts, rows=slice(-regions, None))[0].mean(dim=0))

    hooks = [block.attn.register_forward_pre_hook(remember) for block in encoder.transformer.resblocks]
    try:
        features = encoder(image)
    finally:
        for hook in hooks:
            hook.remove()
    weights = torch.stack(rows)  # (blocks, R, P + 1 + Gh*Gw + R)
    grid = features.patches.shape[2:]
    patches = weights[:, :, -regions - grid.numel():-regions]  # each patch is seen by one region token
    return features, Attention(patches=patches.sum(dim=1).unflatten(1, grid),
                               itself=weights[:, :, -regions:].diagonal(dim1=1, dim2=2))


def silence(encoder: CLIPVisionEncoder, image: Tensor, features: ImageFeatures) -> dict[str, ImageFeatures]:
    """An image's features with region tokens silenced: `Explanation` says how."""
    silent = encoder.without_regions()(image)
    return {'everywhere': silent, 'in the encoder': silent._replace(regions=features.regions),
            'in the head': features._replace(regions=silent.regions)}


def cell_of(size: tuple[int, int], side: int) -> Tensor:
    """The region (h, w) int64 of each place of a map; the cells are of `side` rows and columns."""
    row, column = (torch.arange(length) * side // length for length in size)
    return row[:, None] * side + column


def _mean(values: np.ndarray, where: np.ndarray) -> float | None:
    return _rounded(values[where].mean()) if where.any() else None


def _rounded(value) -> float:
    return round(float(value), 4)
