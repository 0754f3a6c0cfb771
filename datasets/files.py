"""Pictures and masks in folders: found, or what lacks and how to mend it."""
import os
import re
from pathlib import Path

from models.errors import UserError


def pictures_in(folder: str, suffix: str) -> list[str]:
    """Paths, relative to the folder, of its pictures, which must be of one kind.

    Raises:
        UserError: there are pictures of other endings than `suffix`, or a link that leads in a circle.
    """
    names = []
    for place, _, files in os.walk(folder, followlinks=True):
        if Path(place).parent.resolve().is_relative_to(Path(place).resolve()):
            raise UserError(f'{place}: this link leads back to a folder that it is in. Remove it.')
        names += [os.path.relpath(os.path.join(place, name), folder) for name in files if name[0] != '.']
    endings = {ending for ending in (os.path.splitext(name)[1] for name in names)
               if ending.lower() in ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')}
    others = sorted(ending for ending in endings if not suffix.endswith(ending))
    if others:
        raise UserError(f'{folder} holds {", ".join(others)} files, and img_suffix is {suffix!r}: only those '
                         'would be read. Name the right img_suffix, or convert the pictures to one kind.')
    return [name for name in names if name.endswith(suffix)]


def require(folder: str, names: list[str], what: str, option: str) -> None:
    """Looks for files, by one listing of their folder instead of a look at each.

    Args:
        what: the files are, for the message, as in 'mask'.
        option: the data set's argument that says their ending.

    Raises:
        UserError: some are missing.
    """
    present = set(os.listdir(folder))
    missing = [name for name in names
               if name not in present and not ('/' in name and os.path.isfile(os.path.join(folder, name)))]
    if missing:
        place, stem = os.path.split(os.path.splitext(missing[0])[0])
        siblings = os.listdir(os.path.join(folder, place)) if os.path.isdir(os.path.join(folder, place)) else []
        near = sorted(name for name in siblings if re.match(re.escape(stem) + '[^0-9A-Za-z]', name))
        remedy = f'There is {near[0]}: name its ending, as it is written, in {option}.' if near else \
            'Put it there, or list only whole pairs of picture and mask in a file (split=FILE in the config, ' \
            'names without endings).'
        raise UserError(f'{folder}: {what} missing: {some(missing)}. {remedy}')


def some(names: list[str]) -> str:
    """The first three, and how many more there are."""
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
