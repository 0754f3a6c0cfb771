"""tools/explain.py: a figure and its numbers."""
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from models.sliding_window import Window
from tools.explain import draw
from tools.explaining.explanation import Attention, Explanation, Reading


@pytest.fixture
def image(tmp_path):
    file = tmp_path / 'my image.jpg'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 150, 3), dtype=np.uint8)).save(file)
    return file


@pytest.mark.parametrize('others', [[], ['--words', 'cow, dog; aeroplane', '--block', 1, '--window', 3]])
def test_the_command(run, trained, image, tmp_path, others):
    done = run('tools/explain.py', image, '--word', 'cow', *others, '--checkpoint', trained / 'latest.pth',
               '--out', tmp_path / 'new/figure.png', '--device', 'cpu')
    with Image.open(tmp_path / 'new/figure.png') as figure:
        assert figure.width > 1000 and figure.height > 600
        assert np.asarray(figure.convert('RGB')).std() > 10
    numbers = json.loads((tmp_path / 'new/figure.json').read_text())
    assert numbers['word'] == 'cow' and len(numbers['regions']) == 4 and numbers['windows'] == 3
    assert (numbers['block'], len(numbers['words'])) == ((1, 3) if others else (3, 20))
    assert not others or numbers['number'] == 3
    assert numbers['found'] == (numbers['with_regions']['area'] > 0)
    assert numbers['found'] == ('found nowhere' not in done.stderr)


@pytest.mark.parametrize(('options', 'words'), [
    (['--word', 'cow, dog'], 'one is explained at a time'),
    (['--word', 'cow', '--out', 'figure.txt'], 'the name must end in .png')])
def test_bad_input(run, trained, image, options, words):
    done = run('tools/explain.py', image, *options, '--checkpoint', trained / 'latest.pth', check=False)
    assert done.returncode == 1 and words in done.stderr and 'Traceback' not in done.stderr


def explanation(word: str, found: np.ndarray) -> Explanation:
    """Of 16 regions in the second of two windows."""
    random = np.random.default_rng(0)
    reading = Reading(random.random(found.shape), found)
    labels = np.ones((50, 100), dtype=np.uint8)
    labels[:, 50:] = ~found[:50, :50]
    return Explanation(
        result=SimpleNamespace(image=random.integers(0, 255, (50, 100, 3), dtype=np.uint8),
                               labels=labels, words=[word, 'other']),
        word=word, window=Window(0, 64, 64, 64), number=2, windows=2, size=(64, 128),
        view=random.integers(0, 255, (64, 64, 3), dtype=np.uint8), by_region=random.normal(size=(16, 64, 64)),
        attention=Attention(torch.rand(2, 8, 8), torch.rand(2, 16)), block=2, reading=reading,
        silenced={'everywhere': Reading(reading.scores / 2, ~found)})


@pytest.mark.parametrize(('word', 'title'), [
    ('$x_1$ {a}', 'Regional clues for “$x_1$ {a}”'),
    ('a' * 100, f'Regional clues for “{"a" * 39}…”'),
    ('\U000e0041\u0ff0', 'Regional clues for “the word”'),  # which no font has
    ('кот', 'Regional clues for “кот”')])
def test_words_of_any_kind(word, title):
    figure = draw(explanation(word, np.eye(64, dtype=bool)))
    assert figure._suptitle.get_text() == title
    figure.canvas.draw()


@pytest.mark.parametrize(('found', 'says'), [
    (np.zeros((64, 64), dtype=bool), 'the word is found nowhere'),
    (np.ones((64, 64), dtype=bool), '50.0 % of the image')])
def test_a_word_that_is_nowhere_or_everywhere(found, says):
    """Also then a figure, without a line around what is not there."""
    figure = draw(explanation('cat', found))
    figure.canvas.draw()
    titles = [axes.get_title() for axes in figure.axes]
    assert any(title.startswith(says) for title in titles)
    assert sum('itself' in text.get_text() for axes in figure.axes for text in axes.texts) == 16
