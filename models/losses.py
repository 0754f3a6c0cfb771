"""Losses of the class masks and of the recovery decoder (CLIP-RC; the mask losses are ZegCLIP's).

B batch, C classes in use, H x W pixels of the labels. A pixel whose label is not an index of C (255, or 65535 with more
classes) belongs to no class: it is a negative of every mask, as in the published training.
"""
import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmseg.models.builder import LOSSES
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .precision import upcast
from .resizing import Resizing, class_chunks


def focal_terms(x: Tensor, *, positive: bool, alpha: float = 0.25) -> tuple[Tensor, Tensor]:
    """Compute the sigmoid focal loss of logits (Lin et al. 2017, equation 5, with gamma 2) and its derivative.

    Args:
        positive: whether the pixels belong to the class.
    """
    if positive:
        missed, entropy, sign, balance = torch.sigmoid(-x), F.softplus(-x), -1., alpha
    else:
        missed, entropy, sign, balance = torch.sigmoid(x), F.softplus(x), 1., 1 - alpha
    # d/dx of m^2 s, where m = sigmoid(+-x) is 1 minus the probability of the truth and s = softplus(+-x) = -log(1 - m)
    slope = torch.addcmul(entropy, entropy, missed, value=-1).mul_(2).add_(missed)  # 2 (1 - m) s + m
    squared = missed.square_()
    return entropy.mul_(squared).mul_(balance), slope.mul_(squared).mul_(sign * balance)


class MaskTerms(torch.autograd.Function):
    """Focal and dice losses of all masks, and the number of pixels whose label has the highest logit.

    The maps are resized in chunks of classes, without one-hot targets: every pixel first counts as a negative, then the
    pixels of the class are corrected. The forward pass also computes the gradient to the small maps, so that no large
    map is kept for the backward pass.

    Args:
        logits: (B, C, h, w).
        labels: (B, H, W) in indices of C; larger values mean no class.
        resizing: from (h, w) to (H, W).

    Returns:
        focal: mean over the pixels of a map, summed over all maps.
        dice: 1 minus the dice coefficient with 1 added to numerator and denominator (Milletari et al. 2016), summed
            over the maps whose class is present.
        present: number of maps whose class is present.
        correct: number of pixels whose label has the highest logit.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, resizing: Resizing) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        classes = logits.shape[1]
        d_focal, d_dice = torch.zeros_like(logits), torch.zeros_like(logits)
        focal, dice, present, correct = (logits.new_zeros(()) for _ in range(4))
        for image, (small, label) in enumerate(zip(logits, labels.flatten(1), strict=True)):  # (C, h, w), (H*W,)
            best = logits.new_full(label.shape, -torch.inf)
            own = torch.zeros_like(best)  # each pixel's logit of its label
            counts = torch.bincount(label[label < classes], minlength=classes)
            for chunk in class_chunks(classes, labels[0].numel(), logits.device):
                x = resizing(small[chunk]).flatten(1)  # (classes of the chunk, H*W)
                torch.maximum(best, x.amax(dim=0), out=best)
                pixel = ((label >= chunk.start) & (label < chunk.stop)).nonzero()[:, 0]
                place = label[pixel] - chunk.start, pixel
                x_own = own[pixel] = x[place]
                loss, slope = focal_terms(x, positive=False)
                loss_own, slope_own = focal_terms(x_own, positive=True)
                focal += loss.sum() - loss[place].sum() + loss_own.sum()
                slope[place] = slope_own
                d_focal[image, chunk] = resizing.gradient(slope.view(-1, *labels.shape[1:]))
                chosen = counts[chunk].nonzero()[:, 0]
                if len(chosen):
                    value, slope = dice_terms(x[chosen], counts[chunk][chosen], chosen, place)
                    dice += value
                    d_dice[image, chunk.start + chosen] = resizing.gradient(slope.view(-1, *labels.shape[1:]))
            present += counts.count_nonzero()
            correct += ((own >= best) & (label < classes)).sum()
        pixels = labels[0].numel()
        ctx.save_for_backward(d_focal.div_(pixels), d_dice)
        ctx.mark_non_differentiable(present, correct)
        return focal / pixels, dice, present, correct

    @staticmethod
    @once_differentiable
    def backward(ctx, focal: Tensor, dice: Tensor, *_) -> tuple[Tensor | None, ...]:
        d_focal, d_dice = ctx.saved_tensors
        return focal * d_focal + dice * d_dice, None, None


def dice_terms(x: Tensor, counts: Tensor, chosen: Tensor, place: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Compute the sum of the dice losses 1 - (2 o + 1) / (p + t + 1) of maps, and its derivative.

    Args:
        x: logits (maps, pixels).
        counts: t, (maps,): number of pixels of each map's class.
        chosen: (maps,) classes of the maps, ascending.
        place: class and index of every pixel of these classes.
    """
    probability = x.sigmoid()
    row, pixel = torch.searchsorted(chosen, place[0]), place[1]
    overlap = x.new_zeros(len(x)).index_add_(0, row, probability[row, pixel])
    below = probability.sum(dim=1) + counts + 1
    share = (2 * overlap + 1) / below
    slope = (share / below)[:, None].repeat(1, x.shape[1])
    slope[row, pixel] -= (2 / below)[row]
    slope = slope.mul_(torch.addcmul(probability, probability, probability, value=-1))
    return (1 - share).sum(), slope


def pair_count(present: Tensor) -> Tensor:
    """Average the number of (image, class) pairs over data-parallel workers; give at least 1."""
    count = present.clone()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count /= dist.get_world_size()
    return count.clamp(min=1)


@LOSSES.register_module(name=['MaskLoss', 'SegLoss'])
class MaskLoss(nn.Module):
    """Weighted focal and dice losses over class masks, and the weighted L1 of the recovery decoder.

    Args:
        mask_weight, dice_weight: of the focal and of the dice term.
        loss_weight: multiplies these two, not the recovery loss.
        recovery_loss_weight: of the L1 loss. `models.builder.build` builds no recovery decoder when it is 0.
        dec_layers: official configs name it; ignored, as in the published code.
    """

    def __init__(self, *, mask_weight: float = 100., dice_weight: float = 1., loss_weight: float = 1.,
                 recovery_loss_weight: float = 0., dec_layers: int | None = None):
        super().__init__()
        self.mask_weight = loss_weight * mask_weight
        self.dice_weight = loss_weight * dice_weight
        self.recovery_loss_weight = recovery_loss_weight

    def forward(self, logits: Tensor, labels: Tensor, resizing: Resizing) -> dict[str, Tensor]:
        """Compute the losses, and the accuracy in percent of the labelled pixels.

        Args:
            logits: mask logits (B, C, h, w).
            labels: (B, H, W) in indices of C; larger values mean no class.
            resizing: from (h, w) to (H, W).
        """
        focal, dice, present, correct = MaskTerms.apply(logits, labels, resizing)
        pairs = pair_count(present)
        return {'loss_mask': self.mask_weight * focal / pairs, 'loss_dice': self.dice_weight * dice / pairs,
                'acc_seg': 100 * correct / (labels < logits.shape[1]).sum().clamp(min=1)}

    def recovery(self, recovered: Tensor, original: Tensor) -> Tensor:
        """Compute the weighted mean absolute error; no gradient flows to `original`."""
        return self.recovery_loss_weight * F.l1_loss(upcast(recovered), upcast(original).detach())
