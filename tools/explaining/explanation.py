"""Explains how regional clues contribute to one class in one window of an image.

C classes, R = r*r regions, Gh x Gw patches and h x w pixels of the window.
"""
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from models.class_names import clean_class_names, synonyms
from models.errors import UserError
from models.image_io import ImageSource, read_image
from models.inference.result import Result
from models.inference.segmenter import Segmenter
from models.precision import autocast
from models.resizing import resize
from models.sliding_window import Window
from tools.explaining.regions import Attention, ablate, cell_of, encode_with_attention, region_logits


class Prediction(NamedTuple):
    """Scores and pixels of the class in the window."""
    scores: np.ndarray  # (h, w) from 0 to 1, minus the seen penalty if the class was trained with masks
    mask: np.ndarray  # (h, w) bool, where the class scores best

    def summary(self, pixels: np.ndarray) -> dict:
        """Return the class's share of the window, and its mean scores in its own mask and in `pixels`, (h, w) bool."""
        return {'area': _rounded(self.mask.mean()), 'mean_score': _mean(self.scores, self.mask),
                'mean_score_in_mask_with_regions': _mean(self.scores, pixels)}


class Explanation(NamedTuple):
    """Regional clues for a class in a window."""
    result: Result  # of the whole image
    class_name: str
    window: Window  # in the image of `size`
    number: int  # of the window, from 1
    windows: int  # of the image
    size: tuple[int, int]  # (H, W) of the image as the model gets it, without padding
    view: np.ndarray  # (h, w, 3) uint8, the window
    region_logits: np.ndarray  # (R, h, w) mask logits from the queries of each region; their mean is the model's
    attention: Attention
    block: int  # the block whose attention is shown, from 1
    prediction: Prediction
    ablated: dict[str, Prediction]  # without region tokens, see `regions.ablate`

    @property
    def side(self) -> int:
        """r."""
        return math.isqrt(len(self.region_logits))

    @property
    def pixels(self) -> np.ndarray:
        """(h, w) bool: the mask of the class, or all pixels if it is empty; means are taken over these."""
        return self.prediction.mask if self.prediction.mask.any() else np.ones_like(self.prediction.mask)

    @property
    def mean_logits(self) -> np.ndarray:
        """(R,) mean mask logit of each region over `pixels`; the mean over the regions is the model's."""
        return self.region_logits[:, self.pixels].mean(axis=1)

    def summary(self) -> dict:
        """Return the numbers as plain JSON values."""
        pixels, mask = self.pixels, self.prediction.mask
        cell = cell_of(mask.shape, self.side).numpy()
        own = np.take_along_axis(self.region_logits, cell[None], axis=0)[0]  # each pixel's logit by its own region
        margins = own - self.region_logits.mean(axis=0)  # (h, w)
        weights = self.attention.patches[self.block - 1].float().cpu()
        on_class = weights * F.adaptive_avg_pool2d(torch.from_numpy(mask)[None].float(), weights.shape)[0]
        cell_of_patch = cell_of(weights.shape, self.side)
        regions = []
        for region, mean_logit in enumerate(self.mean_logits):
            inside, patches = cell == region, cell_of_patch == region
            regions.append({
                'row': region // self.side, 'column': region % self.side, 'mean_logit': _rounded(mean_logit),
                'margin_in_own_cell': _mean(margins, pixels & inside), 'class_in_cell': _rounded(mask[inside].mean()),
                'attention_to_itself': _rounded(self.attention.itself[self.block - 1, region]),
                'attention_to_class': _rounded(on_class[patches].sum() / weights[patches].sum())})
        return {
            'class_name': self.class_name, 'class_names': self.result.class_names, 'window': self.window._asdict(),
            'number': self.number, 'windows': self.windows, 'found': bool(mask.any()),
            'region_with_highest_mean_logit': int(self.mean_logits.argmax()),
            'margin_in_own_cell': _mean(margins, pixels), 'block': self.block, 'regions': regions,
            'attention_to_itself_by_block': [_rounded(weights.mean()) for weights in self.attention.itself],
            'with_regions': self.prediction.summary(pixels),
            'ablated': {name: {**ablated.summary(pixels), 'same_pixels': _rounded((ablated.mask == mask).mean())}
                        for name, ablated in self.ablated.items()}}


def explain(segmenter: Segmenter, image: ImageSource, class_name: str, others: Sequence[str] | None = None, *,
            prompts: str | Sequence[str] | None = None, window: int | None = None, block: int | None = None
            ) -> Explanation:
    """Explain how regional clues contribute to a class in a window of an image.

    Args:
        others: classes that compete for pixels; without them those of the training. Synonyms of the class are left out.
        prompts: as for `Segmenter.segment`.
        window: its number, from 1, row by row; without it the window with most pixels of the class, or the middle one
            if none has any.
        block: the block whose attention is shown, from 1; without it the last.

    Raises:
        UserError: the model has no region tokens or a head of another kind, or the window, block, image or class name
            is invalid.
    """
    encoder = segmenter.model.backbone
    if encoder.side == 0:
        raise UserError('this model has no region tokens (region_level_bridge_size=0): there is nothing to explain.')
    blocks = len(encoder.transformer.resblocks)
    if block is not None and not 1 <= block <= blocks:
        raise UserError(f'no block {block}: the encoder has {blocks}, from 1 to {blocks}.')
    class_name, = clean_class_names([class_name])
    own = {name.casefold() for name in synonyms(class_name)}
    names = [class_name, *(other for other in (segmenter.class_names if others is None else clean_class_names(others))
                           if own.isdisjoint(name.casefold() for name in synonyms(other)))]
    if len(names) == 1:
        raise UserError(f'nothing competes with {class_name!r}: name other classes (--classes "sky, grass").')
    array = read_image(image)
    with segmenter.using(names, prompts) as model:
        tensor, meta = segmenter.prepare(array)
        tensor = tensor.to(segmenter.device)
        stitched, = model.stitch([tensor], [meta])
        count = len(stitched.windows)
        if window is not None and not 1 <= window <= count:
            raise UserError(f'no window {window}: the image has {count}, from 1 to {count}.')
        if window is None:
            pixels = [predict(model.decode_head, logits[None], stitched.resizing).mask.sum()
                      for logits in stitched.logits]
            window = 1 + (int(np.argmax(pixels)) if any(pixels) else count // 2)
        place = stitched.windows[window - 1]
        view = resize(place.of(tensor)[None], encoder.nearest_size((place.height, place.width)))
        with autocast(view.device, model.amp_dtype):
            features, attention = encode_with_attention(encoder, view)
            decoded = model.decode_head(features)
            ablated = {name: predict(model.decode_head, model.decode_head(changed).logits, stitched.resizing)
                       for name, changed in ablate(encoder, view, features).items()}
        by_region = region_logits(decoded, len(names))
        if (by_region.mean(dim=1) - decoded.logits).abs().max() > 0.01 * (1 + decoded.logits.abs().max()):
            raise UserError(f'{type(model.decode_head).__name__} is not supported: its mask logits are not the mean '
                            'over the regions of queries times pixels, so they cannot be attributed to regions.')
        shown = Image.fromarray(array).resize(stitched.size[::-1]).crop(
            (place.left, place.top, place.left + place.width, place.top + place.height))
        return Explanation(
            result=Result(array, names, stitched), class_name=class_name, window=place, number=window, windows=count,
            size=stitched.size, view=np.asarray(shown), attention=attention, block=block or blocks, ablated=ablated,
            region_logits=stitched.resizing(by_region[0, :, 0]).float().cpu().numpy(),
            prediction=predict(model.decode_head, decoded.logits, stitched.resizing))


def predict(head, logits: Tensor, resizing) -> Prediction:
    """Turn the mask logits (1, C, Gh, Gw) of a window into scores and pixels of the first class."""
    scores = head.class_head.scores(resizing(logits)[0], head.class_head.penalty)  # (C, h, w)
    return Prediction(scores[0].float().cpu().numpy(), (scores.argmax(dim=0) == 0).cpu().numpy())


def _mean(values: np.ndarray, where: np.ndarray) -> float | None:
    return _rounded(values[where].mean()) if where.any() else None


def _rounded(value) -> float:
    return round(float(value), 4)
