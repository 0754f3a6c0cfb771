"""Labels that each setting trains with, and the pseudo-labels of self-training (ZegCLIP's settings).

B batch, C classes, S seen classes. Labels are int64 (B, H, W); `label_format` gives the value of a pixel of no class.
"""
from collections.abc import Sequence
from enum import Enum

import torch
from torch import Tensor

from .label_format import label_format
from .resizing import Resizing, best_class, resized_in_chunks


class Setting(str, Enum):
    """How much training uses of the unseen classes."""
    INDUCTIVE = 'inductive'  # nothing, not even their names
    TRANSDUCTIVE = 'transductive'  # their names; their masks are the model's own guesses (self-training)
    FULLY_SUPERVISED = 'fully_supervised'  # there are no unseen classes


def setting_of(num_classes: int, seen: Sequence[int], *, self_training: bool) -> Setting:
    """Give the setting of a model that sees the masks of the classes `seen` in training."""
    if len(seen) == num_classes:
        return Setting.FULLY_SUPERVISED
    return Setting.TRANSDUCTIVE if self_training else Setting.INDUCTIVE


def training_labels(labels: Tensor, setting: Setting, *, seen: Tensor, unseen: Tensor, logits: Tensor,
                    resizing: Resizing) -> Tensor:
    """Turn the ground truth into the labels that `setting` trains with. The ground truth itself is not changed.

    Args:
        labels: ground truth in indices of all classes.
        seen, unseen: indices of all classes, (S,) and (C - S,).
        logits: current mask logits, (B, C, h, w) of all classes; used in the transductive setting only, for the
            pseudo-labels.
        resizing: from (h, w) to (H, W).

    Returns:
        inductive: indices among the seen classes; transductive and fully supervised: indices of all classes.
    """
    if setting is Setting.INDUCTIVE:
        ignore = label_format(len(seen) + len(unseen)).ignore
        index_among_seen = labels.new_full((ignore + 1,), ignore)
        index_among_seen[seen] = torch.arange(len(seen), device=seen.device)
        return index_among_seen[labels]
    if setting is Setting.TRANSDUCTIVE:
        maps = resized_in_chunks(logits.detach()[:, unseen], resizing)
        guesses = unseen[best_class(chunk.sigmoid() for chunk in maps).index]  # (B, H, W)
        return torch.where(torch.isin(labels, unseen), guesses, labels)
    return labels
