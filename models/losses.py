"""Losses of the class masks and of the recovery decoder (CLIP-RC; the mask losses are ZegCLIP's).

B batch, C classes in use, H x W pixels of the labels. A pixel whose label is not an index of C (255, or 65535 with more
classes) belongs to no class: it is a negative of every mask, as in the published training.
"""
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmseg.models.builder import LOSSES
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .precision import upcast
from .resizing import Resizing, map_chunks

CHUNK_ELEMENTS = {'cpu': 2**18, 'cuda': 2**24}  # five tensors of a chunk live together, more than in testing


class MaskTerms(torch.autograd.Function):
    """Focal and dice losses of all masks, and the number of pixels whose label has the highest logit.

    The maps are resized in chunks of images and classes. The forward pass also computes the gradient to the small maps,
    so that no large map is kept for the backward pass. No shape depends on a value, so a GPU never waits for the host.

    Args:
        logits: (B, C, h, w).
        labels: (B, H, W) in indices of C; larger values mean no class.
        resizing: from (h, w) to (H, W).
        compute: `chunk_terms`, as it is or compiled.

    Returns:
        focal: mean over the pixels of a map, summed over all maps.
        dice: 1 minus the dice coefficient with 1 added to numerator and denominator (Milletari et al. 2016), summed
            over the maps whose class is present.
        present: number of maps whose class is present.
        correct: number of pixels whose label has the highest logit.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, resizing: Resizing, compute: Callable
                ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        (batch, num_classes), pixels = logits.shape[:2], labels[0].numel()
        indices = torch.arange(num_classes, dtype=logits.dtype, device=logits.device)[:, None]
        d_focal, d_dice = torch.empty_like(logits), torch.empty_like(logits)
        sums, correct = [], []
        for images in map_chunks(batch, num_classes * pixels, logits.device, CHUNK_ELEMENTS):
            label = labels[images].flatten(1)[:, None].to(logits.dtype)  # (images, 1, H*W)
            best = torch.full_like(label, -torch.inf)
            own = torch.zeros_like(label)  # each pixel's logit of its label
            for classes in map_chunks(num_classes, label.numel(), logits.device, CHUNK_ELEMENTS):
                x = resizing(logits[images, classes]).flatten(2)  # (images, classes, H*W)
                best, own, slopes, terms = compute(x, label, indices[classes], best, own)
                for gradient, slope in zip((d_focal, d_dice), slopes, strict=True):
                    gradient[images, classes] = resizing.gradient(slope.unflatten(2, labels.shape[1:]))
                sums.append(terms)
            correct.append(((own >= best) & (label < num_classes)).sum())
        focal, dice, present, correct = (torch.stack(each).sum() for each in (*zip(*sums, strict=True), correct))
        ctx.save_for_backward(d_focal.div_(pixels), d_dice)
        ctx.mark_non_differentiable(present, correct)
        return focal / pixels, dice, present, correct

    @staticmethod
    @once_differentiable
    def backward(ctx, focal: Tensor, dice: Tensor, *_) -> tuple[Tensor | None, ...]:
        d_focal, d_dice = ctx.saved_tensors
        return focal * d_focal + dice * d_dice, None, None, None


def chunk_terms(x: Tensor, label: Tensor, indices: Tensor, best: Tensor, own: Tensor
                ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Compute the losses of a chunk of maps, and their derivatives: elementwise work, which a compiler can fuse.

    Args:
        x: logits (images, classes, pixels), which are changed in place.
        label, indices: (images, 1, pixels) and (classes, 1), in the type of x.
        best, own: (images, 1, pixels), the highest logit of earlier chunks, and that of the label if it was among them.

    Returns:
        The new `best` and `own`; derivatives of the focal and of the dice losses; their sums and the number of maps
        with members.
    """
    best = torch.maximum(best, x.amax(dim=1, keepdim=True))
    member = torch.eq(label, indices, out=torch.empty_like(x))  # 1: the pixel is of the class
    of_label = member * x
    own = own + of_label.sum(dim=1, keepdim=True)
    wrong = x.sub_(of_label, alpha=2)  # logits of the wrong answer: -x where the pixel is of the class
    del of_label
    entropy, missed = F.softplus(wrong), wrong.sigmoid_()  # -log(1 - m), m
    focal, focal_slope = focal_terms(entropy, missed, member)
    dice, present, dice_slope = dice_terms(missed, member)
    return best, own, (focal_slope, dice_slope), (focal, dice, present)


def focal_terms(entropy: Tensor, missed: Tensor, member: Tensor, alpha: float = 0.25) -> tuple[Tensor, Tensor]:
    """Compute the sum of the sigmoid focal losses (Lin et al. 2017, equation 5, gamma 2), and its derivative.

    Args:
        entropy: s = -log(1 - m), which is changed in place.
        missed: m, the probability of the wrong answer.
        member: 1 where the pixel is of the class, weighted by `alpha`; else 0, weighted by 1 - `alpha`.

    Returns:
        The sum of m^2 s, weighted, and its derivative by the logits of the class.
    """
    slope = torch.addcmul(entropy, entropy, missed, value=-1)
    slope = torch.add(missed, slope, alpha=2, out=slope)  # by the wrong answer's logit it is m^2 (2 (1 - m) s + m)
    weight = (1 - alpha) - member  # negative for a member, whose wrong answer has the logit -x
    slope.mul_(missed).mul_(missed).mul_(weight)
    return entropy.mul_(missed).mul_(missed).mul_(weight.abs_()).sum(), slope


def dice_terms(missed: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the sum of the dice losses of maps with members, and its derivative.

    A loss is 1 - (2 o + 1) / (p + t + 1) = e / (e + 2 o + 1): o is the sum of the members' probabilities, p that of all
    pixels, t the number of members, e = p + t - 2 o the sum of `missed`.

    Args:
        missed, member: (images, classes, pixels), as in `focal_terms`; a member's probability is 1 - missed.

    Returns:
        The sum, the number of maps with members, and the derivative by the logits of the class.
    """
    count, errors = member.sum(dim=2, keepdim=True), missed.sum(dim=2, keepdim=True)  # (images, classes, 1)
    overlap = count - (missed * member).sum(dim=2, keepdim=True)
    below, present = torch.add(errors + 1, overlap, alpha=2), (count > 0).to(count.dtype)
    loss, scale = errors / below, present / below
    slope = torch.addcmul(missed, missed, missed, value=-1)  # d/dx of the probability
    slope.mul_(torch.addcmul((1 - loss) * scale, scale, member, value=-2))
    return (loss * present).sum(), present.sum(), slope


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
        self.compute = chunk_terms  # `models.builder.compile_layers` compiles it

    def forward(self, logits: Tensor, labels: Tensor, resizing: Resizing) -> dict[str, Tensor]:
        """Compute the losses, and the accuracy in percent of the labelled pixels.

        Args:
            logits: mask logits (B, C, h, w).
            labels: (B, H, W) in indices of C; larger values mean no class.
            resizing: from (h, w) to (H, W).
        """
        focal, dice, present, correct = MaskTerms.apply(logits, labels, resizing, self.compute)
        pairs = pair_count(present)
        return {'loss_mask': self.mask_weight * focal / pairs, 'loss_dice': self.dice_weight * dice / pairs,
                'acc_seg': 100 * correct / (labels < logits.shape[1]).sum().clamp(min=1)}

    def recovery(self, recovered: Tensor, original: Tensor) -> Tensor:
        """Compute the weighted mean absolute error; no gradient flows to `original`."""
        return self.recovery_loss_weight * F.l1_loss(upcast(recovered), upcast(original).detach())
