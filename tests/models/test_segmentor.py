"""The wiring: trainable parameters, settings, text embeddings, windows, and thirty steps of training."""
import fill
import numpy as np
import pytest
import torch
from mmcv import ConfigDict

import models
from models import builder
from models.text_encoder import embed_class_names
from models.weights.clip import text_tower
from models.weights.files import read
from tests.conftest import GPU, golden_config
from tests.models.naive import close, unit, without_dropout


def build(case: str = 'inductive', **changes) -> models.CLIPRC:
    return builder.build(ConfigDict(golden_config(case) | changes))


def batch(classes: int = 6):
    return fill.image(1, (2, 3, 64, 64)), [{}, {}], fill.labels(2, (2, 1, 64, 64), classes)


def total(losses: dict) -> torch.Tensor:
    return sum(value for name, value in losses.items() if 'loss' in name)


@pytest.mark.parametrize('case', ['inductive', 'transductive', 'fully', 'text'])
def test_trainable_parameters(case):
    model = build(case)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    prompts = {f'backbone.{name}' for name in ('prompt_embeddings', 'deep_prompt_embeddings', 'prompt_proj.weight',
                                               'prompt_proj.bias', 'prompt_norm.weight', 'prompt_norm.bias')}
    head = {name for name, _ in model.named_parameters() if name.startswith('decode_head.')}
    assert trainable == prompts | head
    model = build(case, ft_backbone=True)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith('text_encoder.')}


@torch.no_grad()
def test_a_named_file_is_read_once_and_used_as_stored(tmp_path):
    stored = (0.9995 * unit(6, 32, dim=1)).half().numpy()
    np.save(tmp_path / 'classes.npy', stored)
    model = build(load_text_embedding=str(tmp_path / 'classes.npy')).eval()
    (tmp_path / 'classes.npy').unlink()
    assert model.text_encoder is None, 'a text tower was built though a file is named'
    model.encode_decode(fill.image(1, (1, 3, 64, 64)), None)
    assert model.class_head.embeddings.numpy().dtype == np.float32
    assert np.array_equal(model.class_head.embeddings.numpy(), stored.astype(np.float32)), 'normalised again'
    model.load_state_dict(model.state_dict())
    assert np.array_equal(model.class_head.embeddings.numpy(), stored.astype(np.float32)), 'lost with other weights'


@torch.no_grad()
def test_embeddings_follow_the_weights_of_the_text_tower():
    model = build('text').eval()
    model.embed_class_names()
    before = model.class_head.embeddings.numpy()
    other = {name: value + 0.1 * torch.randn_like(value) for name, value in model.state_dict().items()}
    model.load_state_dict(other)
    with pytest.raises(ValueError, match='no text embeddings'):
        model.encode_decode(torch.zeros(1, 3, 64, 64), None)
    model.embed_class_names()
    expected = embed_class_names(model.text_encoder, model.class_names, ['a photo of a {}'])
    assert np.array_equal(model.class_head.embeddings.numpy(), expected.numpy())
    assert np.abs(model.class_head.embeddings.numpy() - before).max() > 0.01


def test_clip_is_loaded_for_training_only(clip_file):
    missing = build(pretrained='nowhere/ViT-B-16.pt')
    with pytest.raises(ValueError, match='nowhere/ViT-B-16.pt'):
        missing.init_weights()
    model = build('text', pretrained=str(clip_file), pretrained_text=str(clip_file))
    model.embed_class_names()
    before = model.class_head.embeddings.numpy()
    model.init_weights()
    clip = read(clip_file)
    assert torch.equal(model.backbone.proj, clip.weights['visual.proj'].float())
    assert all(torch.equal(value, text_tower(clip)[name]) for name, value in model.text_encoder.state_dict().items())
    assert not np.array_equal(model.class_head.embeddings.numpy(), before)


@torch.no_grad()
def test_the_same_weights_with_other_classes():
    model = build().eval()
    weights, image = {name: value.clone() for name, value in model.state_dict().items()}, fill.image(1, (1, 3, 64, 64))
    rows = unit(9, 32, dim=1, seed=3)
    model.class_head.set_classes(9, rows, seen=[0, 7, 8])
    scores = model.encode_decode(image, None)
    assert scores.shape == (1, 9, 64, 64) and model.num_classes == model.out_channels == 9
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    model.class_head.set_classes(9, rows, seen=list(range(9)))
    uniform = model.encode_decode(image, None)  # 0.1 less for the six more that count as seen now
    assert close(scores - uniform, torch.tensor([0.1 * (c in range(1, 7)) for c in range(9)])[:, None, None].expand(
        1, 9, 64, 64))


def test_labels_of_8_bits():
    """As the loaders send them."""
    images, metas, labels = batch()
    losses = []
    for dtype in (torch.int64, torch.uint8):
        torch.manual_seed(0)
        losses.append(build('inductive').train().forward_train(images, metas, labels.to(dtype)))
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


@pytest.mark.parametrize('case', ['inductive', 'transductive', 'fully'])
def test_thirty_steps_lower_the_loss_and_leave_the_frozen_alone(case):
    model = build(case).train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=2e-3, weight_decay=0.01)
    history = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = total(model.forward_train(*batch()))
        loss.backward()
        optimizer.step()
        history.append(float(loss))
    assert sum(history[-5:]) < 0.6 * sum(history[:5]), history
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


@torch.no_grad()
def test_no_tensor_is_left_behind_when_the_model_moves():
    model = build().eval().to('meta')
    assert model.encode_decode(torch.zeros(1, 3, 128, 64, device='meta'), None).device.type == 'meta'
    head = model.class_head
    head.set_classes(7, unit(7, 32, dim=1), seen=[0, 1])
    assert {each.device.type for each in (head.embeddings, head.seen, head.unseen, head.penalty)} == {'meta'}


@pytest.mark.gpu
@pytest.mark.parametrize('case', ['inductive', 'fully', 'text'])
def test_gpu_and_cpu_agree(case):
    """Not in the transductive setting, where a tie of pseudo-labels may fall either way."""
    model = without_dropout(build(case))
    image, metas, labels = batch()
    scores, losses = [], []
    for device in ('cpu', GPU):
        model.to(device)
        if case == 'text':
            model.embed_class_names()
        with torch.backends.cudnn.flags(allow_tf32=False), torch.no_grad():
            each = model.train().forward_train(image.to(device), metas, labels.to(device))
            losses.append({name: float(value) for name, value in each.items() if 'loss' in name})
            scores.append(model.eval().encode_decode(fill.image(5, (1, 3, 64, 128)).to(device), None).cpu())
    assert float((scores[0] - scores[1]).abs().max()) < 1e-4
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
