"""Prompt sets, and class names as people write them."""
import pytest

from models.class_names import clean_class_names, parse_class_names, synonyms, templates_of


def test_the_fifteen_templates_of_coco_stuff():
    sizes = ('', 'small ', 'medium ', 'large ')
    photos = [f'{start} of a {size}{{}}.' for start in ('a photo', 'This is a photo') for size in sizes]
    scenes = [f'{start} {{}} in the scene.' for start in (
        'a', 'a photo of a', 'There is a', 'There is the', 'This is a', 'This is the', 'This is one')]
    assert templates_of('coco15') == tuple(photos + scenes)
    assert len(templates_of('coco15')) == 15


def test_the_eighty_of_imagenet():
    templates = templates_of('imagenet80')
    assert len(set(templates)) == 80
    assert {'a bad photo of a {}.', 'itap of a {}.', 'a tattoo of the {}.'} <= set(templates)


@pytest.mark.parametrize(('prompts', 'message'), [
    ('haiku', 'haiku.*single.*coco15.*imagenet80'),
    ([], 'at least one text'),
    (['a {}', 'a photo'], "'a photo'.*needs one {}"),
    (['{} and {}'], 'needs one {}'),
    (['a {name}'], 'needs one {}'),
    (['a {0}'], 'needs one {}'),
    ([3], 'needs one {}'),
])
def test_invalid_prompts(prompts, message):
    with pytest.raises(ValueError, match=message):
        templates_of(prompts)


def test_synonyms():
    """Commas as in files, | as on a command line."""
    assert synonyms('sofa, couch') == synonyms('sofa|couch') == ['sofa', 'couch']
    assert synonyms('wall-concrete') == ['wall-concrete']


@pytest.mark.parametrize(('text', 'names'), [
    ('cat, sofa, potted plant', ['cat', 'sofa', 'potted plant']), ('cat; sofa\nblue pot', ['cat', 'sofa', 'blue pot']),
    ('sofa | couch, cat', ['sofa, couch', 'cat']), ('cat', ['cat']), ('cat,,', ['cat', '', '']), ('|', [''])])
def test_parsing(text, names):
    assert parse_class_names(text) == names


@pytest.mark.parametrize(('names', 'cleaned'), [
    (['cat', ' Cat ', 'CAT', 'dog'], ['cat', 'dog']), (['potted\t plant\n', '', '  '], ['potted plant']),
    (['sofa,couch', 'sofa , couch', 'sofa|couch'], ['sofa, couch']), ([['sofa', 'couch']], ['sofa, couch']),
    (['sofa, ,couch,'], ['sofa, couch']), (['sofa, Sofa, couch'], ['sofa, couch']),
    (('猫', '😀', 'кошка'), ['猫', '😀', 'кошка'])])
def test_cleaning(names, cleaned):
    assert clean_class_names(names) == cleaned


@pytest.mark.parametrize('names', [[], [''], ['  ', ','], (), ['\u200b', '\x00\n']])
def test_no_class_names(names):
    with pytest.raises(ValueError, match='no class names: name what to look for'):
        clean_class_names(names)
    assert clean_class_names(names, allow_empty=True) == []


@pytest.mark.parametrize('names', ['cat', [3], [None], [['cat', 4]]])
def test_invalid_class_names(names):
    with pytest.raises(ValueError, match='must be a list|is not a class name'):
        clean_class_names(names)
