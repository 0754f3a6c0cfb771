"""Which labels a setting may see in training, and pseudo-labels for those it may not (ZegCLIP's settings).

B batch, C classes, S seen classes. Labels are int64 (B, H, W); `label_format` has the value of a pixel of no class. No
function changes its input.
"""
from enum import Enum

import torch
from torch import Tensor

from .label_format import label_format
from .resizing import Resizing, best_class, resized_in_chunks


class Setting(str, Enum):
    """What training may know of the unseen classes."""
    INDUCTIVE = 'inductive'  # nothing, not even their names
    TRANSDUCTIVE = 'transductive'  # their names; their masks are the model's own guesses (self-training)
    FULLY_SUPERVISED = 'fully_supervised'  # there are no unseen classes


def training_labels(labels: Tensor, setting: Setting, *, seen: Tensor, unseen: Tensor, logits: Tensor,
                    resizing: Resizing) -> Tensor:
    """Ground truth -> the labels that training in `setting` uses.

    Args:
        labels: ground truth in indices of all classes.
        seen, unseen: indices of all classes, (S,) and (C - S,).
        logits: current mask logits; looked at in the transductive setting only, where they are of all classes,
            (B, C, h, w).
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
        guesses = unseen[best_class(some.sigmoid() for some in maps).index]  # (B, H, W)
        return torch.where(torch.isin(labels, unseen), guesses, labels)
    return labels
