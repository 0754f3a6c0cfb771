"""Every fast path of the model against the method word for word, which itself is checked with the recorded numbers."""
import json

import fill
import numpy as np
import pytest
import torch
from mmcv import ConfigDict

from models import CLIPRC, builder, resizing
from tests.conftest import GOLDEN, golden_config
from tests.models.naive import close, randomized, unit, without_dropout
from tests.oracle import Oracle

CASES = ['inductive', 'transductive', 'fully']


def build(case: str, classes: int | None = None) -> CLIPRC:
    """A small model without dropout; with `classes` of random embeddings, half of them seen."""
    model = without_dropout(builder.build(ConfigDict(golden_config(case))))
    model.load_state_dict(randomized(model).state_dict())
    for norm in (stream.layers[-1].norm3 for stream in (model.decode_head.decoder_q, model.decode_head.decoder_v)):
        norm.weight.data.mul_(0.3)  # logits for which a sigmoid in float32 is not all 1
    if classes:
        seen = list(range(classes)) if case == 'fully' else list(range(0, classes, 2))
        model.class_head.set_classes(classes, unit(classes, 32, dim=1), seen=seen)
    return model.eval()


@pytest.fixture(params=[1, 3, 10**4], ids=lambda classes: f'{classes}_per_chunk')
def chunk_classes(request, monkeypatch):
    """Classes in a chunk of maps of 96 x 112 pixels."""
    monkeypatch.setitem(resizing.CHUNK_ELEMENTS, 'cpu', request.param * 96 * 112)


@torch.no_grad()
@pytest.mark.parametrize('case', CASES)
def test_the_oracle_gives_the_recorded_scores(case):
    model = builder.build(ConfigDict(golden_config(case))).eval()
    model.load_state_dict(fill.fill_state_dict(json.loads((GOLDEN / f'tiny_{case}_checkpoint_keys.json').read_text())))
    recorded = np.load(GOLDEN / f'tiny_{case}.npz')
    oracle = Oracle(model)
    assert close(oracle.scores(fill.image(11, (2, 3, 64, 64))), torch.from_numpy(recorded['encode_decode']))
    slid = oracle.image_scores(fill.image(17, (1, 3, 96, 112)), (48, 56))
    assert close(slid, torch.from_numpy(recorded['slide']))


@torch.no_grad()
def test_plain_gelu():
    """On the same weights as QuickGELU, of which it tells no tensor."""
    quick = build('inductive')
    config = golden_config('inductive')
    config['backbone']['gelu'] = 'plain'
    plain = builder.build(ConfigDict(config)).eval()
    plain.load_state_dict(quick.state_dict())
    image = fill.image(11, (2, 3, 64, 64))
    scores = plain.encode_decode(image, None)
    assert close(scores, Oracle(plain).scores(image)) and not close(scores, quick.encode_decode(image, None))


@torch.no_grad()
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('windows_per_batch', [1, 4])
def test_images_of_several_sizes_together(case, windows_per_batch, chunk_classes):
    model = build(case, classes=23)
    oracle = Oracle(model)
    model.test_cfg.windows_per_batch = windows_per_batch
    sizes = {(96, 112): (48, 56), (64, 64): (64, 64), (75, 101): (150, 202), (64, 200): (33, 90)}
    images = [fill.image(i, (3, *size)) for i, size in enumerate(sizes)]
    metas = [{'img_shape': (*size, 3), 'ori_shape': (*original, 3)} for size, original in sizes.items()]
    found = set()
    for image, meta, labels in zip(images, metas, model.segment(images, metas), strict=True):
        scores = oracle.image_scores(image[None], meta['ori_shape'][:2])
        assert float((model.slide_inference(image[None], [meta], True) - scores).abs().max()) < 1e-4
        best = scores[0].topk(2, dim=0).values
        clear = best[0] - best[1] > 1e-5
        assert torch.equal(labels[clear], oracle.label_map(image[None], meta['ori_shape'][:2])[0][clear])
        assert clear.float().mean() > 0.98
        found |= set(labels.unique().tolist())
    assert len(found) >= 3, 'too easy'


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('size', [(64, 64), (80, 72)])
def test_losses_and_gradients(case, size, chunk_classes):
    model = build(case, classes=13).train()
    image, labels = fill.image(1, (2, 3, 64, 64)), fill.labels(2, (2, 1, *size), 13)
    results = []
    for compute in (lambda *batch: model.forward_train(batch[0], [{}, {}], batch[1]), Oracle(model).losses):
        model.zero_grad()
        losses = compute(image, labels)
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        results.append(({name: float(value) for name, value in losses.items()},
                        {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}))
    (fast, fast_gradients), (literal, gradients) = results
    assert fast == pytest.approx(literal, rel=1e-5) and fast_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        if not name.endswith('multihead_attn.k.bias'):  # mathematically zero
            assert close(fast_gradients[name], gradient, 1e-4), name


@torch.no_grad()
@pytest.mark.parametrize(('size', 'inside'), [((64, 64), (64, 64)), ((70, 101), (64, 96)), ((30, 100), (32, 96)),
                                              ((128, 64), (128, 64))])
def test_a_whole_image_goes_through_once(size, inside):
    """Brought to whole patches and whole regions; its positions are the table's, resized."""
    model, seen = build('inductive'), []
    model.test_cfg.mode = 'whole'
    encode = model.extract_feat
    model.extract_feat = lambda images: seen.append(tuple(images.shape)) or encode(images)
    meta = {'img_shape': (*size, 3), 'ori_shape': (40, 50, 3)}
    image = fill.image(3, (1, 3, *size))
    scores = model.whole_inference(image, [meta], True)
    assert seen == [(1, 3, *inside)] and scores.shape == (1, 6, 40, 50)
    resized = resizing.resize(image, inside)
    oracle = Oracle(model)
    logits = resizing.resize(oracle.decode(*oracle.encode(resized))[0], size)
    expected = model.class_head.scores(logits, model.class_head.penalty)
    assert close(scores, resizing.resize(expected, (40, 50)))
    assert torch.equal(model.segment(image, [meta])[0], scores[0].argmax(dim=0))
