"""The outputs, losses and gradients that the published implementation was recorded with, in float32 on a CPU."""
import json

import fill
import numpy as np
import pytest
import torch
from mmcv import ConfigDict
from torch import nn

from models.builder import build
from models.resizing import Resizing
from models.text_encoder import tokenize
from models.visibility import FORMS
from models.weights.cliprc import DEAD
from tests.conftest import GOLDEN, GPU, golden_config
from tests.models.naive import inputs_of, without_dropout

IGNORE = 255

CASES = ['inductive', 'transductive', 'fully', 'text', 'voc_inductive']


def file_stem(case: str) -> str:
    return case if case == 'voc_inductive' else f'tiny_{case}'


@pytest.fixture(scope='module', params=[*CASES, 'inductive aligned', 'inductive widened', *(
    pytest.param(f'{name} gpu', marks=pytest.mark.gpu) for name in CASES)])
def case(request):
    """(name, model with the recorded weights and no dropout, recorded arrays, window size, classes).

    After a name a form of the encoder's mask may stand, or `gpu`.
    """
    name, _, variant = request.param.partition(' ')
    config = golden_config(name)
    config['backbone']['attention'] = variant if variant in FORMS else 'auto'
    model = without_dropout(build(ConfigDict(config)))
    keys = 'voc' if name == 'voc_inductive' else file_stem(name)
    shapes = json.loads((GOLDEN / f'{keys}_checkpoint_keys.json').read_text())
    model.load_state_dict(fill.fill_state_dict(shapes))
    if variant == 'gpu':
        torch.backends.cudnn.allow_tf32 = False
        model.to(GPU)
    if model.text_encoder is not None:
        model.embed_class_names()
    recorded = dict(np.load(GOLDEN / f'{file_stem(name)}.npz'))
    return name, model, recorded, config['backbone']['input_resolution'], len(config['both_class'])


def on(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def tolerance(model: nn.Module) -> float:
    return 1e-5 if on(model).type == 'cpu' else 1e-4


def subsampled(name: str, scores: torch.Tensor, start: int, step: int) -> np.ndarray:
    scores = scores.cpu().numpy()
    return scores[:, :, start::step, start::step] if name == 'voc_inductive' else scores


def assert_close(actual: np.ndarray, recorded: np.ndarray, within: float) -> None:
    assert actual.shape == recorded.shape
    assert np.abs(actual - recorded).max() <= within * np.abs(recorded).max()


@torch.no_grad()
def test_scores_of_a_window(case):
    name, model, recorded, size, _ = case
    model.eval()
    scores = model.encode_decode(fill.image(11, (2, 3, size, size)).to(on(model)), None)
    assert_close(subsampled(name, scores, 8, 32), recorded['encode_decode'], tolerance(model))


@torch.no_grad()
def test_sliding_windows_and_labels(case):
    name, model, recorded, _, _ = case
    model.eval()
    height, width = (600, 700) if name == 'voc_inductive' else (96, 112)
    meta = [{'ori_shape': (height // 2, width // 2, 3), 'img_shape': (height, width, 3)}]
    scores = model.slide_inference(fill.image(17, (1, 3, height, width)).to(on(model)), meta, True).cpu()
    assert_close(subsampled(name, scores, 4, 16), recorded['slide'], tolerance(model))
    differ = scores.argmax(1).numpy() != recorded['slide_labels']
    best = scores.topk(2, dim=1).values
    assert (best[:, 0] - best[:, 1]).numpy()[differ].max(initial=0.) < tolerance(model)


def ties(logits: torch.Tensor, labels: torch.Tensor, resizing: Resizing) -> float:
    """Percent of the labelled pixels whose best two classes the rounding of the processor decides between."""
    best, counts = resizing(logits.detach()).topk(2, dim=1).values, labels != IGNORE
    return 100 * float(((best[:, 0] - best[:, 1] < 1e-6) & counts).sum() / counts.sum())


def test_losses_and_gradients(case):
    name, model, recorded, size, classes = case
    entered = inputs_of(model.decode_head.losses)
    model.train()
    model.zero_grad()
    labels = fill.labels(13, (2, 1, size, size), classes).to(on(model))
    before = labels.clone()
    losses = model.forward_train(fill.image(11, (2, 3, size, size)).to(on(model)), [{}, {}], labels)
    assert torch.equal(labels, before), 'the labels of the caller were changed'
    assert {f'loss/{key}' for key in losses} == {key for key in recorded if key.startswith('loss/')}
    tied = ties(*entered[-1])
    for key, value in losses.items():
        within = tied if key == 'decode.acc_seg' else 0.
        expected = float(recorded[f'loss/{key}'])
        assert abs(float(value) - expected) <= tolerance(model) * expected + within, key
    assert tied < 0.02  # one pixel at the most

    sum(value for key, value in losses.items() if 'loss' in key).backward()
    norms = json.loads((GOLDEN / f'{file_stem(name)}_grad_norms.json').read_text())
    actual = {key: float(parameter.grad.norm()) for key, parameter in model.named_parameters()
              if parameter.grad is not None}
    dead = {key for key, norm in norms.items() if norm is None}
    assert all(DEAD.match(key) for key in dead) and len(dead) == 48
    assert set(actual) == set(norms) - dead, 'not the tensors that trained in the recording'
    for key, norm in actual.items():
        if key.endswith('multihead_attn.k.bias'):  # mathematically zero
            assert norm < 1e-4, key
        else:
            assert norm == pytest.approx(norms[key], rel=1e-4 if name == 'voc_inductive' else tolerance(model)), key


def test_text_embeddings_through_the_text_tower(case):
    name, model, recorded, _, _ = case
    if name != 'text':
        assert model.text_encoder is None, 'a text tower was built though the embeddings come from a file'
        return
    texts = [f'a photo of a {class_name}' for class_name in model.class_names]
    np.testing.assert_array_equal(tokenize(texts).numpy(), recorded['token_ids'])
    assert_close(model.class_head.embeddings.cpu().numpy(), recorded['text_embeddings'], tolerance(model))
