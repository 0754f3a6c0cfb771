"""Class names as people write them, and the prompts that CLIP embeds them in (CLIP, section 3.1.4).

A dataset names the prompt set of its published embeddings.
"""
import re
from collections.abc import Sequence
from pathlib import Path

from .errors import UserError
from .text_files import lines_of

PROMPT_SETS = {
    'single': ('a photo of a {}',),
    'coco15': (
        'a photo of a {}.',
        'a photo of a small {}.',
        'a photo of a medium {}.',
        'a photo of a large {}.',
        'This is a photo of a {}.',
        'This is a photo of a small {}.',
        'This is a photo of a medium {}.',
        'This is a photo of a large {}.',
        'a {} in the scene.',
        'a photo of a {} in the scene.',
        'There is a {} in the scene.',
        'There is the {} in the scene.',
        'This is a {} in the scene.',
        'This is the {} in the scene.',
        'This is one {} in the scene.',
    ),
    'imagenet80': None,  # CLIP's own for ImageNet, read from open_clip
}


def templates_of(prompt_set: str | Sequence[str]) -> tuple[str, ...]:
    """Return the templates of a named set, of a text file (one a line) or of a list, each with one `{}`.

    Raises:
        UserError: the set is unknown or empty, or a template does not have exactly one `{}`.
    """
    if isinstance(prompt_set, (list, tuple)):
        templates = tuple(prompt_set)
    elif not isinstance(prompt_set, str):
        raise UserError(f'prompts={prompt_set!r}: give the name of a prompt set, a text file or a list of texts.')
    elif prompt_set == 'imagenet80':
        from open_clip import OPENAI_IMAGENET_TEMPLATES  # slow to import
        templates = tuple(template('{}') for template in OPENAI_IMAGENET_TEMPLATES)
    elif prompt_set in PROMPT_SETS:
        templates = PROMPT_SETS[prompt_set]
    elif Path(prompt_set).is_file():
        templates = tuple(lines_of(prompt_set, 'prompts'))
    else:
        raise UserError(f'no prompt set and no text file {prompt_set!r}; the sets are {", ".join(PROMPT_SETS)}. Write '
                        'prompts of your own, such as "an aerial photo of a {}", into a text file, one a line, or into '
                        'a list in a config.')
    if not templates:
        raise UserError('a prompt set needs at least one text, such as "a photo of a {}".')
    for template in templates:
        if not isinstance(template, str) or template.count('{}') != 1 or set(template.replace('{}', '')) & set('{}'):
            raise UserError(f'prompt {template!r}: it needs one {{}} for the class name, as in "a photo '
                            'of a {}".')
    return templates


def synonyms(name: str) -> list[str]:
    """Split the names of one class, which commas or "|" separate; the embedding of a class is the mean over all.

    'sofa, couch' and 'sofa|couch' both give ['sofa', 'couch'].
    """
    return [part.strip() for part in name.replace('|', ',').split(',')]


def parse_class_names(text: str) -> list[str]:
    """Split a text such as 'cat, sofa|couch' into class names: ['cat', 'sofa, couch'].

    Commas, semicolons and line ends separate classes, "|" separates the names of one class. In a text file, with one
    class a line, commas separate the names of one class: use `lines_of`, whose lines `clean_class_names` and
    `synonyms` read.
    """
    return [', '.join(part for part in synonyms(name) if part) for name in re.split('[,;\n]', text)]


def clean_class_names(names: Sequence[str | Sequence[str]], *, allow_empty: bool = False) -> list[str]:
    """Normalise class names: commas between synonyms, single blanks, no empty names, no duplicates.

    Args:
        names: each one name, several separated by commas or "|", or a sequence of synonyms.
        allow_empty: return an empty list where no name is left, instead of raising.

    Raises:
        UserError: no name is left, or one is not text.
    """
    if isinstance(names, str):
        raise UserError(f'class names must be a list, such as [{names!r}]; parse_class_names splits a text.')
    cleaned: dict[str, str] = {}
    for name in names:
        parts = synonyms(name) if isinstance(name, str) else list(name) if isinstance(name, (list, tuple)) else [name]
        if not all(isinstance(part, str) for part in parts):
            raise UserError(f'{name!r} is not a class name: text is required.')
        parts = [' '.join(part.split()) for part in parts
                 if any(letter.isprintable() and not letter.isspace() for letter in part)]
        parts = list({part.casefold(): part for part in reversed(parts)}.values())[::-1]  # CLIP ignores case
        if parts:
            cleaned.setdefault(', '.join(parts).casefold(), ', '.join(parts))
    if not (cleaned or allow_empty):
        raise UserError('no class names: name what to look for, such as "cat, sofa, potted plant".')
    return list(cleaned.values())
