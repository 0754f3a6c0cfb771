"""The split by class name, and class names, unseen names and prompts of a config or of text files.

`test_properties.py` has splits that fit.
"""
import pytest

from datasets import ClassSplit, PascalVOC20, ZeroShotDataset


@pytest.mark.parametrize(('names', 'unseen', 'words'), [
    (('cat', 'dog', 'cat'), (), 'twice: cat'),
    (('Sofa, couch', 'dog', ' couch,  sofa'), (), 'twice: couch, sofa'),
    (('sofa, couch', 'tv'), ('couch',), 'unknown classes: couch. The classes of the dataset: sofa, couch; tv'),
    (('cat', 'dog'), ('zebra', 'dog'), 'unknown classes: zebra'),
    (('cat', 'dog'), ('cat', 'dog'), 'all classes are unseen'),
    (('cat', ''), (), "class 1 is named ''"),
    (('cat', 'sofa, '), (), "class 1 is named 'sofa, '"),
    ((3, 'cat'), (), 'class 0 is named 3'),
    (tuple(map(str, range(70_000))), (), '70,000 classes: 65,535 at most'),
])
def test_a_split_that_does_not_fit(names, unseen, words):
    with pytest.raises(ValueError, match=words):
        ClassSplit(names, unseen)


@pytest.mark.parametrize(('cls', 'arguments', 'words'), [
    (PascalVOC20, {'unseen': ['sheep', 'unicorn']}, 'unicorn'),
    (PascalVOC20, {'prompt_set': 'haiku'}, 'haiku.*single.*coco15'),
    (PascalVOC20, {'prompt_set': ['a photo']}, 'needs one {}'),
    (PascalVOC20, {'classes': ['cat', 'dog']}, 'PascalVOC20 has 20 classes, .* names 2'),
    (ZeroShotDataset, {}, 'classes='),
    (ZeroShotDataset, {'classes': 'nowhere.txt'}, r'no text file nowhere.txt of class names\.$'),
    (ZeroShotDataset, {'classes': ['toy', 'cat'], 'unseen': 'toy'}, r"no text file toy of unseen .* write \['toy'\]"),
    (ZeroShotDataset, {'classes': ['cat, kitten', 'dog', ' Kitten']}, 'twice: kitten'),
    (ZeroShotDataset, {'classes': ['cat', 'sofa , couch,sofa']}, 'twice: sofa'),
    (ZeroShotDataset, {'classes': ['cat', 'dog'], 'background': ['wall', 'dog']}, 'background names unknown .*: wall'),
    (ZeroShotDataset, {'classes': ['cat', 'dog'], 'background': ['cat', 'dog']}, 'all classes are background'),
    (ZeroShotDataset, {'classes': ['cat', 'background', 'wall'], 'background': ['wall']}, "is named 'background'"),
    (ZeroShotDataset, {'classes': {'toy', 'cat'}}, 'class names: a list or a text file is needed, not {'),
    (ZeroShotDataset, {'classes': '/'}, '/ cannot be read as a text file of class names: Is a directory'),
])
def test_facts_that_are_refused(cls, arguments, words):
    with pytest.raises(ValueError, match=words):
        cls.describe(**arguments)


def test_class_names_from_a_file(tmp_path):
    file = tmp_path / 'names.txt'
    file.write_text('sofa, couch\ntv\n')
    (tmp_path / 'unseen.txt').write_text('sofa,couch\n')
    (tmp_path / 'prompts.txt').write_text('an aerial photo of a {}\n')
    facts = ZeroShotDataset.describe(classes=str(file), unseen=str(tmp_path / 'unseen.txt'),
                                     prompt_set=str(tmp_path / 'prompts.txt'))
    assert facts.split == ClassSplit(('sofa, couch', 'tv'), ('sofa, couch',))
    assert facts.prompt_set == facts.templates == ('an aerial photo of a {}',)
