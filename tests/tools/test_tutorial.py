"""The notebook: stored without outputs, and executed from top to bottom, with a training of four iterations."""
import base64
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.conftest import REPOSITORY

FILE = REPOSITORY / 'tools/tutorial.ipynb'
IMAGES = {'show', 'segment', 'opaque', 'score-maps', 'thresholds', 'explain', 'own-prompts', 'own-names', 'synonyms',
          'world', 'compare'}  # cells


def read() -> nbformat.NotebookNode:
    return nbformat.read(FILE, as_version=4)


def test_nothing_of_a_run_is_stored():
    """No output, no execution count, nothing of the machine or of the editor, which its user's run would leave."""
    notebook = read()
    nbformat.validate(notebook)
    assert notebook.metadata == {'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
                                 'language_info': {'name': 'python'}}
    for cell in notebook.cells:
        assert re.fullmatch('[a-z-]+', cell.id), 'an id that an editor made up'
        assert cell.metadata == ({'tags': ['parameters']} if cell.id == 'settings' else {})
        if cell.cell_type == 'code':
            assert cell.outputs == [] and cell.execution_count is None


def test_cells_are_short():
    for cell in read().cells:
        assert len(cell.source.splitlines()) <= 15 and max(map(len, cell.source.splitlines())) <= 120, cell.id


def test_pages_and_files_that_it_names():
    text = '\n'.join(cell.source for cell in read().cells)
    assert all((FILE.parent / link).exists() for link in re.findall(r'\]\(([^)#:]+)\)', text))
    named = re.findall(r'(?<![\w/.])(?:tools|configs|datasets|models|tests)/[\w./-]+\.(?:py|md|sh|safetensors|ipynb)',
                       text)
    assert len(named) > 8 and all((REPOSITORY / name).exists() for name in named), named


@pytest.mark.parametrize('folder', ['tools', '.'])
def test_it_finds_the_repository(folder, tmp_path, monkeypatch):
    """The first cell, opened from either folder."""
    monkeypatch.chdir(REPOSITORY / folder)
    monkeypatch.setattr('sys.path', [])
    monkeypatch.setattr('warnings.filters', [])
    first = next(cell for cell in read().cells if cell.cell_type == 'code')
    names = {}
    exec(first.source, names)
    assert Path.cwd() == names['root'] == REPOSITORY


def outputs_of(cell: nbformat.NotebookNode, kind: str) -> list:
    return [output.data[kind] for output in cell.outputs if kind in output.get('data', {})]


def printed(cell: nbformat.NotebookNode) -> str:
    return ''.join(output.text for output in cell.outputs if output.output_type == 'stream')


def test_it_runs(tmp_path, monkeypatch, cache):
    """From top to bottom, opened from tools/; its training is short, and in a folder of the test's."""
    monkeypatch.setenv('CLIPRC_CACHE', str(cache))
    for name in ('IPYTHONDIR', 'JUPYTER_CONFIG_DIR', 'JUPYTER_DATA_DIR', 'JUPYTER_RUNTIME_DIR'):
        monkeypatch.setenv(name, str(tmp_path / name))  # nobody's settings, nothing in a home
    notebook, work = read(), tmp_path / 'my work'
    place = next(index for index, cell in enumerate(notebook.cells) if cell.id == 'settings')
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(
        f'work, train_images, test_images, iterations = Path({str(work)!r}), 8, 12, 4'))
    NotebookClient(notebook, timeout=300, kernel_name='python3', resources={'metadata': {'path': FILE.parent}}
                   ).execute()

    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == 'code'}
    assert {name for name, cell in cells.items() if outputs_of(cell, 'image/png')} == IMAGES
    for name in IMAGES:
        [encoded] = outputs_of(cells[name], 'image/png')
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            assert min(image.size) >= 200 and len(np.unique(image.convert('L'))) > 3, name
    assert 'Segmenter: trained on 20 classes, 15 of them with masks' in outputs_of(cells['load'], 'text/plain')[0]
    assert outputs_of(cells['segment'], 'text/plain')[0].startswith('<Result: 128 x 128 pixels; ')
    assert 'unseen: red stripes, ' in printed(cells['unseen'])
    assert 'Iter [4/4]' in printed(cells['run']) and 'error' not in printed(cells['run'])
    assert re.fullmatch(r'seen +\d+\.\d\nunseen +\d+\.\d\nhIoU +\d+\.\d\n', printed(cells['seen-unseen']))
    assert (work / 'run/latest.pth').is_file() and (work / 'world_8_12').is_dir()
    quiet = cells.keys() - {'load', 'unseen', 'summary', 'run', 'seen-unseen', 'compare'}
    assert not ''.join(printed(cells[name]) for name in quiet), 'a warning'
