"""tools/explain.py: the figure and the numbers."""
import json

import numpy as np
import pytest
from PIL import Image


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
