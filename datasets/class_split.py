"""Class names of a dataset, their split into seen and unseen, which of them are background, and the prompts."""
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from models.class_names import PROMPT_SETS, lines_of, synonyms, templates_of
from models.errors import UserError
from models.label_format import label_format

BACKGROUND = 'background'  # name of the class that the classes of a dataset's background are scored as


@dataclass(frozen=True)
class ClassSplit:
    """All class names in order, and the unseen ones: training never uses their masks.

    A name may hold synonyms, separated by commas; blanks around them are removed.

    Raises:
        UserError: there are more classes than label maps hold, a name is empty, two classes have the same names, an
            unseen one is not a class, or all are unseen.
    """
    names: tuple[str, ...]
    unseen_names: tuple[str, ...] = ()

    def __post_init__(self):
        label_format(len(self.names))
        for index, name in enumerate(self.names):
            if not isinstance(name, str) or not all(synonyms(name)):
                raise UserError(f'class {index} is named {name!r}: a name is needed, or several separated by commas.')
        for field in ('names', 'unseen_names'):  # a frozen dataclass is changed so
            object.__setattr__(self, field, tuple(', '.join(synonyms(str(name))) for name in getattr(self, field)))
        _check_repeated([', '.join(sorted(_as_clip_reads(name))) for name in self.names])
        unknown = [name for name in self.unseen_names if name not in self.names]
        if unknown:
            raise UserError(f'unseen names unknown classes: {"; ".join(unknown)}. The classes of the dataset: '
                            f'{"; ".join(self.names)}. Choose from them: unseen=[...], or a text file.')
        if len(set(self.unseen_names)) == len(self.names):
            raise UserError('all classes are unseen: training needs at least one seen class.')

    @property
    def seen(self) -> list[int]:
        """Return the indices of the seen classes."""
        return [index for index, name in enumerate(self.names) if name not in self.unseen_names]

    @property
    def unseen(self) -> list[int]:
        """Return the indices of the unseen classes."""
        return [index for index, name in enumerate(self.names) if name in self.unseen_names]


@dataclass(frozen=True)
class DatasetFacts:
    """The split, the prompts and the background of a dataset, known without opening its files.

    Raises:
        UserError: a name of the background is not a class, or nothing is left beside it.
    """
    split: ClassSplit
    prompt_set: str | tuple[str, ...]  # a name or templates; a text file becomes its lines
    background: tuple[str, ...] = ()  # classes that scores count as one

    def __post_init__(self):
        if not (isinstance(self.prompt_set, str) and self.prompt_set in PROMPT_SETS):
            object.__setattr__(self, 'prompt_set', self.templates)
        object.__setattr__(self, 'background', tuple(', '.join(synonyms(str(name))) for name in self.background))
        names = self.split.names
        if unknown := [name for name in self.background if name not in names]:
            raise UserError(f'background names unknown classes: {"; ".join(unknown)}. The classes of the dataset: '
                            f'{"; ".join(names)}.')
        if self.background and {*names} <= {*self.background}:
            raise UserError('all classes are background: at least one is needed beside it.')
        if self.background and BACKGROUND in {name.casefold() for name in {*names} - {*self.background}}:
            raise UserError(f'a class is named {BACKGROUND!r}: it belongs into background=[...], too, or needs another '
                            'name.')

    @cached_property
    def scored(self) -> ClassSplit:
        """Return the classes as scores and masks count them.

        These are the classes that are not background in their order, then background if there is any; it is seen.
        """
        if not self.background:
            return self.split
        return ClassSplit(tuple(name for name in self.split.names if name not in self.background) + (BACKGROUND,),
                          tuple(name for name in self.split.unseen_names if name not in self.background))

    @cached_property
    def scored_indices(self) -> list[int]:
        """Return the index of each class, in order, among the `scored` ones."""
        place = {name: index for index, name in enumerate(self.scored.names)}
        return [place[BACKGROUND if name in self.background else name] for name in self.split.names]

    @property
    def templates(self) -> tuple[str, ...]:
        """Return the prompts, each with `{}` for the class name."""
        return templates_of(self.prompt_set)


def listed(names: Sequence[str] | str, kind: str) -> Sequence[str]:
    """Return a list of names unchanged, or the lines of a text file; `kind` of names is for messages.

    Raises:
        UserError: the file is missing, or the argument is neither.
    """
    if isinstance(names, (list, tuple)) or not names:
        return names
    if not isinstance(names, str):
        raise UserError(f'{kind}: a list or a text file is needed, not {names!r}.')
    try:
        return lines_of(names, kind)
    except FileNotFoundError:
        hint = '' if os.path.splitext(names)[1] or os.sep in names else f' For a single name write [{names!r}].'
        raise UserError(f'no text file {names} of {kind}.{hint}') from None


def listed_classes(names: Sequence[str] | str) -> Sequence[str]:
    """Return a user's class names as `listed` does. Benchmarks may share a synonym between classes, users not.

    Raises:
        UserError: a name or synonym belongs to two classes, or see `listed`.
    """
    names = listed(names, 'class names')
    _check_repeated([part for name in names or () if isinstance(name, str) for part in _as_clip_reads(name)])
    return names


def _as_clip_reads(name: str) -> list[str]:
    """Return the names of a class in small letters, with single blanks."""
    return [' '.join(part.split()).casefold() for part in synonyms(name)]


def _check_repeated(names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f'class names occur twice: {"; ".join(repeated)}. Each name or synonym belongs to one class.')
