"""Cleaned class names of the benchmarks: they fit their datasets, name by name, and replace them in a test."""
import re
from collections import Counter

import pytest

import datasets
from datasets.class_split import listed
from models.class_names import synonyms
from tests.conftest import REPOSITORY
from tools.engine.build import dataset_facts
from tools.engine.config import load_config

FOLDER = REPOSITORY / 'datasets/vocabularies/cleaned'
DATASETS = {'voc20': 'PascalVOC20', 'voc20b': 'PascalVOC20b', 'context59': 'PascalContext59',
            'context459': 'PascalContext459', 'ade20k150': 'ADE20K150', 'ade847': 'ADE20K847',
            'cocostuff171': 'COCOStuff164k'}
REWRITTEN = {'casetterecorder': 'cassette recorder', 'structural-other': 'structure'}


def spellings(name: str) -> set[str]:
    """'wall-brick' and 'brick wall', 'sky-other' and 'sky', 'pottedplant' and 'potted plant' have one in common."""
    words = re.split('[ -]', name.casefold())
    return {joined_words(name), ''.join(sorted({*words} - {'other', 'stuff'}))}


def joined_words(name: str) -> str:
    return re.sub('[ -]', '', name.casefold())


def test_every_file_is_of_a_dataset():
    assert {file.stem for file in FOLDER.glob('*.txt')} == {*DATASETS}


@pytest.mark.parametrize('file', DATASETS)
def test_names_fit_their_dataset(file):
    """Every line keeps a name of its class, in any spelling, and no name is of two classes."""
    cls = getattr(datasets, DATASETS[file])
    lines = listed(str(FOLDER / f'{file}.txt'), 'class names')
    assert list(cls.describe(lines).split.names) == lines, 'no stray blanks'
    for own, line in zip(cls.CLASSES, lines, strict=True):
        names = line.split(', ')
        kept = set().union(*map(spellings, own.split(', '))) & set().union(*map(spellings, names))
        assert kept or REWRITTEN[own] in names, (own, line)
    counts = Counter(joined for line in lines for joined in {*map(joined_words, line.split(', '))})
    assert max(counts.values()) == 1


def test_of_ade847_only_shared_names_are_left_out():
    """A name stays with the class that has no other, else with the first whose first name it is."""
    official = [synonyms(name) for name in datasets.ADE20K847.CLASSES]
    counts = Counter(joined for names in official for joined in {*map(joined_words, names)})
    alone = {joined_words(names[0]) for names in official if len(names) == 1}
    expected, taken = [], set()
    for names in official:
        kept = [name for name in names if counts[joined_words(name)] == 1 or len(names) == 1 or (
            name == names[0] and joined_words(name) not in alone | taken)]
        taken.add(joined_words(names[0]))
        expected.append(', '.join(kept))
    assert listed(str(FOLDER / 'ade847.txt'), 'class names') == expected


@pytest.mark.parametrize('file', sorted({*DATASETS} - {'cocostuff171'}))
def test_a_cross_dataset_test_takes_names_and_prompts(file, tmp_path, monkeypatch):
    """From any folder; the prompts stay those of the config until they are given, too."""
    monkeypatch.chdir(tmp_path)
    leaf, classes = REPOSITORY / f'configs/cross_dataset/coco_to_{file}.py', f'datasets/vocabularies/cleaned/{file}.txt'
    facts = dataset_facts(load_config(leaf, [f'data.test.classes={classes}']))
    assert list(facts.split.names) == (FOLDER / f'{file}.txt').read_text().splitlines()
    assert (facts.prompt_set, facts.split.unseen_names) == ('coco15', ())
    assert facts.scored.names == (*facts.split.names[:20], 'background') or file != 'voc20b'
    facts = dataset_facts(load_config(leaf, [f'data.test.classes={classes}', 'data.test.prompt_set=imagenet80']))
    assert facts.prompt_set == 'imagenet80' and len(facts.templates) == 80
