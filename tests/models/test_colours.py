"""Colours of classes: far apart for all eyes, and those that their names say."""
import colorsys
from collections import Counter

import numpy as np
import pytest

from datasets.miniature import COLOURS, Miniature
from models.colours import DIFFERENCE, HEAT, OKABE_ITO, SHADES, WEIGHTS, class_colours, colour_in, heat_table, looks_of

HUES = {'red': 0, 'yellow': 55, 'green': 125, 'blue': 220, 'purple': 285}  # degrees


def nearest(names) -> list[float]:
    """The smallest distance in CIELAB between two colours, for usual eyes, protanopia and deuteranopia."""
    looks = looks_of(np.array(class_colours(tuple(names))))
    one, other = np.triu_indices(len(names), 1)
    return np.linalg.norm(looks[one] - looks[other], axis=-1).min(axis=0).tolist()


def test_looks():
    """Of red, green and grey: known CIELAB values; red and green have the same hue for colour-blind eyes."""
    red, green, grey = looks_of(np.array([[255, 0, 0], [0, 255, 0], [128, 128, 128]]))
    assert red[0] == pytest.approx([53.24, 80.09, 67.2], abs=0.1)
    assert green[0] == pytest.approx([87.73, -86.18, 83.18], abs=0.1)
    assert grey == pytest.approx(np.tile(grey[0], (3, 1)), abs=0.1)
    for eyes in (1, 2):
        assert np.arctan2(*red[eyes, 1:]) == pytest.approx(np.arctan2(*green[eyes, 1:]), abs=0.05)


@pytest.mark.parametrize(('count', 'usual', 'colour_blind'), [(2, 120, 120), (4, 60, 33), (8, 26, 24), (12, 25, 22),
                                                              (20, 20, 15), (60, 9, 8)])
def test_distances(count, usual, colour_blind):
    """12 is about where colours of neighbouring areas are still told apart without looking twice."""
    for length in range(2, count + 1):
        found = nearest([f'thing {index}' for index in range(length)])
        assert found[0] >= usual and min(found[1:]) >= colour_blind, (length, found)


def test_the_first_colours_are_those_of_okabe_and_ito():
    assert {*class_colours(('a', 'b', 'c', 'd', 'e'))} < {*OKABE_ITO}


def test_colours_in_names():
    for name, colour in {'yellow checks': 'yellow', 'Red-haired dog': 'red', 'sofa, GRAY couch': 'grey',
                         'golden retriever': 'yellow', 'greenhouse': None, 'hundred': None, 'blue_box': 'blue',
                         'whiteboard': None, 'a black and white cow': 'black', 'orange': 'orange', 'PİNK': None,
                         'ſilver': None}.items():
        assert colour_in(name) == colour, name
    assert nearest(Miniature.CLASSES)[0] >= 14 and min(nearest(Miniature.CLASSES)) >= 10  # four of each colour
    assert nearest(SHADES)[0] >= 33 and min(nearest(SHADES)) >= 9  # the plainest shade of each
    hues = [360 * colorsys.rgb_to_hsv(*np.divide(colour, 255))[0] for colour in class_colours(Miniature.CLASSES)]
    for index, hue in enumerate(hues):
        wanted = HUES[COLOURS[index // 4]]
        assert abs((hue - wanted + 180) % 360 - 180) < 25, (Miniature.CLASSES[index], hue)


def test_thousands_of_classes_share_all_colours():
    """Those with a colour in their name, too; computed in a second or two."""
    for name, least in (('thing', 1000), ('red thing', 40)):
        colours = class_colours(tuple(f'{name} {index}' for index in range(3 * least + 1)))
        assert len({*colours[:least]}) == least
        counts = Counter(colours)
        assert max(counts.values()) - min(counts.values()) <= 1 and max(counts.values()) <= 4


def test_all_colours_of_a_result_differ():
    names = ('sky', *(f'{colour} {thing}' for thing in range(8) for colour in ('red', 'gray', 'black', 'white')), 'sea',
             *map(str, range(100)))
    colours = class_colours(names)
    assert len({*colours}) == len(names) and all(0 <= value <= 255 for colour in colours for value in colour)
    assert colours == class_colours(names) and len(class_colours(tuple(map(str, range(3000))))) == 3000
    assert class_colours(('red a', 'sky'))[0] == class_colours(('sea', 'blue b', 'red c'))[2]  # the plainest red


def test_heat_maps():
    """Their lightness rises evenly, for all eyes."""
    for name in (HEAT, WEIGHTS):
        lightness = looks_of(heat_table(name))[..., 0]
        assert (np.diff(lightness[::8], axis=0) > 0).all() and np.ptp(lightness, axis=0).min() > 60
    middle = looks_of(heat_table(DIFFERENCE))[127:129, 0]
    assert middle[:, 0].min() > 90  # light at zero
