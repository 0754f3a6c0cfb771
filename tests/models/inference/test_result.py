"""Results of inference: summaries, overlays, legends, files, and how a notebook shows them."""
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from models import resizing
from models.inference import drawing


@pytest.fixture(scope='module')
def result(miniature, scene):
    names = [miniature.class_names[index] for index in scene.classes]
    return miniature.segment(scene.image, [*names, '猫'], threshold=0.3)


def test_summary(result):
    summary = json.loads(json.dumps(result.summary(), allow_nan=False))
    assert (summary['width'], summary['height']) == (128, 128)
    assert summary['class_names'] == result.class_names
    assert sum(entry['pixels'] for entry in summary['classes']) + summary['unlabelled']['pixels'] == 128 * 128
    for index, entry in enumerate(summary['classes']):
        where = result.labels == index
        assert (entry['name'], entry['label'], entry['pixels']) == (result.class_names[index], index, where.sum())
        assert entry['area'] == pytest.approx(where.mean(), abs=1e-6)
        assert entry['mean_score'] == (pytest.approx(result.best[where].mean(), abs=1e-4) if where.any() else None)
    assert (summary['prompts'], summary['background'], summary['threshold']) == ('single', [], 0.3)


def test_overlay(result):
    assert len(np.unique(result.labels)) >= 3
    for opacity in (0, 0.5, 1):
        overlay = np.asarray(result.overlay(opacity=opacity, legend=False)).astype(int)
        for index, colour in [*enumerate(result.palette), (255, None)]:
            where = result.labels == index
            wanted = result.image[where] * (1 - opacity) + np.array(colour) * opacity if colour else \
                result.image[where]
            assert np.abs(overlay[where] - wanted).max(initial=0) <= 1
    with pytest.raises(ValueError, match='opacity'):
        result.overlay(opacity=2)
    with_legend = result.overlay()
    assert with_legend.height > 128 and np.array_equal(np.asarray(with_legend)[:128, :128],
                                                       np.asarray(result.overlay(legend=False)))


def test_overlays_of_another_size(result):
    """The shape of labels is kept: nothing is mixed between classes."""
    for side in (256, 128, 64):
        drawn = result.overlay(opacity=1, legend=False, side=side)
        assert drawn.size == (side, side)
        colours = np.asarray(drawn).reshape(-1, 3)
        for index, colour in enumerate(result.palette):
            share = (colours == colour).all(axis=1).mean()
            assert share == pytest.approx((result.labels == index).mean(), abs=0.01)
        assert result.overlay(side=side).width >= side
    assert np.array_equal(np.asarray(result.overlay(side=128)), np.asarray(result.overlay()))
    for side in (0, -1):
        with pytest.raises(ValueError, match='at least 1 pixel'):
            result.overlay(side=side)


@pytest.mark.parametrize(('size', 'shown'), [
    ((1, 1), (40, 40)), ((3, 60), (3, 60)), ((10, 20), (20, 40)), ((120, 80), (100, 67))])
def test_a_notebook_shows_it_as_an_image_of_moderate_size(miniature, size, shown, monkeypatch):
    monkeypatch.setattr('models.inference.result.NOTEBOOK_SIDES', (40, 100))
    result = miniature.segment(np.full((*size, 3), 90, np.uint8), ['red dots', 'blue paint'])
    legend = result.legend(shown[::-1])
    with Image.open(io.BytesIO(result._repr_png_())) as image:
        assert image.format == 'PNG'
        assert image.size == (max(shown[1], legend.width), shown[0] + legend.height)


def test_a_result_in_a_line(miniature, scene, result):
    line = repr(result)
    assert re.fullmatch('<Result: 128 x 128 pixels; .* %, unlabelled [0-9.]+ %, [0-9]+ without pixels; threshold 0.3>',
                        line)
    for entry in result.summary()['classes']:
        assert (f"{entry['name']} {100 * entry['area']:.1f} %" in line) == (entry['pixels'] > 0)
    many = repr(miniature.segment(scene.image))
    assert 'threshold' not in many and 'unlabelled' not in many and len(many) < 250
    noise = repr(miniature.segment(np.zeros((3, 2, 3), np.uint8), ['x' * 60, 'y' * 60]))
    assert noise.startswith('<Result: 2 x 3 pixels; ') and noise.endswith('; unreliable, see .warning>')
    assert max(map(len, re.findall('[xy]+', noise.split(';')[1]))) < 60


def test_a_line_of_many_classes(miniature, image, monkeypatch):
    monkeypatch.setattr('models.inference.result.MAX_REPR_CLASSES', 1)
    result = miniature.segment(image)
    found = sorted((entry['area'] for entry in result.summary()['classes'] if entry['area']), reverse=True)
    assert f', {len(found) - 1} more class' in repr(result) and f' {100 * sum(found[1:]):.1f} %' in repr(result)


def test_legend_names_all_classes(result, monkeypatch):
    """Also those without any pixel, unless they are many: these are counted."""
    drawn = []
    monkeypatch.setattr(drawing, 'legend', lambda entries, *_, **options: drawn.append([text for text, _ in entries]))
    absent = [name for index, name in enumerate(result.class_names) if not (result.labels == index).any()]
    assert 0 < len(absent) < len(result.class_names)
    result.legend()
    monkeypatch.setattr('models.inference.result.MAX_LEGEND_LINES', 2)
    result.legend()
    whole, short = drawn
    assert len(whole) == len(result.class_names) + 1  # and unlabelled
    assert {f'{name} 0.0 %' for name in absent} <= {*whole}
    assert len(short) == len(result.class_names) - len(absent) + 2
    assert short[-1] == f'({len(absent)} more class{"es" if len(absent) > 1 else ""}) 0.0 %'


def test_of_many_classes_a_legend_names_the_largest(result, monkeypatch):
    drawn = []
    monkeypatch.setattr(drawing, 'legend', lambda entries, *_, **options: drawn.extend(text for text, _ in entries))
    monkeypatch.setattr('models.inference.result.MAX_LEGEND_LINES', 1)
    result.legend()
    shares = [100 * (result.labels == index).mean() for index in range(len(result.class_names))]
    order = np.argsort(shares)[::-1]
    assert shares[order[1]] > 0
    assert drawn[0] == f'{result.class_names[order[0]]} {shares[order[0]]:.1f} %'
    assert drawn[2] == f'({len(shares) - 1} more classes) {sum(shares[index] for index in order[1:]):.1f} %'


@pytest.mark.parametrize('classes_per_chunk', [1, 3, 100])
def test_the_best_classes_of_each_pixel(miniature, scene, classes_per_chunk, monkeypatch):
    """As sorted literally; of equal scores the first; background classes and the threshold change nothing."""
    monkeypatch.setitem(resizing.CHUNK_ELEMENTS, 'cpu', classes_per_chunk * 128 * 128)
    names = [*miniature.class_names, 'dots of red, balloon', 'balloon, dots of red']
    result = miniature.segment(scene.image, names, background='kite, purple checks, purple paint', threshold=0.3)
    literal = {None: result.scores, 50: result.small_scores(50)}
    for longest, scores in literal.items():
        for count in (1, 4, len(result.class_names)):
            labels, values = result.top(count, longest=longest)
            order = np.argsort(-scores, axis=0, kind='stable')[:count]
            assert labels.dtype == np.uint8 and labels.shape == (count, *scores.shape[1:])
            assert np.array_equal(labels, order)
            assert np.array_equal(values, np.take_along_axis(scores, order, axis=0))
    labelled = result.labels != result.unlabelled
    assert labelled.any() and np.array_equal(result.top(1)[0][0][labelled], result.labels[labelled])
    for count in (0, -1, len(result.class_names) + 1):
        with pytest.raises(ValueError, match=r'best of \d+ classes: from 1 to \d+ are possible'):
            result.top(count)


def test_the_best_classes_in_a_file(miniature, scene, tmp_path):
    """In cells of at most 64 a side, each row of numbers a line; names are what they were."""
    image = np.concatenate([scene.image, scene.image], axis=1)  # 256 x 128
    result = miniature.segment(image, ['red dots', 'blue paint [1,  2]', '[\\n1,  2]'])
    file = result.save(tmp_path, top=2)[-1]
    summary = json.loads(file.read_text())
    assert summary == json.loads(json.dumps(result.summary(top=2))) and summary['class_names'] == result.class_names
    labels, scores = result.top(2, longest=64)
    assert labels.shape == (2, 32, 64)
    assert np.array_equal(summary['top']['labels'], labels)
    assert np.allclose(summary['top']['scores'], scores, atol=1e-4)
    lines = file.read_text().splitlines()
    assert json.dumps(labels[0, 0].tolist()) in file.read_text()
    assert len(lines) < 200
    assert 'top' not in result.summary()


def test_a_long_name_leaves_its_share_in_the_legend(result, monkeypatch):
    drawn = []
    monkeypatch.setattr(drawing, '_drawable', lambda text, size, real=drawing._drawable: (
        drawn.append(text), real(text, size))[1])
    result.class_names = ['a' * 60, *result.class_names[1:]]
    result.legend()
    assert any(text.startswith('aaa') and text.endswith(' %') and '…' in text for text in drawn)


def test_files(result, tmp_path):
    files = result.save(tmp_path / 'new' / 'folder', 'it')
    assert [file.name for file in files] == ['it.overlay.png', 'it.labels.png', 'it.json']
    labels = Image.open(files[1])
    assert labels.mode == 'P' and np.array_equal(np.asarray(labels), result.labels)
    for index in set(np.unique(result.labels)) - {255}:
        assert (np.asarray(labels.convert('RGB'))[result.labels == index] == result.palette[index]).all()
    assert json.loads(files[2].read_text(encoding='utf-8')) == json.loads(json.dumps(result.summary()))
    assert '猫' in files[2].read_text(encoding='utf-8')
    assert np.array_equal(np.asarray(Image.open(files[0])), np.asarray(result.overlay()))


def test_legend_of_long_and_foreign_names():
    entries = [('a' * 300, (255, 0, 0)), ('\U000e0041 no font has this', (0, 255, 0)), ('cat', (0, 0, 255))]
    legend = drawing.legend(entries, 100)
    assert legend.width < 600 and legend.height < 150
    assert drawing.font_for('\U000e0041', 12) is None and drawing.font_for('cat ж ñ', 12) is not None
    assert drawing.legend([], 64).width == 64


@pytest.mark.parametrize('name', ['../it', '/tmp/it', 'a/b', 'a\0b'])
def test_a_name_with_a_slash(result, name, tmp_path):
    with pytest.raises(ValueError, match='must not contain a slash'):
        result.save(tmp_path / 'out', name)
    assert not list(tmp_path.iterdir())
