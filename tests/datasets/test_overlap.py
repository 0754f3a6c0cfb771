"""Classes of a test that a training knew by name: spellings and synonyms, and what is not compared."""
import pytest

from datasets import ADE20K150, COCOStuff164k, PascalContext59, PascalVOC20, PascalVOC20b
from datasets.overlap import known_classes

SEEN = [name for name in COCOStuff164k.CLASSES if name not in COCOStuff164k.UNSEEN]


def test_voc_in_coco_stuff():
    """All but one, under six other names; that one is unseen."""
    known = known_classes(PascalVOC20.CLASSES, SEEN)
    assert {name for name in PascalVOC20.CLASSES if name not in known} == {'cow'}
    assert {name: other for name, other in known.items() if name != other} == {
        'aeroplane': 'airplane', 'diningtable': 'dining table', 'motorbike': 'motorcycle',
        'pottedplant': 'potted plant', 'sofa': 'couch', 'tvmonitor': 'tv'}
    assert known_classes(PascalVOC20.CLASSES, COCOStuff164k.CLASSES) == {**known, 'cow': 'cow'}


def test_stuff_in_coco_stuff():
    known = known_classes([*PascalContext59.CLASSES, *ADE20K150.CLASSES], SEEN)
    assert (known['wall'], known['sidewalk'], known['minibike']) == ('wall-other', 'pavement', 'motorcycle')
    assert not {'grass', 'road', 'tree', 'river'} & {*known}, 'they are unseen'
    assert not {'animal', 'armchair', 'palm', 'plaything'} & {*known}, 'narrower and wider terms'


@pytest.mark.parametrize('name, other, same', [
    ('Hot  Dog', 'hot-dog', True), ('hot_dog', 'hotdog', True), ('rose, tulip', 'a, Tulip', True),
    ('andiron, firedog, dog, dog-iron', 'dog', True), ('tulip', 'tulips', False),
    ('dog', 'hot dog', False), ('lounge', 'couch', False), ('tv', 'television', True)])
def test_pairs(name, other, same):
    assert known_classes([name], [other]) == ({name: other} if same else {})


def test_a_class_of_the_same_name_is_preferred():
    assert known_classes(['lamp', 'light'], ['light', 'lamp']) == {'lamp': 'lamp', 'light': 'light'}


def test_background_is_not_asked_for():
    facts = PascalVOC20b.describe()
    assert facts.scored.names[-1] == 'background'
    assert known_classes(facts.scored.names, ['background', 'cow']) == {'cow': 'cow'}
