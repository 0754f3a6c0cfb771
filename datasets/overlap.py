"""Find the classes of a test whose names a training had, in another spelling or as a synonym."""
import re
from collections.abc import Sequence
from functools import cache

from models.class_names import synonyms

from .benchmarks import (
    ADE20K150,
    ADE20K847,
    VOCABULARIES,
    COCOStuff164k,
    PascalContext59,
    PascalContext459,
    PascalVOC20,
    PascalVOC20b,
)
from .class_split import BACKGROUND

CLEANED = {'voc20': PascalVOC20, 'voc20b': PascalVOC20b, 'context59': PascalContext59, 'context459': PascalContext459,
           'ade20k150': ADE20K150, 'ade847': ADE20K847, 'cocostuff171': COCOStuff164k}  # files in vocabularies/cleaned


def known_classes(names: Sequence[str], trained: Sequence[str]) -> dict[str, str]:
    """Return the classes among `names` that have a name in common with a class among `trained`, and that class.

    Names are compared in small letters, without blanks, hyphens and underscores. The names of a class are its synonyms
    and those that any cleaned vocabulary gives to a class of the same name: VOC's 'sofa' is COCO-Stuff's 'couch', and
    'wall' is 'wall-other'. Nothing else is compared: 'cloud' and 'clouds' are one only because a vocabulary lists both,
    'bird' and 'animal' are two. Background is no class that a name asks for, and is never known.
    """
    owners: dict[str, str] = {}
    for spelled_by in (_own_names, _names):  # a class's own names come first
        for name in trained:
            for spelling in spelled_by(name):
                owners.setdefault(spelling, name)
    return {name: found for name in names if name != BACKGROUND
            and (found := next(filter(None, map(owners.get, _names(name))), None))}


def _own_names(name: str) -> list[str]:
    return [re.sub(r'[\s_-]', '', part).casefold() for part in synonyms(name)]


def _names(name: str) -> list[str]:
    """Return the spellings of a class to compare, its own first."""
    own = _own_names(name)
    return list(dict.fromkeys([*own, *_cleaned().get(frozenset(own), ())]))


@cache
def _cleaned() -> dict[frozenset[str], list[str]]:
    """Read the names that the cleaned vocabularies give to a class, by the class's own names."""
    found: dict[frozenset[str], list[str]] = {}
    for file, cls in CLEANED.items():
        lines = (VOCABULARIES / 'cleaned' / f'{file}.txt').read_text().splitlines()
        for name, line in zip(cls.CLASSES, lines, strict=True):
            found.setdefault(frozenset(_own_names(name)), []).extend(_own_names(line))
    return found
