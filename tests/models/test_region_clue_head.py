"""The decoder head: inputs, initial values, order of resizing, training targets."""
import pytest
import torch
from torch import nn

from models import RegionClueHead
from tests.models.naive import check_pytorch_default, close, features, head

IGNORE = 255

E = 16


def labels(height: int = 20, width: int = 20, classes: int = 5) -> torch.Tensor:
    """(2, 1, H, W) with every class, and 255 on top."""
    values = torch.randint(classes, (2, 1, height // 4, width // 4), generator=torch.Generator().manual_seed(8))
    values = values.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    values[:, :, :3] = IGNORE
    return values


@torch.no_grad()
def test_without_region_tokens_the_image_clue_is_left():
    """ZegCLIP's queries: one a class, [CLS * text, text]."""
    built = head()
    given = features(side=1)._replace(regions=torch.zeros(2, E, 1, 1))
    text = built.class_head.rows_in_use()
    aligned, same = built.class_head.queries(given)
    assert close(aligned[:, 0], given.cls[:, None] * text) and torch.equal(same, text)
    assert built(given).logits.shape == (2, 5, 4, 4)


def test_a_batch_without_labels():
    built = head().train()
    losses = built.forward_train(features(), [], torch.full((2, 1, 20, 20), IGNORE))
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert all(value.isfinite().all() for value in losses.values())
    assert all(parameter.grad.isfinite().all() for parameter in built.parameters())


def recovery_gradients(built: RegionClueHead) -> dict[str, bool]:
    """Which parameters and features the recovery losses reach."""
    given = features()
    for each in given:
        each.requires_grad_()
    losses = built.forward_train(given, [], labels())
    (losses['recovery_loss_q'] + losses['recovery_loss_k']).backward()
    grads = {name: parameter.grad for name, parameter in built.named_parameters()} | {
        name: getattr(given, name).grad for name in given._fields}
    return {name: grad is not None and bool(grad.abs().sum() > 1e-7) for name, grad in grads.items()}


def test_recovery_trains_the_decoder_but_not_its_own_targets():
    reached = recovery_gradients(head())
    without_effect = ('k.bias',)  # a shift of all keys alike changes no attention
    assert all(found for name, found in reached.items() if not name.endswith(without_effect))
    built = head()
    for last in (built.recovery_decoder.linear_q_out, built.recovery_decoder.linear_k_out):
        nn.init.zeros_(last.weight)
    reached = recovery_gradients(built)
    assert not any(found for name, found in reached.items() if '_out.' not in name), 'a target is not detached'


def test_layers_of_the_recovery_decoder():
    built = head(recovery_decoder_num_layers=0)
    assert not any('recovery' in name for name in built.state_dict())
    assert set(built.forward_train(features(), [], labels())) == {'loss_mask', 'loss_dice', 'acc_seg'}
    assert len(head(recovery_decoder_num_layers=2).recovery_decoder.decouple_v) == 2


def test_initial_values():
    built = RegionClueHead(in_channels=32, num_heads=4, loss_decode={'recovery_loss_weight': 2.})
    for layer in (built.q_proj, built.lateral_proj, built.decoder_q.layers[0].linear1):
        check_pytorch_default(layer)
    firsts = [stream.layers[0].state_dict() for stream in (built.decoder_q, built.decoder_v)]
    for stream, first in zip((built.decoder_q, built.decoder_v), firsts):
        for layer in stream.layers:
            assert all(torch.equal(value, first[name]) for name, value in layer.state_dict().items())
    assert not torch.equal(firsts[0]['linear1.weight'], firsts[1]['linear1.weight']), 'one stream copies the other'


@pytest.mark.parametrize(('changes', 'error', 'message'), [
    ({'channels': 32}, ValueError, 'channels=32 but in_channels=16'), ({'embed_dims': 8}, ValueError, 'embed_dims=8'),
    ({'num_heads': 5}, ValueError, '5 attention heads'), ({'num_layer': 3}, TypeError, 'num_layer'),
    ({'loss_decode': {'dice': 1.}}, TypeError, 'dice'), ({'class_head': {'penalty': 1.}}, TypeError, 'penalty')])
def test_arguments_that_do_not_fit(changes, error, message):
    with pytest.raises(error, match=message):
        RegionClueHead(**{'in_channels': E, 'num_heads': 4, **changes})
