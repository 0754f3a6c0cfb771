"""Losses of the class masks and of the recovery decoder (CLIP-RC; the mask losses are ZegCLIP's).

B batch, C classes in use, H x W pixels of the labels. A pixel labelled 255 belongs to no class: it is a negative
of every mask, as in the published training.
"""
import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmseg.models.builder import LOSSES
from torch import Tensor, nn


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Labels (B, H, W) -> (B, C, H, W) bool; 255 is in no class."""
    return labels[:, None] == torch.arange(num_classes, device=labels.device)[:, None, None]


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.) -> Tensor:
    """Sigmoid focal loss (Lin et al. 2017, equation 5): mean over the pixels of a map, sum over the maps.

    Args:
        logits: (B, C, H, W).
        targets: same shape, bool.
    """
    truth = targets.to(logits.dtype)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction='none')
    probability = logits.sigmoid()
    missed = torch.where(targets, 1 - probability, probability)  # 1 - p_t
    balance = torch.where(targets, alpha, 1 - alpha)
    return (balance * missed**gamma * cross_entropy).mean(dim=(2, 3)).sum()


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Dice loss with 1 added above and below (Milletari et al. 2016), summed over maps.

    Args:
        logits: (maps, H, W).
        targets: same shape, bool.
    """
    probability = logits.sigmoid().flatten(1)
    truth = targets.flatten(1).to(logits.dtype)
    overlap = (probability * truth).sum(dim=1)
    return (1 - (2 * overlap + 1) / (probability.sum(dim=1) + truth.sum(dim=1) + 1)).sum()


def pair_count(present: Tensor) -> Tensor:
    """Number of (image, class) pairs that are present, averaged over data-parallel workers, at least 1."""
    count = present.sum().float()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count /= dist.get_world_size()
    return count.clamp(min=1)


@LOSSES.register_module(name=['MaskLoss', 'SegLoss'])
class MaskLoss(nn.Module):
    """Weighted focal and dice losses over class masks, and the weighted L1 of the recovery decoder.

    Args:
        mask_weight, dice_weight: of the focal and of the dice term.
        loss_weight: multiplies both, not the recovery.
        recovery_loss_weight: 0 means that no recovery decoder is built.
        dec_layers: official configs name it; ignored, as in the published code.
    """

    def __init__(self, *, mask_weight: float = 100., dice_weight: float = 1., loss_weight: float = 1.,
                 recovery_loss_weight: float = 0., dec_layers: int | None = None):
        super().__init__()
        self.mask_weight = loss_weight * mask_weight
        self.dice_weight = loss_weight * dice_weight
        self.recovery_loss_weight = recovery_loss_weight

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mask logits (B, C, H, W) and labels (B, H, W) in indices of C or 255."""
        targets = one_hot(labels, logits.shape[1])
        present = targets.flatten(2).any(dim=2)  # (B, C)
        pairs = pair_count(present)
        return {'loss_mask': self.mask_weight * focal_loss(logits, targets) / pairs,
                'loss_dice': self.dice_weight * dice_loss(logits[present], targets[present]) / pairs}

    def recovery(self, recovered: Tensor, original: Tensor) -> Tensor:
        """Mean absolute error against what is not trained to be easier: `original` is detached."""
        return self.recovery_loss_weight * F.l1_loss(recovered, original.detach())
