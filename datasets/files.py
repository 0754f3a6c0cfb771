"""Find the images and masks of a dataset; an error names the missing file and the setting to fix."""
import logging
import os
import re

from mmcv.utils import print_log
from mmseg.utils import get_root_logger

from models.errors import UserError
from models.image_io import ENDINGS
from models.text_files import read_text

REMEDY = 'Check data_root (or --data-root) and the folders in the config. tools/prepare_data.py prepares the ' \
         'benchmarks, and datasets/README.md shows their layouts.'


def samples_of(img_dir: str, img_suffix: str, ann_dir: str | None, seg_map_suffix: str, split: str | None
               ) -> list[dict]:
    """List the samples of a dataset as mmseg does, after checking that every file exists.

    Args:
        split: a text file of image names, one per line without ending; without it all images of `img_dir`.

    Raises:
        UserError: a folder or file is missing, or two settings contradict each other.
    """
    for option, suffix in (('img_suffix', img_suffix), ('seg_map_suffix', seg_map_suffix)):
        if '.' not in suffix:
            raise UserError(f'{option}={suffix!r}: write the dot, too: {"." + suffix!r}.')
    for kind, folder in (('images', img_dir), ('masks', ann_dir)):
        if folder is not None and not os.path.isdir(folder):
            raise UserError(f'no folder {folder} of {kind}. {REMEDY}')
    if ann_dir is not None and os.path.realpath(ann_dir) == os.path.realpath(img_dir) and \
            img_suffix == seg_map_suffix:
        raise UserError(f'{img_dir} holds both images and masks, and both end in {img_suffix}: set another img_suffix '
                        'or seg_map_suffix, such as \'_mask.png\'.')
    if split is not None and not os.path.isfile(split):
        raise UserError(f'no split file {split}. {REMEDY}')
    if split is None:
        source = f'folder {img_dir}'
        stems = [name.removesuffix(img_suffix) for name in images_in(img_dir, img_suffix, ann_dir, seg_map_suffix)]
    else:
        source = f'split file {split}'
        stems = [line.strip().replace('\\', '/') for line in read_text(split).splitlines() if line.strip()]
    if not stems:
        raise UserError(f'the {source} names no image. {REMEDY}')
    distinct = list(dict.fromkeys(stems))
    if len(distinct) < len(stems):
        print_log(f'the {source} names {len(distinct)} different images on {len(stems)} lines; each counts once',
                  logger=get_root_logger(), level=logging.WARNING)
    stems = distinct
    require(img_dir, [stem + img_suffix for stem in stems], 'image', 'img_suffix')
    print_log(f'Loaded {len(stems)} images', logger=get_root_logger())
    if ann_dir is None:
        return [{'filename': stem + img_suffix} for stem in stems]
    require(ann_dir, [stem + seg_map_suffix for stem in stems], 'mask', 'seg_map_suffix')
    return [{'filename': stem + img_suffix, 'ann': {'seg_map': stem + seg_map_suffix}} for stem in stems]


def images_in(folder: str, suffix: str, masks: str | None = None, mask_suffix: str = '') -> list[str]:
    """List the images in a folder and below it as sorted relative paths. Hidden files and folders are skipped.

    Args:
        suffix: ending of the images, which must all be of one kind.
        masks: folder of the masks, which may be `folder` itself or inside it.
        mask_suffix: ending of the masks.

    Raises:
        UserError: images with other endings.
    """
    names, masks = [], masks and os.path.realpath(masks)
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders
                      if name[0] != '.' and os.path.realpath(os.path.join(place, name)) != masks]
        names += [os.path.relpath(os.path.join(place, name), folder) for name in files if name[0] != '.']
    if masks == os.path.realpath(folder):  # if both endings fit, the longer one decides
        names = [name for name in names if not (name.endswith(mask_suffix) and
                                                (len(mask_suffix) > len(suffix) or not name.endswith(suffix)))]
    endings = {os.path.splitext(name)[1] for name in names}
    others = sorted(ending for ending in endings if ending.lower() in ENDINGS and not suffix.endswith(ending))
    if others:
        raise UserError(f'{folder} holds {", ".join(others)} files, and img_suffix is {suffix!r}: only those '
                        'would be read. Set the right img_suffix, or convert the images to one kind.')
    return sorted(name for name in names if name.endswith(suffix))


def require(folder: str, names: list[str], kind: str, option: str) -> None:
    """Check that files exist, by listing their folder once instead of looking at each.

    Args:
        kind: 'image' or 'mask', for the message.
        option: the dataset's argument for their ending.

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
        remedy = f'There is {near[0]}: set {option} to the ending of the files.' if near else \
            'Put it there, or list the complete pairs of image and mask in a file (split=FILE in the config, ' \
            'names without endings).'
        raise UserError(f'{folder}: {kind} missing: {first(missing)}. {remedy}')


def first(names: list[str]) -> str:
    """Join the first three names, and count the rest."""
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
