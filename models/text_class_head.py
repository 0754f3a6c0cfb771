"""Text embeddings as the classifier: the only part of the model that knows the classes.

It has no parameters and nothing in a state dict, so the classes of a model can be changed at any time.
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
    """Makes the queries of the classes, and the class scores of the pixels.

    Args:
        embed_dims: E.
        seen_penalty: subtracted in testing from the scores of seen classes, because a model prefers them to classes
            without masks in training (0.1 as published; not in the transductive setting).
    """

    def __init__(self, *, embed_dims: int, seen_penalty: float = 0.1):
        super().__init__()
        self.embed_dims = embed_dims
        self.seen_penalty = seen_penalty
        self.num_classes = 0
        self.setting = Setting.INDUCTIVE
        self.register_buffer('embeddings', None, persistent=False)  # (C, E)
        self.register_buffer('seen', torch.zeros(0, dtype=torch.long), persistent=False)  # (S,)
        self.register_buffer('unseen', torch.zeros(0, dtype=torch.long), persistent=False)  # (C - S,)
        self.register_buffer('penalty', torch.zeros(0, 1, 1), persistent=False)  # (C, 1, 1)

    def set_classes(self, num_classes: int, embeddings: Tensor | None = None, *, seen: Sequence[int] | None = None,
                    setting: Setting | None = None, source: str = 'text embeddings') -> None:
        """Set the classes, their split and their text embeddings. May be called again for other classes.

        Args:
            num_classes: C.
            embeddings: (C, E) in class order, used as they are: not normalised again. A model without them can be
                counted and loaded, but not run.
            seen: indices of the classes with masks in training; all of them when fully supervised. Without `seen` and
                `setting` the split stays as it is.
            source: of the embeddings, for error messages.

        Raises:
            UserError: an index is out of range, or the embeddings are of another number of classes or another width.
        """
        seen = self.seen.tolist() if seen is None else sorted(seen)
        if not all(0 <= index < num_classes for index in seen):
            raise UserError(f'seen classes {seen} of a model with {num_classes} classes: each is from 0 to '
                            f'{num_classes - 1}.')
        shape = num_classes, self.embed_dims
        if embeddings is not None and tuple(embeddings.shape) != shape:
            raise UserError(f'{source}: shape {tuple(embeddings.shape)}, but this model has {num_classes} classes in a '
                            f'space of width {self.embed_dims}, so {shape} is needed. Embeddings belong to a class '
                            'list and to a CLIP: use those of this dataset and this CLIP, or leave them out to have '
                            'them computed.')
        device = self.seen.device
        self.num_classes, self.setting = num_classes, setting or self.setting
        self.seen = torch.tensor(seen, dtype=torch.long, device=device)
        self.unseen = torch.tensor(sorted(set(range(num_classes)) - set(seen)), dtype=torch.long, device=device)
        self.penalty = torch.zeros(num_classes, 1, 1, device=device)
        if self.setting is not Setting.TRANSDUCTIVE:  # when fully supervised a uniform shift
            self.penalty[self.seen] = self.seen_penalty
        self.embeddings = None if embeddings is None else embeddings.float().to(device)

    def rows_in_use(self) -> Tensor:
        """Give the embeddings in use, (C, E): the seen rows while an inductive model trains, else all."""
        if self.embeddings is None:
            raise UserError('the model has no text embeddings: call decode_head.class_head.set_classes with one row '
                            'per class, or give_text_embeddings of tools.engine.build.')
        inductive_training = self.training and self.setting is Setting.INDUCTIVE
        return self.embeddings[self.seen] if inductive_training else self.embeddings

    def queries(self, features: ImageFeatures) -> tuple[Tensor, Tensor]:
        """Align regions and classes: (region + CLS) * text, (B, R, C, E), and text, (C, E); both make the queries."""
        text = self.rows_in_use()
        regions = features.regions.flatten(2).transpose(1, 2) + features.cls[:, None]  # (B, R, E)
        return regions[:, :, None] * text, text

    def mask_logits(self, queries: Tensor, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """Compute mask logits (B, C, Gh, Gw) from final queries (B, R*C, E) and pixels (B, N, E).

        They are the mean over the regions of a class. It is taken before the product, which gives the same numbers.
        """
        class_queries = upcast(queries).unflatten(1, (-1, self.rows_in_use().shape[0])).mean(dim=1)  # (B, C, E)
        with without_autocast(queries.device):
            return (class_queries @ upcast(pixels).transpose(1, 2)).unflatten(2, grid)

    def scores(self, logits: Tensor, penalty: Tensor) -> Tensor:
        """Turn mask logits (..., C, H, W) in place into test scores: sigmoid minus the seen penalty.

        Args:
            penalty: (C, 1, 1), that of the same classes. An argument, so that later `set_classes` change no result.
        """
        return logits.sigmoid_().sub_(penalty)
