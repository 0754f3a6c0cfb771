"""Text embeddings as the classifier: the only part of the model that knows which classes there are.

It has no parameters and leaves no trace in a state dict: the classes of a model can be changed at any time.
B batch, C classes in use, S seen classes, R = r*r regions, N pixels, E CLIP space.
"""
from collections.abc import Sequence

import torch
from mmseg.models.builder import HEADS
from torch import Tensor, nn

from .errors import UserError
from .precision import upcast, without_autocast
from .training_labels import Setting
from .vision_encoder import ImageFeatures


@HEADS.register_module()
class TextClassHead(nn.Module):
    """Class side of the queries, class scores of the pixels.

    Args:
        embed_dims: E.
        seen_penalty: subtracted in testing from the scores of the classes that were seen in training, which a
            model that never saw the others prefers (0.1 as published; not in the transductive setting).
    """

    def __init__(self, *, embed_dims: int, seen_penalty: float = 0.1):
        super().__init__()
        self.embed_dims = embed_dims
        self.seen_penalty = seen_penalty
        self.num_classes = 0
        self.setting = Setting.INDUCTIVE
        for name in ('embeddings', 'seen', 'unseen', 'penalty'):
            self.register_buffer(name, None, persistent=False)

    def set_split(self, *, num_classes: int, seen: Sequence[int], setting: Setting) -> None:
        """Which of the classes were, or will be, seen with masks in training.

        Args:
            num_classes: all classes of the model.
            seen: their indices, ascending; all of them when fully supervised.

        Raises:
            UserError: an index is out of range.
        """
        if not all(0 <= index < num_classes for index in seen):
            raise UserError(f'seen classes {list(seen)} of a model with {num_classes} classes: each is from 0 to '
                            f'{num_classes - 1}.')
        self.num_classes = num_classes
        self.setting = setting
        device = None if self.seen is None else self.seen.device
        self.seen = torch.tensor(sorted(seen), dtype=torch.long, device=device)  # (S,)
        self.unseen = torch.tensor(sorted(set(range(num_classes)) - set(seen)), dtype=torch.long, device=device)
        self.penalty = torch.zeros(num_classes, 1, 1, device=device)
        if setting is not Setting.TRANSDUCTIVE:  # when fully supervised a uniform shift
            self.penalty[self.seen] = self.seen_penalty
        if self.embeddings is not None and len(self.embeddings) != num_classes:
            self.embeddings = None

    def set_embeddings(self, embeddings: Tensor, source: str = 'the text embeddings') -> None:
        """Embeddings (C, E) of all classes in order, used as they are: not normalised again.

        Raises:
            UserError: another number of classes or another width; the message names `source`.
        """
        wanted = (self.num_classes, self.embed_dims)
        if tuple(embeddings.shape) != wanted:
            raise UserError(f'{source}: shape {tuple(embeddings.shape)}, but this model has {wanted[0]} classes in '
                            f'a space of width {wanted[1]}, so {wanted} is needed. Embeddings belong to a class '
                            'list and to a CLIP: use those of this dataset and this CLIP, or name none to have '
                            'them computed.')
        device = None if self.seen is None else self.seen.device
        self.embeddings = embeddings.float().to(device)

    def rows_in_use(self) -> Tensor:
        """(C, E): the seen rows while an inductive model trains, else all."""
        if self.embeddings is None:
            raise UserError('the model has no text embeddings yet: build it with tools.engine.build, or call '
                            'set_embeddings with one row per class.')
        inductive_training = self.training and self.setting is Setting.INDUCTIVE
        return self.embeddings[self.seen] if inductive_training else self.embeddings

    def queries(self, features: ImageFeatures) -> tuple[Tensor, Tensor]:
        """Region alignment: (region + CLS) * text, (B, R, C, E), and text, (C, E). Together they are the queries."""
        text = self.rows_in_use()
        regions = features.regions.flatten(2).transpose(1, 2) + features.cls[:, None]  # (B, R, E)
        return regions[:, :, None] * text, text

    def mask_logits(self, queries: Tensor, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """Final queries (B, R*C, E) and pixels (B, N, E) -> (B, C, Gh, Gw), the mean over the regions of a class.

        The mean is taken before the product, which it commutes with.
        """
        class_queries = upcast(queries).unflatten(1, (-1, self.rows_in_use().shape[0])).mean(dim=1)  # (B, C, E)
        with without_autocast(queries.device):
            return (class_queries @ upcast(pixels).transpose(1, 2)).unflatten(2, grid)

    def scores(self, logits: Tensor, classes: slice = slice(None)) -> Tensor:
        """Mask logits (..., C, H, W) of all classes or of a slice of them -> test scores: sigmoid less the penalty."""
        return logits.sigmoid().sub_(self.penalty[classes])
