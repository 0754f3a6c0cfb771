"""What a model must know of a dataset: its class names, which of them are unseen, and its prompts."""
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from models.class_names import PROMPT_SETS, lines_of, synonyms, templates_of
from models.errors import UserError


@dataclass(frozen=True)
class ClassSplit:
    """All class names in order, and those of them whose masks training never shows.

    A name may hold synonyms, separated by commas; blanks around them are removed.

    Raises:
        UserError: a name is empty, or of two classes, or an unseen one is not a class.
    """
    names: tuple[str, ...]
    unseen_names: tuple[str, ...] = ()

    def __post_init__(self):
        for index, name in enumerate(self.names):
            if not isinstance(name, str) or not all(synonyms(name)):
                raise UserError(f'class {index} is named {name!r}: a name, or names with commas between them, is '
                                'needed.')
        for field in ('names', 'unseen_names'):  # frozen: this is the way
            object.__setattr__(self, field, tuple(', '.join(synonyms(str(name))) for name in getattr(self, field)))
        words = Counter(' '.join(word.split()).casefold() for name in self.names for word in synonyms(name))
        twice = [word for word, count in words.items() if count > 1]  # CLIP reads small letters
        if twice:
            raise UserError(f'class names occur twice: {"; ".join(twice)}. A name, also one of several, is of one '
                            'class.')
        strangers = [name for name in self.unseen_names if name not in self.names]
        if strangers:
            raise UserError(f'unseen names classes that the dataset lacks: {"; ".join(strangers)}. Its classes: '
                            f'{"; ".join(self.names)}. Name unseen ones of these: unseen=[...], or a text file.')
        if len(set(self.unseen_names)) == len(self.names):
            raise UserError('the split leaves no seen class to train on.')

    @property
    def seen(self) -> list[int]:
        """Indices of the seen classes."""
        return [index for index, name in enumerate(self.names) if name not in self.unseen_names]

    @property
    def unseen(self) -> list[int]:
        """Indices of the unseen classes."""
        return [index for index, name in enumerate(self.names) if name in self.unseen_names]


@dataclass(frozen=True)
class DatasetFacts:
    """What a model must know of a dataset; told without looking at a file of it."""
    split: ClassSplit
    prompt_set: str | tuple[str, ...]  # a name, or templates, whose place a text file of them may take at first

    def __post_init__(self):
        if not (isinstance(self.prompt_set, str) and self.prompt_set in PROMPT_SETS):
            object.__setattr__(self, 'prompt_set', self.templates)  # frozen: this is the way

    @property
    def templates(self) -> tuple[str, ...]:
        return templates_of(self.prompt_set)


def listed(names: Sequence[str] | str, what: str) -> Sequence[str]:
    """The names themselves, or the lines of the text file that is named instead.

    Raises:
        UserError: there is no such file.
    """
    if isinstance(names, (list, tuple)) or not names:
        return names
    if not isinstance(names, str):
        raise UserError(f'{what}: a list is needed, or a text file, not {names!r}.')
    try:
        return lines_of(names, what)
    except FileNotFoundError:
        single = '' if os.path.splitext(names)[1] or os.sep in names else f' A single name is a list, too: [{names!r}].'
        raise UserError(f'no text file {names} of {what}.{single}') from None
