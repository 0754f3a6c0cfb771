"""Parts of a user's own, in a folder outside the repository: found, kept, tested, shown beside ours; errors name them.
"""
import json
import os
import re
import sys

import pytest
import torch

from models import plugins
from models.weights import files
from models.weights.cliprc import load_weights
from tests.conftest import REPOSITORY
from tools.engine import errors
from tools.engine.build import build_model
from tools.engine.config import load_config
from tools.results.inspection import inspect, lines

LOSS = '''
from mmseg.models.builder import LOSSES
from helper import HALF
from models import MaskLoss


@LOSSES.register_module()
class HalvedLoss(MaskLoss):
    def __init__(self, *, halved=True, **options):
        super().__init__(**options)
        self.halved = halved

    def forward(self, logits, labels, resizing):
        losses = super().forward(logits, labels, resizing)
        return {**losses, 'loss_mine': (HALF if self.halved else 1) * resizing(logits).square().mean()}
'''
CONFIG = '''
_base_ = {base!r}
custom_imports = {imports}
model = dict(decode_head=dict({part}))
'''


def write_config(file, base, *modules, part='', imports=None):
    file.write_text(CONFIG.format(base=str(base), imports=imports or {'imports': [*modules]}, part=part))
    return file


def read(file):
    return load_config(file)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Modules and folders of one test are unknown to the next."""
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setattr(plugins, 'FOLDERS', set())
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(REPOSITORY) not in str(getattr(sys.modules[name], '__file__', None)):
            del sys.modules[name]


# ---- finding them

def test_beside_the_config_or_on_the_path(tmp_path, tiny_configs, monkeypatch):
    """Packages and helpers too; a name of ours stays ours."""
    for folder in ('idea/package', 'elsewhere', 'idea/datasets'):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / 'idea/package/loss.py').write_text(LOSS)
    (tmp_path / 'idea/helper.py').write_text('HALF = 0.5\nfrom datasets import PascalVOC20\n')
    (tmp_path / 'elsewhere/own_on_path.py').write_text('import models\n')
    monkeypatch.syspath_prepend(tmp_path / 'elsewhere')
    file = write_config(tmp_path / 'idea/mine.py', tiny_configs['inductive'], 'package.loss', 'own_on_path',
                        part="loss_decode=dict(type='HalvedLoss')")
    monkeypatch.chdir(tmp_path / 'idea')
    model = build_model(read('mine.py'))
    assert type(model.decode_head.losses).__module__ == 'package.loss' and 'own_on_path' in sys.modules

    plugins.keep(file, tmp_path)
    assert (tmp_path / 'package/loss.py').read_text() == LOSS and (tmp_path / 'helper.py').is_file()
    assert {path.name for path in tmp_path.iterdir()} == {'idea', 'elsewhere', 'package', 'helper.py'}


def test_a_folder_that_holds_this_repository_too(monkeypatch):
    home = REPOSITORY.parent
    monkeypatch.setattr(plugins, 'NOT_OWN', [REPOSITORY, home / 'venv'])
    files = {'my_head.py': True, f'{REPOSITORY.name}/models/losses.py': False, 'venv/lib/x.py': False,
             'lib/site-packages/x.py': False}
    assert {name: plugins._is_own(home / name, home) for name in files} == files
    assert plugins._is_own(REPOSITORY / 'configs/mine/head.py', REPOSITORY / 'configs/mine')


@pytest.mark.parametrize(('name', 'text', 'parts'), [
    ('lost', None, ["imports 'lost'", 'no such module', '/lost.py']),
    ('broken', 'a = 1\nb = a / 0\n', ["imports 'broken'", 'ZeroDivisionError', '/broken.py, line 2)']),
    ('typo', 'def f(:\n', ["imports 'typo'", 'SyntaxError', 'typo.py, line 1']),
    ('taken', 'from models import MaskLoss\nfrom mmseg.models.builder import LOSSES\n'
              'LOSSES.register_module(name="SegLoss")(MaskLoss)\n', ['SegLoss is already registered', 'line 3']),
    ('datasets', 'a = 1\n', ['/datasets.py has the name of another module', '/datasets/__init__.py', 'rename']),
])
def test_modules_that_cannot_be_imported(tmp_path, tiny_configs, name, text, parts):
    if text is not None:
        (tmp_path / f'{name}.py').write_text(text)
    file = write_config(tmp_path / 'mine.py', tiny_configs['inductive'], name)
    before = [*sys.path]
    with pytest.raises(SystemExit) as caught:
        errors.run(lambda: read(file))
    message = caught.value.code
    assert message.startswith(f'error: {file if text is None or name != "datasets" else tmp_path}')
    assert all(part in message for part in parts), message
    assert message.count('line') <= 1 and sys.path == before


@pytest.mark.parametrize('written', ["'my_head'", "dict(import_='x')", 'dict(imports=[1])',
                                     "dict(imports=['json'], allow_failed_imports=True)"])
def test_custom_imports_written_in_another_way(tmp_path, tiny_configs, written):
    with pytest.raises(ValueError, match='custom_imports'):
        read(write_config(tmp_path / 'mine.py', tiny_configs['inductive'], imports=written))


def test_a_part_that_no_module_registers(tmp_path, tiny_configs):
    file = write_config(tmp_path / 'mine.py', tiny_configs['inductive'], part="type='NoHead'")
    with pytest.raises(ValueError, match=r"NoHead is not in the models registry.*custom_imports = dict\(imports"):
        build_model(read(file))


def test_an_error_in_a_part_says_where(tmp_path, tiny_configs):
    (tmp_path / 'own_faulty.py').write_text(LOSS.replace('from helper import HALF\n', 'HALF = 1\n').replace(
        'self.halved = halved', 'a, b = (1, 2, 3)').replace('HalvedLoss', 'FaultyLoss'))
    file = write_config(tmp_path / 'mine.py', tiny_configs['inductive'], 'own_faulty',
                        part="loss_decode=dict(type='FaultyLoss')")
    with pytest.raises(SystemExit) as caught:
        errors.run(lambda: build_model(read(file)))
    assert re.fullmatch(r'error: ValueError: too many values to unpack \(expected 2.*\) '
                        rf'\({tmp_path}/own_faulty.py, line 11\)', caught.value.code)


# ---- the example of models/README.md, trained

@pytest.fixture(scope='module')
def idea(tmp_path_factory, tiny_configs):
    """The folder of the section of models/README.md, for the tiny model; and a loss."""
    section = (REPOSITORY / 'models/README.md').read_text().split('## Change a part')[1].split('\n## ')[0]
    folder = tmp_path_factory.mktemp('beside') / 'my_idea'
    folder.mkdir()
    for name, text in re.findall(r'```python\n# my_idea/(\w+\.py).*?\n(.*?)```', section, flags=re.DOTALL):
        assert name.startswith('my_') == ('../CLIP-RC/configs/miniature/inductive.py' in text)
        (folder / name).write_text(text.replace('../CLIP-RC/configs/miniature/inductive.py',
                                                str(tiny_configs['inductive'])))
    assert sorted(path.name for path in folder.iterdir()) == ['cosine.py', 'my_cosine.py']
    (folder / 'helper.py').write_text('HALF = 0.5\n')
    (folder / 'halved.py').write_text(LOSS)
    write_config(folder / 'inductive.py', tiny_configs['inductive'], 'halved',
                 part="loss_decode=dict(type='HalvedLoss')")
    return folder


@pytest.fixture(scope='module')
def works(run, idea, trained):
    """Work folders of the head, trained and tested, and of the loss, trained under the name of our config."""
    folders = {'head': idea.parent / 'work/head', 'loss': idea.parent / 'work/loss'}
    run('dist_train.sh', idea / 'my_cosine.py', folders['head'], 1, '--seed', 3, '--no-validate', '--auto-resume',
        env={'PORT': str(29500 + os.getpid() % 1000)})
    run('tools/train.py', idea / 'inductive.py', '--work-dir', folders['loss'], '--seed', 3, '--no-validate')
    # the run's own copies are enough
    run('test.py', folders['head'] / 'my_cosine.py', folders['head'] / 'latest.pth', '--eval', 'mIoU')
    return folders


def losses(folder):
    return {entry['iter']: entry for log in sorted(folder.glob('*.log.json')) for entry in
            map(json.loads, log.read_text().splitlines()) if entry.get('mode') == 'train'}


def test_they_are_trained(works, trained):
    ours, head, loss = (losses(folder) for folder in (trained, works['head'], works['loss']))
    assert [*ours] == [*head] == [*loss] == [1, 2, 3, 4]
    assert all(entry['decode.loss_mine'] > 0 for entry in loss.values())
    assert loss[1]['decode.loss_mask'] == pytest.approx(ours[1]['decode.loss_mask'], rel=1e-3), 'the same images'
    assert head[1]['decode.loss_mask'] != pytest.approx(ours[1]['decode.loss_mask'], rel=0.05)
    assert torch.load(works['head'] / 'latest.pth', weights_only=True)['state_dict']['decode_head.scale'] != 10


def test_a_run_keeps_the_code_of_its_parts(works, idea):
    assert {path.name: path.read_text() for path in works['head'].glob('*.py') if path.name != 'my_cosine.py'} == {
        'cosine.py': (idea / 'cosine.py').read_text()}
    assert {'halved.py', 'helper.py', 'inductive.py'} == {path.name for path in works['loss'].glob('*.py')}


def test_own_modules_in_the_metadata(works, tiny_configs):
    checkpoint = files.read(works['head'] / 'latest.pth')
    found = inspect(checkpoint)
    assert found['own_modules'] == ['cosine'] and found['configs'] == []
    assert ('own modules', '1: cosine') in lines(found)
    with pytest.raises(ValueError, match='decode_head.scale(.|\n)*modules of the user\'s own: cosine'):
        load_weights(build_model(read(tiny_configs['inductive'])), checkpoint)
    checkpoint = files.read(works['loss'] / 'latest.pth')
    load_weights(build_model(read(tiny_configs['inductive'])), checkpoint)  # a loss leaves no weights
    assert inspect(checkpoint)['configs'] == []


def test_a_warning_about_another_head_with_the_same_weights(run, works, tiny_configs, tmp_path):
    (tmp_path / 'same.py').write_text(
        'from mmseg.models.builder import HEADS\nfrom models import RegionClueHead\n'
        'HEADS.register_module(name="SameHead")(type("SameHead", (RegionClueHead,), {}))\n')
    file = write_config(tmp_path / 'mine.py', tiny_configs['inductive'], 'same', part="type='SameHead'")
    done = run('test.py', file, works['loss'] / 'latest.pth', '--eval', 'mIoU', '--work-dir', tmp_path)
    assert 'was trained with the decode_head RegionClueHead, the config has SameHead' in done.stdout + done.stderr


def test_inference_with_its_checkpoint(run, works, idea, voc_root, tmp_path):
    """Export keeps the names of its modules; explain refuses a head whose logits are not a mean over regions."""
    checkpoint, config = works['head'] / 'latest.pth', idea / 'my_cosine.py'
    image = next((voc_root / 'JPEGImages').glob('val_*.jpg'))
    explained = run('tools/explain.py', image, '--class', 'cat', '--checkpoint', checkpoint, '--config', config,
                    check=False)
    assert explained.returncode == 1 and 'CosineHead is not supported: its mask logits' in explained.stderr
    slim = tmp_path / 'model.safetensors'
    run('tools/export.py', checkpoint, '--config', config, '--slim', '--out', slim.parent, '--no-text-tower', '--dtype',
        'float32')
    assert 'own modules        1: cosine' in run('tools/inspect_checkpoint.py', slim).stdout
    run('tools/demo.py', image, '--checkpoint', slim, '--config', config, '--out', tmp_path)
    error = run('tools/demo.py', image, '--checkpoint', slim, '--out', tmp_path, check=False).stderr
    assert 'name the config that imports them: config=FILE (--config FILE)' in error
