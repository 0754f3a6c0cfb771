"""The texts that class names are put into. A dataset names the set that its published embeddings were made with."""
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
    'imagenet80': None,  # CLIP's own for ImageNet; open_clip keeps them
}


def templates_of(prompt_set: str | Sequence[str]) -> tuple[str, ...]:
    """The templates of a named set or of a text file, or the given ones, each with one `{}` for the class name.

    Raises:
        UserError: no such set, no template, or one without `{}`.
    """
    if isinstance(prompt_set, (list, tuple)):
        templates = tuple(prompt_set)
    elif not isinstance(prompt_set, str):
        raise UserError(f'prompts={prompt_set!r}: the name of a prompt set, a text file or a list of texts is needed.')
    elif prompt_set == 'imagenet80':
        from open_clip import OPENAI_IMAGENET_TEMPLATES  # slow to import
        templates = tuple(template('{}') for template in OPENAI_IMAGENET_TEMPLATES)
    elif prompt_set in PROMPT_SETS:
        templates = PROMPT_SETS[prompt_set]
    elif Path(prompt_set).is_file():
        templates = tuple(lines_of(prompt_set, 'prompts'))
    else:
        raise UserError(f'no prompt set and no text file {prompt_set!r}; there are {", ".join(PROMPT_SETS)}. Of your '
                        'own texts, such as "an aerial photo of a {}", make a text file, one a line, or in a config a '
                        'list.')
    if not templates:
        raise UserError('a prompt set needs one text at least, such as "a photo of a {}".')
    for template in templates:
        if not isinstance(template, str) or template.count('{}') != 1 or set(template.replace('{}', '')) & set('{}'):
            raise UserError(f'prompt {template!r}: it needs one {{}}, where the class name goes: "a photo of a {{}}".')
    return templates


def synonyms(name: str) -> list[str]:
    """The names of a class: 'sofa, couch' has two, and its embedding is the mean over both."""
    return [part.strip() for part in name.split(',')]
