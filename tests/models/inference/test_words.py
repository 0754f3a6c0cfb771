"""Words as people type them."""
import pytest

from models.inference.words import clean_words, parse_words


@pytest.mark.parametrize(('text', 'words'), [
    ('cat, sofa, potted plant', ['cat', 'sofa', 'potted plant']), ('cat; sofa\nblue pot', ['cat', 'sofa', 'blue pot']),
    ('sofa | couch, cat', ['sofa, couch', 'cat']), ('cat', ['cat']), ('cat,,', ['cat', '', '']), ('|', [''])])
def test_parsing(text, words):
    assert parse_words(text) == words


@pytest.mark.parametrize(('words', 'cleaned'), [
    (['cat', ' Cat ', 'CAT', 'dog'], ['cat', 'dog']), (['potted\t plant\n', '', '  '], ['potted plant']),
    (['sofa,couch', 'sofa , couch'], ['sofa, couch']), ([['sofa', 'couch']], ['sofa, couch']),
    (['sofa, ,couch,'], ['sofa, couch']), (['sofa, Sofa, couch'], ['sofa, couch']),
    (('猫', '😀', 'кошка'), ['猫', '😀', 'кошка'])])
def test_cleaning(words, cleaned):
    assert clean_words(words) == cleaned


@pytest.mark.parametrize('words', [[], [''], ['  ', ','], (), ['\u200b', '\x00\n']])
def test_no_words(words):
    with pytest.raises(ValueError, match='no words: name what to look for'):
        clean_words(words)
    assert clean_words(words, none_will_do=True) == []


@pytest.mark.parametrize('words', ['cat', [3], [None], [['cat', 4]]])
def test_what_is_no_list_of_words(words):
    with pytest.raises(ValueError, match='is a list|is no word'):
        clean_words(words)
