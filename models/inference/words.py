"""Words as people type them -> class names with their synonyms."""
from collections.abc import Sequence

from ..class_names import synonyms
from ..errors import UserError


def parse_words(text: str) -> list[str]:
    """'cat, sofa|couch' -> ['cat', 'sofa, couch']: commas, semicolons or line ends part words, | parts synonyms."""
    for separator in ';\n':
        text = text.replace(separator, ',')
    return [', '.join(part.strip() for part in word.split('|') if part.strip()) for word in text.split(',')]


def clean_words(words: Sequence[str | Sequence[str]], *, none_will_do: bool = False) -> list[str]:
    """Words as they are used: synonyms with commas between, single blanks, no blank ones, none twice.

    Args:
        words: each a word, several with commas between (synonyms), or a sequence of synonyms.

    Raises:
        UserError: none is left, unless that will do, or one is no text.
    """
    if isinstance(words, str):
        raise UserError(f'words is a list of texts, such as [{words!r}]; parse_words splits a text at its commas.')
    kept: dict[str, str] = {}
    for word in words:
        parts = synonyms(word) if isinstance(word, str) else list(word) if isinstance(word, (list, tuple)) else [word]
        if not all(isinstance(part, str) for part in parts):
            raise UserError(f'{word!r} is no word: a text is needed.')
        parts = [' '.join(part.split()) for part in parts if _shows(part)]
        parts = list({part.casefold(): part for part in reversed(parts)}.values())[::-1]
        if parts:
            kept.setdefault(', '.join(parts).casefold(), ', '.join(parts))  # CLIP reads small letters
    if not (kept or none_will_do):
        raise UserError('no words: name what to look for, such as "cat, sofa, potted plant".')
    return list(kept.values())


def _shows(text: str) -> bool:
    """False for blanks and what is as invisible, such as control characters."""
    return any(letter.isprintable() and not letter.isspace() for letter in text)
