"""The mask losses against their formulas, and how they are counted."""
import pytest
import torch
import torch.distributed as dist

from models import losses as module
from models.losses import MaskLoss, MaskTerms, chunk_terms, pair_count
from models.resizing import Resizing
from tests.models.naive import close
from tests.oracle import mask_losses

B, C, H, W = 2, 3, 4, 5


def example():
    """Logits (B, C, H, W) float64 and labels; (0, 0), (0, 1), (1, 2) are present; 255 stands in both."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.full((B, H, W), 255)
    labels[0, :2], labels[0, 2, 1:], labels[1, 1:3] = 0, 1, 2
    return 3 * torch.randn(B, C, H, W, generator=generator, dtype=torch.float64), labels


def as_they_are(logits):
    return Resizing((H, W), (H, W), like=logits)


@pytest.fixture(params=[1, 2, 3, 2 * C], ids=lambda maps: f'{maps}_per_chunk')
def chunk_maps(request, monkeypatch):
    """Maps in a chunk: some classes of an image, or all of two."""
    monkeypatch.setitem(module.CHUNK_ELEMENTS, 'cpu', request.param * H * W)


def test_terms(chunk_maps):
    logits, labels = example()
    focal, dice, present, correct = MaskTerms.apply(logits, labels, as_they_are(logits), chunk_terms)
    naive_focal, naive_dice, pairs = mask_losses(logits, labels)
    assert float(focal) == pytest.approx(float(naive_focal), rel=1e-12)
    assert float(dice) == pytest.approx(float(naive_dice), rel=1e-12)
    assert float(present) == pairs == 3
    assert int(correct) == int((logits.argmax(dim=1) == labels).sum()) > 0


def test_more_classes_than_labels_of_a_byte():
    """255 is one of 300 classes, 65535 is not."""
    labels = torch.tensor([[[0, 255, 299], [65535, 299, 7]]])
    logits = torch.randn(1, 300, 2, 3, dtype=torch.float64)
    focal, dice, present, _ = MaskTerms.apply(logits, labels, Resizing((2, 3), (2, 3), like=logits), chunk_terms)
    naive_focal, naive_dice, pairs = mask_losses(logits, labels)
    assert float(present) == pairs == 4 and float(focal) == pytest.approx(float(naive_focal), rel=1e-9)
    assert float(dice) == pytest.approx(float(naive_dice), rel=1e-9)


@pytest.mark.parametrize('labels', [example()[1], torch.full((B, H, W), 255), torch.full((B, H, W), 1)])
def test_gradients(labels, chunk_maps):
    small = (3 * torch.randn(B, C, 2, 3, dtype=torch.float64)).requires_grad_()
    resizing = Resizing((2, 3), (5, 5), (H, W), like=small)
    assert torch.autograd.gradcheck(lambda x: MaskTerms.apply(x, labels, resizing, chunk_terms)[:2], small)


@pytest.mark.parametrize('magnitude', [1e-3, 30., 1e4])
def test_small_and_large_logits_in_float32(magnitude):
    logits, labels = example()
    logits = (magnitude * logits).requires_grad_()
    short = logits.detach().float().requires_grad_()
    for x in (logits, short):
        focal, dice, *_ = MaskTerms.apply(x, labels, as_they_are(x), chunk_terms)
        (focal + dice).backward()
    assert float(short.grad.isfinite().all())
    assert close(short.grad, logits.grad, 1e-5)


@pytest.mark.parametrize(('weights', 'mask', 'dice'), [
    ({}, 100, 1), ({'mask_weight': 200., 'dice_weight': 3.}, 200, 3),
    ({'mask_weight': 10., 'dice_weight': 2., 'loss_weight': 0.5, 'dec_layers': 3}, 5, 1)])
def test_weighted_losses_per_pair(weights, mask, dice):
    logits, labels = example()
    losses = MaskLoss(**weights)(logits, labels, as_they_are(logits))
    del losses['acc_seg']
    focal, dice_loss, pairs = mask_losses(logits, labels)
    assert {name: float(value) for name, value in losses.items()} == pytest.approx(
        {'loss_mask': mask * float(focal) / pairs, 'loss_dice': dice * float(dice_loss) / pairs}, rel=1e-6)


def test_loss_weight_leaves_the_recovery_alone():
    recovered, original = torch.randn(2, 3, 4), torch.randn(2, 3, 4, requires_grad=True)
    loss = MaskLoss(loss_weight=7., recovery_loss_weight=50.).recovery(recovered.requires_grad_(), original)
    naive = sum(abs(a - b) for a, b in zip(recovered.flatten().tolist(), original.flatten().tolist())) / 24
    assert float(loss) == pytest.approx(50 * naive)
    loss.backward()
    assert recovered.grad.any() and original.grad is None, 'the target is not detached'


@pytest.mark.parametrize('labels', [torch.full((B, H, W), 255), torch.zeros(B, H, W, dtype=torch.long)])
def test_without_labelled_or_without_empty_pixels(labels):
    logits = (100 * torch.randn(B, C, H, W)).requires_grad_()
    losses = MaskLoss()(logits, labels, as_they_are(logits))
    (losses['loss_mask'] + losses['loss_dice']).backward()
    assert all(value.isfinite() for value in losses.values()) and logits.grad.isfinite().all()
    focal, dice, pairs = (float(value) for value in mask_losses(logits.double(), labels))
    assert float(losses['loss_dice']) == pytest.approx(dice / max(pairs, 1), rel=1e-4)
    assert float(losses['loss_mask']) == pytest.approx(100 * focal / max(pairs, 1), rel=1e-4)


@pytest.mark.parametrize(('own', 'other', 'pairs'), [(3, 0, 1.5), (3, 4, 3.5), (0, 0, 1)])
def test_pairs_are_averaged_over_workers(monkeypatch, own, other, pairs):
    monkeypatch.setattr(dist, 'is_initialized', lambda: True)
    monkeypatch.setattr(dist, 'get_world_size', lambda: 2)
    monkeypatch.setattr(dist, 'all_reduce', lambda count: count.add_(other))
    assert float(pair_count(torch.tensor(float(own)))) == pairs


def test_a_compiler_gets_all_elementwise_work(monkeypatch):
    """Traced as one graph, and with the same results. Of four classes two go into a chunk."""
    monkeypatch.setitem(module.CHUNK_ELEMENTS, 'cpu', 2 * H * W)
    labels, results = torch.randint(5, (B, H, W)), []
    logits = torch.randn(B, 4, H, W)
    for compute in (chunk_terms, torch.compile(chunk_terms, backend='aot_eager', fullgraph=True)):
        x = logits.clone().requires_grad_()
        *terms, correct = MaskTerms.apply(x, labels, as_they_are(x), compute)
        (terms[0] + terms[1]).backward()
        results.append([*(term.detach() for term in terms), correct, x.grad])
    assert all(torch.allclose(one, other) for one, other in zip(*results, strict=True))
