"""What the pages say is true: commands and their options, links, the tree, published scores, classes, counts."""
import json
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from functools import cache

import pytest
from mmcv import Config

from datasets import COCOStuff164k, PascalVOC20
from models.weights import files
from models.weights.clip_variant import known_variants, variant_of
from tests.conftest import REPOSITORY
from tools.miniature.study import tables
from tools.preparation.sources import BENCHMARKS

TOP_LEVEL = {'configs', 'datasets', 'models', 'tests', 'tools', 'LICENSE', 'README.md', 'dist_train.sh',
             'get_flops.py', 'requirements.txt', 'test.py'}
PAGES = {str(path.relative_to(REPOSITORY)): path.read_text() for folder in ('.', *sorted(TOP_LEVEL))
         for path in ([*REPOSITORY.glob('*.md')] if folder == '.' else (REPOSITORY / folder).rglob('*.md'))}
README = PAGES['README.md']
COMMAND = re.compile(r'(?:^|(?<=[`;&\s]))(bash|python) ((?:tools/|tests/)?[\w/]+\.(?:py|sh))((?:\\\n|[^`#\n])*)',
                     re.M)


def commands(page: str) -> list[tuple[str, str]]:
    """(script, its arguments) of all commands in a page."""
    return [(script, arguments.replace('\\\n', ' ').split(' && ')[0]) for _, script, arguments in COMMAND.findall(page)
            if '/' in script or script in TOP_LEVEL]


@cache
def help_of(script: str) -> str:
    program = {'dist_train.sh': 'tools/train.py', 'tools/slurm_train.sh': 'tools/train.py'}.get(script, script)
    if program.endswith('.sh'):
        return (REPOSITORY / program).read_text()
    done = subprocess.run([sys.executable, program, '--help'], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize('page', PAGES)
def test_commands(page):
    for script, arguments in commands(PAGES[page]):
        text = (REPOSITORY / script).read_text()
        assert re.search('__main__|ArgumentParser', text) or script.endswith('.sh'), f'{script} is not a command'
        options = re.findall(r'(?<=\s)--[\w-]+', arguments)
        unknown = [option for option in options if option not in re.findall(r'--[\w-]+', help_of(script))]
        assert not unknown, f'{page}: {script} has no {unknown}'
        for word in shlex.split(arguments, comments=True) if arguments.count('"') % 2 == 0 else ():
            if word.startswith('configs/') and word.endswith('.py'):
                assert (REPOSITORY / word).is_file(), f'{page}: {word}'


def test_a_clip_of_random_weights(tmp_path):
    file = tmp_path / 'ViT-B-16.pt'
    subprocess.run([sys.executable, 'tests/clip_files.py', file], cwd=REPOSITORY, check=True)
    assert variant_of(files.read(file)) == known_variants()['ViT-B-16/openai']


@pytest.mark.parametrize('page', PAGES)
def test_links(page):
    targets = re.findall(r'\]\(([^)#\s]+)', PAGES[page])
    missing = [target for target in targets if '://' not in target
               and not ((REPOSITORY / page).parent / target).exists()]
    assert not missing


def test_the_front_page():
    assert len(README.splitlines()) <= 200
    tree = README.split('## The code')[1].split('```')[1]
    folder, named = '', defaultdict(set)
    for line in tree.strip().splitlines():
        indent, entries = re.match(r'( *)((?:[\w./]+ {1,2})*[\w./]+)(?: {2,}|$)', line).groups() if re.match(
            r' {0,2}[\w.]', line) else ('', '')
        for name in entries.split():
            folder = name if not indent and name.endswith('/') else folder
            named[folder if indent else ''].add(name)
    assert all((REPOSITORY / folder / name).exists() for folder, names in named.items() for name in names)
    assert TOP_LEVEL - {'LICENSE', 'README.md', 'requirements.txt'} == {name.rstrip('/') for name in named['']}
    assert {f'{path.name}/' for path in (REPOSITORY / 'models').iterdir() if path.is_dir()
            and (path / '__init__.py').exists()} == named['models/']


def test_every_command_has_a_row():
    page = PAGES['tools/README.md']
    for path in (REPOSITORY / 'tools').iterdir():
        if path.suffix in ('.py', '.sh') and path.stem != '__init__' or (path / '__init__.py').exists():
            assert f'`{path.name}' in page, f'tools/README.md has no row for {path.name}'


PUBLISHED = sorted(path.relative_to(REPOSITORY / 'configs') for folder in ('voc12', 'coco')
                   for path in (REPOSITORY / 'configs' / folder).glob('*.py'))


@pytest.mark.parametrize('leaf', PUBLISHED, ids=str)
def test_published_scores(leaf):
    published = Config.fromfile(str(REPOSITORY / 'configs' / leaf)).published
    row = next(line for line in README.splitlines() if f'| `{leaf}` |' in line)
    assert [float(cell) for cell in row.split('|')[3:7]] == list(published.values())
    assert 'drive.google.com/file/d/' in row


def test_counts_of_images():
    """As prepare_data.py checks them."""
    counts = {split.count for benchmark in BENCHMARKS.values() for split in benchmark.splits}
    assert len(counts) == 9
    assert counts <= {int(number.replace(',', '')) for number in re.findall(r'\d+,\d{3}', PAGES['datasets/README.md'])}


@pytest.mark.parametrize('cls', [PascalVOC20, COCOStuff164k])
def test_unseen_classes_of_the_benchmarks(cls):
    assert ', '.join(cls.UNSEEN) in ' '.join(PAGES['configs/README.md'].split())


def test_the_miniature_tables_are_of_its_recorded_results():
    results = json.loads((REPOSITORY / 'tests/data/miniature_results.json').read_text())
    assert tables(results) in PAGES['tools/miniature/README.md']


def test_the_top_level_holds_nothing_else():
    listed = subprocess.run(['git', 'ls-files'], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip('no git checkout')
    tops = {name.split('/')[0] for name in listed.stdout.splitlines()}
    assert {name for name in tops if not name.startswith('.')} == TOP_LEVEL
