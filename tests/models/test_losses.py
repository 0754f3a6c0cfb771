"""The mask losses against loops over pixels, and how they are counted."""
import math
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from models.losses import MaskLoss, dice_loss, focal_loss, one_hot, pair_count

B, C, H, W = 2, 3, 4, 5


def example():
    """Logits (B, C, H, W) float64 and labels; (0, 0), (0, 1), (1, 2) are present; 255 stands in both."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.full((B, H, W), 255)
    labels[0, :2], labels[0, 2, 1:], labels[1, 1:3] = 0, 1, 2
    return 3 * torch.randn(B, C, H, W, generator=generator, dtype=torch.float64), labels


def naive_losses(logits, labels):
    """(focal, dice, present pairs), neither divided by the number of pairs."""
    focal = dice = 0.
    pairs = 0
    for b in range(len(logits)):
        for c in range(logits.shape[1]):
            overlap = probabilities = truths = 0.
            for y in range(logits.shape[2]):
                for x in range(logits.shape[3]):
                    p = 1 / (1 + math.exp(-float(logits[b, c, y, x])))
                    truth = int(labels[b, y, x]) == c
                    focal += (-0.25 * (1 - p)**2 * math.log(p) if truth else
                              -0.75 * p**2 * math.log(1 - p)) / (logits.shape[2] * logits.shape[3])
                    overlap, probabilities, truths = overlap + p * truth, probabilities + p, truths + truth
            if truths:
                pairs += 1
                dice += 1 - (2 * overlap + 1) / (probabilities + truths + 1)
    return focal, dice, pairs


def test_functions_match_loops():
    logits, labels = example()
    targets = one_hot(labels, C)
    focal, dice, pairs = naive_losses(logits, labels)
    present = targets.flatten(2).any(dim=2)
    assert float(focal_loss(logits, targets)) == pytest.approx(focal, rel=1e-6)
    assert float(dice_loss(logits[present], targets[present])) == pytest.approx(dice, rel=1e-6)
    assert float(pair_count(present)) == pairs == 3


def test_one_hot():
    labels = torch.tensor([[[0, 255], [2, 1]]])
    assert one_hot(labels, 3).tolist() == [[[[True, False], [False, False]], [[False, False], [False, True]],
                                            [[False, False], [True, False]]]]


@pytest.mark.parametrize(('weights', 'mask', 'dice'), [
    ({}, 100, 1), ({'mask_weight': 200., 'dice_weight': 3.}, 200, 3),
    ({'mask_weight': 10., 'dice_weight': 2., 'loss_weight': 0.5, 'dec_layers': 3}, 5, 1)])
def test_weighted_losses_per_pair(weights, mask, dice):
    logits, labels = example()
    losses = MaskLoss(**weights)(logits, labels)
    naive_focal, naive_dice, pairs = naive_losses(logits, labels)
    assert {name: float(value) for name, value in losses.items()} == pytest.approx(
        {'loss_mask': mask * naive_focal / pairs, 'loss_dice': dice * naive_dice / pairs}, rel=1e-6)


def test_loss_weight_leaves_the_recovery_alone():
    recovered, original = torch.randn(2, 3, 4), torch.randn(2, 3, 4, requires_grad=True)
    loss = MaskLoss(loss_weight=7., recovery_loss_weight=50.).recovery(recovered.requires_grad_(), original)
    naive = sum(abs(a - b) for a, b in zip(recovered.flatten().tolist(), original.flatten().tolist())) / 24
    assert float(loss) == pytest.approx(50 * naive)
    loss.backward()
    assert recovered.grad.any() and original.grad is None, 'the target is not detached'


def test_pixels_without_a_class_are_negatives():
    logits, labels = example()
    logits.requires_grad_()
    for loss in MaskLoss()(logits, labels).values():
        gradient, = torch.autograd.grad(loss, logits, retain_graph=True)
        ignored = gradient[(labels == 255)[:, None].expand_as(gradient)]
        assert ignored.any() and float(ignored.min()) >= 0, 'they must push the scores down'


@pytest.mark.parametrize('labels', [torch.full((B, H, W), 255), torch.zeros(B, H, W, dtype=torch.long)])
def test_without_labelled_or_without_empty_pixels(labels):
    logits = (100 * torch.randn(B, C, H, W)).requires_grad_()
    losses = MaskLoss()(logits, labels)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values()) and logits.grad.isfinite().all()
    if labels[0, 0, 0] == 255:
        assert float(losses['loss_dice']) == 0
        assert float(losses['loss_mask']) == pytest.approx(100 * naive_focal_of_negatives(logits), rel=1e-4)


def naive_focal_of_negatives(logits):
    """Divided by 1, the least number of pairs; log(1 - p) without overflow."""
    return sum(0.75 / (1 + math.exp(-x))**2 * (max(x, 0) + math.log1p(math.exp(-abs(x))))
               for x in logits.flatten().tolist()) / (H * W)


@pytest.mark.parametrize(('present', 'count'), [([[0, 0]], 1), ([[1, 0]], 1), ([[1, 1], [0, 1]], 3)])
def test_pairs_are_at_least_one(present, count):
    assert float(pair_count(torch.tensor(present).bool())) == count


def worker(rank: int, folder: str) -> None:
    """One of two workers, which have 3 and 0 pairs, 3 and 4, then none at all; prints the three counts."""
    dist.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2,
                            timeout=timedelta(seconds=60))
    counts = []
    for pairs in ((3, 0), (3, 4), (0, 0)):
        present = torch.zeros(2, 4, dtype=torch.bool).flatten()
        present[:pairs[rank]] = True
        counts.append(float(pair_count(present.view(2, 4))))
    dist.barrier()
    dist.destroy_process_group()
    print(counts)


def test_pairs_are_averaged_over_workers(tmp_path):
    environment = os.environ | {'PYTHONPATH': str(Path(__file__).resolve().parents[2]), 'PYTHONWARNINGS': 'ignore'}
    workers = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)], env=environment, text=True,
                                stdout=subprocess.PIPE) for rank in range(2)]
    assert [each.communicate(timeout=120)[0].strip() for each in workers] == ['[1.5, 3.5, 1.0]'] * 2


def test_unknown_keyword():
    with pytest.raises(TypeError, match='mask_weigth'):
        MaskLoss(mask_weigth=1.)


if __name__ == '__main__':  # as `test_pairs_are_averaged_over_workers` runs it
    worker(int(sys.argv[1]), sys.argv[2])
