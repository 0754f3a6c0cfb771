"""Explanations of regional clues: logits by region, attention of region tokens, ablation, and the figure."""
import numpy as np
import pytest
import torch

from models import CLIPVisionEncoder
from models.inference import load_model
from tests.models.naive import SIZES, close, encoder, features, head, inputs_of, layer_norm, region_mask
from tools.explaining.explanation import Prediction, explain
from tools.explaining.figure import draw
from tools.explaining.regions import Attention, ablate, cell_of, encode_with_attention, region_logits

P, R = 3, 4


@torch.no_grad()
def test_the_mean_of_the_regions_logits_is_the_models():
    decoded = head()(features(grid=(4, 6)))
    by_region = region_logits(decoded, 5)
    assert by_region.shape == (2, 4, 5, 4, 6)
    assert close(by_region.mean(dim=1), decoded.logits)
    assert float(by_region.std(dim=1).max()) > 1e-3, 'all regions agree: too easy'
    one = decoded.queries[1, 3 * 5 + 2] @ decoded.pixels[1, 2 * 6 + 5]  # region 3, class 2, row 2, column 5
    assert close(by_region[1, 3, 2, 2, 5], one)


@pytest.mark.parametrize('grid', [(4, 4), (2, 6)])
@torch.no_grad()
def test_attention_of_region_tokens(grid):
    """Against softmax(q k) computed for each head, token by token; each token sees its cell and itself."""
    model = encoder()
    image = torch.randn(1, 3, 16 * grid[0], 16 * grid[1])
    calls = [inputs_of(block) for block in model.transformer.resblocks]
    found, attention = encode_with_attention(model, image)
    for mine, own in zip(found, model(image), strict=True):
        assert torch.equal(mine, own)
    assert [len(block.attn._forward_pre_hooks) for block in model.transformer.resblocks] == [0, 0, 0]

    seen = region_mask(grid, 2, P)
    count = grid[0] * grid[1]
    for depth, block in enumerate(model.transformer.resblocks):
        tokens, _, prompts = calls[depth][0]
        x = layer_norm(torch.cat([tokens[0, :1], prompts[0], tokens[0, 1:]]), block.ln_1)
        q, k, _ = (x @ block.attn.in_proj_weight.double().T + block.attn.in_proj_bias.double()).chunk(3, dim=1)
        patches, itself = torch.zeros(count).double(), torch.zeros(R).double()
        for region in range(R):
            row = 1 + P + count + region
            for part in (slice(8 * i, 8 * i + 8) for i in range(4)):
                weights = torch.stack([(q[row, part] @ k[column, part] / 8**0.5).exp() if seen[row][column] else
                                       torch.zeros(()).double() for column in range(len(x))])
                weights = weights / weights.sum() / 4
                patches += weights[1 + P:1 + P + count]
                itself[region] += weights[row]
        assert close(attention.patches[depth], patches.reshape(grid)) and close(attention.itself[depth], itself)

    cells = cell_of(grid, 2)
    for region in range(R):
        total = attention.patches[:, cells == region].sum(dim=1) + attention.itself[:, region]
        assert close(total, torch.ones(3))


@pytest.mark.parametrize('form', ['aligned', 'widened'])
@torch.no_grad()
def test_attention_in_every_form_of_the_mask(form):
    model, image = encoder(), torch.randn(1, 3, 64, 96)
    _, expected = encode_with_attention(model, image)
    model.attention = form
    _, attention = encode_with_attention(model, image)
    assert close(attention.patches, expected.patches) and close(attention.itself, expected.itself)


@torch.no_grad()
def test_ablation_equals_a_model_built_without_region_tokens():
    model = encoder()
    bare = CLIPVisionEncoder(**{**SIZES, 'region_level_bridge_size': 0}).eval()
    bare.load_state_dict({**model.state_dict(), 'region_level_bridge': torch.zeros(0, SIZES['width'])})
    image = torch.randn(1, 3, 64, 64)
    before = model(image)
    ways = ablate(model, image, before)
    for mine, expected in zip(ways['everywhere'], bare(image), strict=True):
        assert torch.equal(mine, expected)
    assert not close(ways['everywhere'].patches, before.patches), 'region tokens do nothing: too easy'
    decoder = head()
    assert torch.equal(decoder(ways['everywhere']).logits, decoder(bare(image)).logits)
    assert ways['in the encoder'].regions is before.regions and torch.equal(
        ways['in the encoder'].patches, ways['everywhere'].patches)
    assert ways['in the head'].patches is before.patches and not ways['in the head'].regions.any()
    for mine, again in zip(model(image), before, strict=True):
        assert torch.equal(mine, again), 'the ablation changed the model'
    assert model.without_regions().proj is model.proj, 'the weights were copied'


def test_cells():
    assert cell_of((2, 4), 2).tolist() == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert cell_of((3, 5), 1).unique().tolist() == [0]
    assert cell_of((5, 5), 2).flatten().bincount().tolist() == [9, 6, 6, 4]


# ---- of an image

@pytest.fixture(scope='module')
def segmenter(trained):
    """The tiny model with noise in its decoder: after four iterations it would give one class everywhere."""
    loaded = load_model(trained / 'latest.pth', device='cpu')
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in loaded.model.decode_head.parameters():
            if parameter.ndim == 2:
                parameter.add_(torch.randn(parameter.shape, generator=generator))
    return loaded


@pytest.fixture(scope='module')
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (60, 150, 3), dtype=np.uint8)


def test_an_explanation(segmenter, image):
    names = [segmenter.class_names[index] for index in (0, 5, 15)]
    found = segmenter.segment(image, names)
    counts = np.bincount(found.labels.ravel(), minlength=3)
    name = names.pop(int(counts.argmax()))
    explanation = explain(segmenter, image, name, names)
    assert explanation.result.class_names == [name, *names] and explanation.size == (64, 160)
    assert (explanation.result.labels == 0).sum() == counts.max()
    assert explanation.windows == 3 and (explanation.window.height, explanation.window.width) == (64, 64)
    assert explanation.region_logits.shape == (4, 64, 64) and explanation.view.shape == (64, 64, 3)
    penalty = 0.1 if name in segmenter.seen_names else 0.
    scores = 1 / (1 + np.exp(-explanation.region_logits.mean(axis=0))) - penalty
    assert np.allclose(scores, explanation.prediction.scores, atol=1e-4)

    where = explanation.prediction.mask
    assert 0 < where.mean()
    means = [float(region[where].mean()) for region in explanation.region_logits]
    assert explanation.mean_logits == pytest.approx(means, rel=1e-4)
    numbers = explanation.summary()
    assert numbers['region_with_highest_mean_logit'] == int(explanation.mean_logits.argmax()) and numbers['found']
    corner = where[32:, :32]  # region 2
    assert numbers['regions'][2]['class_in_cell'] == pytest.approx(corner.mean(), abs=1e-4)
    lead = (explanation.region_logits[2] - explanation.region_logits.mean(axis=0))[32:, :32][corner]
    assert numbers['regions'][2]['margin_in_own_cell'] == (pytest.approx(lead.mean(), abs=1e-4) if len(lead) else None)
    assert numbers['with_regions']['area'] == pytest.approx(where.mean(), abs=1e-4)
    assert set(numbers['ablated']) == {'everywhere', 'in the encoder', 'in the head'}
    assert len({ablated['mean_score_in_mask_with_regions'] for ablated in numbers['ablated'].values()}) > 1


def test_the_window(segmenter, image):
    """Without a number the one with most pixels of the class; each has its place in the image."""
    names = segmenter.class_names[:4]
    every = [explain(segmenter, image, names[1], names, window=number) for number in (1, 2, 3)]
    assert [explanation.window.left for explanation in every] == [0, 48, 96]
    areas = [explanation.prediction.mask.mean() for explanation in every]
    chosen = explain(segmenter, image, names[1], names)
    assert areas[chosen.number - 1] == max(areas)


def test_synonyms_of_the_class_do_not_compete(segmenter, image):
    first, second = segmenter.class_names[:2]
    explanation = explain(segmenter, image, f' {first.upper()} ', [f'{first}, something', second], block=2)
    assert explanation.result.class_names == [first.upper(), second] and explanation.block == 2
    names = explain(segmenter, image, first).result.class_names
    assert sorted(names) == sorted(segmenter.class_names) and names[0] == first


@pytest.mark.parametrize(('changes', 'message'), [
    ({'window': 4}, 'no window 4: the image has 3'),
    ({'block': 4}, 'no block 4: the encoder has 3'),
    ({'others': ['aeroplane']}, 'nothing competes .*--classes'),
    ({'class_name': '  '}, 'no class names'),
])
def test_bad_input(segmenter, image, changes, message):
    with pytest.raises(ValueError, match=message):
        explain(segmenter, image, **{'class_name': 'aeroplane', **changes})


def test_a_model_without_region_tokens(segmenter, image, monkeypatch):
    monkeypatch.setattr(segmenter.model.backbone, 'side', 0)
    with pytest.raises(ValueError, match='this model has no region tokens'):
        explain(segmenter, image, 'aeroplane')


# ---- the figure

@pytest.fixture
def explained(segmenter, image):
    """With 16 regions, each of the four repeated."""
    found = explain(segmenter, image, segmenter.class_names[0])
    return found._replace(region_logits=np.tile(found.region_logits, (4, 1, 1)), attention=Attention(
        found.attention.patches, found.attention.itself.repeat(1, 4)))


@pytest.mark.parametrize(('name', 'title'), [
    ('$x_1$ {a}', 'Regional clues for “$x_1$ {a}”'),
    ('a' * 100, f'Regional clues for “{"a" * 39}…”'),
    ('\U000e0041\u0ff0', 'Regional clues for “the class”'),  # which no font has
    ('кот', 'Regional clues for “кот”')])
def test_names_of_any_kind(explained, name, title):
    figure = draw(explained._replace(class_name=name))
    assert figure._suptitle.get_text() == title
    figure.canvas.draw()


@pytest.mark.parametrize(('label', 'title'), [(1, 'class: not found'), (0, 'class: 100.0 % of the image')])
def test_a_class_that_is_nowhere_or_everywhere(explained, label, title):
    """The figure is drawn without an outline."""
    explained.result.labels[:] = label
    scores = explained.prediction.scores
    figure = draw(explained._replace(prediction=Prediction(scores, np.full(scores.shape, label == 0))))
    figure.canvas.draw()
    assert any(title in axes.get_title() for axes in figure.axes)
    assert sum('itself' in text.get_text() for axes in figure.axes for text in axes.texts) == 16
