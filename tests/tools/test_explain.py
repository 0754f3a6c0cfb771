"""tools/explain.py: the figure and the numbers."""
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from models.sliding_window import Window
from tools.explaining.explanation import Explanation, Prediction
from tools.explaining.figure import draw
from tools.explaining.regions import Attention


@pytest.fixture
def image(tmp_path):
    file = tmp_path / 'my image.jpg'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 150, 3), dtype=np.uint8)).save(file)
    return file


@pytest.mark.parametrize('others', [[], ['--classes', 'cow, dog; aeroplane', '--block', 1, '--window', 3,
                                         '--format', 'svg']])
def test_the_command(run, trained, image, tmp_path, others):
    done = run('tools/explain.py', image, '--class', 'cow', *others, '--checkpoint', trained / 'latest.pth',
               '--out', tmp_path / 'new/folder', '--device', 'cpu')
    if others:
        assert '<svg' in (tmp_path / 'new/folder/explanation.svg').read_text()
    else:
        with Image.open(tmp_path / 'new/folder/explanation.png') as figure:
            assert figure.width > 1000 and figure.height > 600
            assert np.asarray(figure.convert('RGB')).std() > 10
    numbers = json.loads((tmp_path / 'new/folder/explanation.json').read_text())
    assert numbers['class_name'] == 'cow' and len(numbers['regions']) == 4 and numbers['windows'] == 3
    assert (numbers['block'], len(numbers['class_names'])) == ((1, 3) if others else (3, 20))
    assert not others or numbers['number'] == 3
    assert numbers['found'] == (numbers['with_regions']['area'] > 0)
    assert numbers['found'] == ('was not found in window' not in done.stderr)


def test_several_classes(fails, trained, image, tmp_path):
    assert "--class 'cow, dog' names 2 classes: explain one" in fails(
        'tools/explain.py', image, '--class', 'cow, dog', '--checkpoint', trained / 'latest.pth', '--out', tmp_path)


def explanation(name: str, mask: np.ndarray) -> Explanation:
    """16 regions in the second of two windows."""
    random = np.random.default_rng(0)
    prediction = Prediction(random.random(mask.shape), mask)
    labels = np.ones((50, 100), dtype=np.uint8)
    labels[:, 50:] = ~mask[:50, :50]
    return Explanation(
        result=SimpleNamespace(image=random.integers(0, 255, (50, 100, 3), dtype=np.uint8),
                               labels=labels, class_names=[name, 'other']),
        class_name=name, window=Window(0, 64, 64, 64), number=2, windows=2, size=(64, 128),
        view=random.integers(0, 255, (64, 64, 3), dtype=np.uint8), region_logits=random.normal(size=(16, 64, 64)),
        attention=Attention(torch.rand(2, 8, 8), torch.rand(2, 16)), block=2, prediction=prediction,
        ablated={'everywhere': Prediction(prediction.scores / 2, ~mask)})


@pytest.mark.parametrize(('name', 'title'), [
    ('$x_1$ {a}', 'Regional clues for “$x_1$ {a}”'),
    ('a' * 100, f'Regional clues for “{"a" * 39}…”'),
    ('\U000e0041\u0ff0', 'Regional clues for “the class”'),  # which no font has
    ('кот', 'Regional clues for “кот”')])
def test_names_of_any_kind(name, title):
    figure = draw(explanation(name, np.eye(64, dtype=bool)))
    assert figure._suptitle.get_text() == title
    figure.canvas.draw()


@pytest.mark.parametrize(('mask', 'title'), [
    (np.zeros((64, 64), dtype=bool), 'not found in the image'),
    (np.ones((64, 64), dtype=bool), '50.0 % of the image')])
def test_a_class_that_is_nowhere_or_everywhere(mask, title):
    """The figure is drawn without an outline."""
    figure = draw(explanation('cat', mask))
    figure.canvas.draw()
    assert any(axes.get_title().startswith(title) for axes in figure.axes)
    assert sum('itself' in text.get_text() for axes in figure.axes for text in axes.texts) == 16
