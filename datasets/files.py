"""Images and masks in folders: found, or what lacks and how to fix it."""
import os
import re
from pathlib import Path

from models.errors import UserError

ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def images_in(folder: str, suffix: str, masks: str | None = None, mask_suffix: str = '') -> list[str]:
    """List the images in a folder and below by their paths in it, in order. Hidden files and folders are skipped.

    Args:
        suffix: of the images, which must be of one kind.
        masks: the folder of the masks, which may be the same one, or in it.
        mask_suffix: of the masks.

    Raises:
        UserError: there are images of other endings than `suffix`, or a link that leads nowhere or in a circle.
    """
    names, lost, left = [], [], [folder]
    while left:
        for entry in os.scandir(left.pop()):
            path = Path(entry.path)
            if entry.name[0] == '.' or masks and entry.is_dir() and path.resolve() == Path(masks).resolve():
                continue
            if entry.is_dir():
                if path.parent.resolve().is_relative_to(path.resolve()):
                    raise UserError(f'{path}: this link leads back to a folder that it is in. Remove it.')
                left.append(entry.path)
            else:
                (names if entry.is_file() else lost).append(os.path.relpath(entry.path, folder))
    lost = sorted(name for name in lost if name.endswith(suffix))
    if lost:
        raise UserError(f'{folder}: links to no image: {some(lost)}. Mend or remove them.')
    if masks and os.path.realpath(masks) == os.path.realpath(folder):  # of two endings that fit the longer one tells
        names = [name for name in names if not (name.endswith(mask_suffix) and
                                                (len(mask_suffix) > len(suffix) or not name.endswith(suffix)))]
    endings = {os.path.splitext(name)[1] for name in names}
    others = sorted(ending for ending in endings if ending.lower() in ENDINGS and not suffix.endswith(ending))
    if others:
        raise UserError(f'{folder} holds {", ".join(others)} files, and img_suffix is {suffix!r}: only those '
                        'would be read. Name the right img_suffix, or convert the images to one kind.')
    return sorted(name for name in names if name.endswith(suffix))


def require(folder: str, names: list[str], what: str, option: str) -> None:
    """Looks for files, by one listing of their folder instead of a look at each.

    Args:
        what: the files are, for the message, as in 'mask'.
        option: the dataset's argument that says their ending.

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
            'Put it there, or list only whole pairs of image and mask in a file (split=FILE in the config, ' \
            'names without endings).'
        raise UserError(f'{folder}: {what} missing: {some(missing)}. {remedy}')


def some(names: list[str]) -> str:
    """The first three, and how many more there are."""
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
