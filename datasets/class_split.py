"""Class names of a dataset, their split into seen and unseen, and the prompts for them."""
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from models.class_names import PROMPT_SETS, lines_of, synonyms, templates_of
from models.errors import UserError
from models.label_format import label_format


@dataclass(frozen=True)
class ClassSplit:
    """All class names in order, and the unseen ones: training never uses their masks.

    A name may hold synonyms, separated by commas; blanks around them are removed.

    Raises:
        UserError: a name is empty or belongs to two classes, an unseen one is not a class, or all are unseen.
    """
    names: tuple[str, ...]
    unseen_names: tuple[str, ...] = ()

    def __post_init__(self):
        label_format(len(self.names))  # raises for more classes than labels
        for index, name in enumerate(self.names):
            if not isinstance(name, str) or not all(synonyms(name)):
                raise UserError(f'class {index} is named {name!r}: a name is needed, or several separated by commas.')
        for field in ('names', 'unseen_names'):  # a frozen dataclass is changed so
            object.__setattr__(self, field, tuple(', '.join(synonyms(str(name))) for name in getattr(self, field)))
        counts = Counter(' '.join(part.split()).casefold() for name in self.names for part in synonyms(name))
        repeated = [name for name, count in counts.items() if count > 1]  # CLIP lowercases them
        if repeated:
            raise UserError(f'class names occur twice: {"; ".join(repeated)}. Each name or synonym belongs to one '
                            'class.')
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
    """The split and the prompts of a dataset, known without opening its files."""
    split: ClassSplit
    prompt_set: str | tuple[str, ...]  # a name or templates; a text file becomes its lines

    def __post_init__(self):
        if not (isinstance(self.prompt_set, str) and self.prompt_set in PROMPT_SETS):
            object.__setattr__(self, 'prompt_set', self.templates)

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
