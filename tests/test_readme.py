"""What the README says of the tree and of the published scores is true."""
import json
import re
import subprocess

import pytest
from mmcv import Config

from datasets import COCOStuff164k, PascalVOC20
from tests.conftest import REPOSITORY
from tools.miniature import experiment
from tools.preparation.sources import BENCHMARKS

README = (REPOSITORY / 'README.md').read_text()
TOP_LEVEL = {'configs', 'datasets', 'models', 'tests', 'tools', 'LICENSE', 'README.md', 'dist_train.sh',
             'get_flops.py', 'requirements.txt', 'test.py'}


def test_the_tree():
    tree = README.split('## The code')[1].split('```')[1]
    files = set()
    folder = ''
    for line in tree.strip().splitlines():
        names = re.split(r'\s{2,}', line.strip())[0].split()
        if not line.startswith(' '):
            folder = names[0] if names[0].endswith('/') else ''
            files |= set(names)
        else:
            files |= {folder + name for name in names if '.' in name or name.endswith('/')}
    missing = [name for name in files if not (REPOSITORY / name).exists()]
    assert not missing
    for folder in ('models', 'datasets', 'tools'):
        unnamed = {f'{folder}/{path.name}' for path in (REPOSITORY / folder).glob('*.*') if path.stem != '__init__'}
        assert {name for name in unnamed if name.split('/')[1] not in tree} == set()


PUBLISHED = sorted(path.relative_to(REPOSITORY) for folder in ('voc12', 'coco')
                   for path in (REPOSITORY / 'configs' / folder).glob('*.py'))


@pytest.mark.parametrize('leaf', PUBLISHED, ids=str)
def test_published_scores(leaf):
    published = Config.fromfile(str(REPOSITORY / leaf)).published
    row = next(line for line in README.splitlines() if f'| `{leaf.name}` |' in line)
    assert [float(cell) for cell in row.split('|')[3:7]] == list(published.values())
    row = next(line for line in README.splitlines() if f'`python test.py {leaf} FILE --eval mIoU`' in line)
    assert float(row.split('|')[3]) == published.hIoU and 'drive.google.com/file/d/' in row


def test_counts_of_images():
    """As prepare_data.py checks them."""
    layout = README.split('## Data and CLIP')[1].split('```')[3]
    counts = {split.count for benchmark in BENCHMARKS.values() for split in benchmark.splits}
    assert len(counts) == 9
    assert {int(number.replace(',', '')) for number in re.findall(r'\d+,\d{3}', layout)} == counts


def test_unseen_classes_of_the_benchmarks():
    text = ' '.join(README.split())
    for cls, start in ((PascalVOC20, 'Unseen on PASCAL VOC 2012: '), (COCOStuff164k, 'on COCO-Stuff 164k: ')):
        assert f'{start}{", ".join(cls.UNSEEN)}, of {len(cls.CLASSES)}' in text


def test_the_miniature_table_is_of_its_recorded_results():
    results = json.loads((REPOSITORY / 'tests/data/miniature_results.json').read_text())
    assert experiment.tables(results) in README


def test_commands_name_files_that_exist():
    for path in re.findall(r'(?:bash|python) ([a-z_/]+\.(?:py|sh))', README):
        assert (REPOSITORY / path).is_file(), path


def test_the_top_level_holds_nothing_else():
    listed = subprocess.run(['git', 'ls-files'], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip('no git checkout')
    tops = {name.split('/')[0] for name in listed.stdout.splitlines()}
    assert {name for name in tops if not name.startswith('.')} == TOP_LEVEL
