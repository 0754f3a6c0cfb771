"""Segments images and folders of images for tools/demo.py, and draws contact sheets."""
import json
import os
import re
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from mmseg.utils import get_root_logger
from PIL import Image, ImageOps
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from models.class_names import templates_of
from models.colours import UNLABELLED
from models.errors import UserError
from models.image_io import ENDINGS
from models.inference import Result, Segmenter, drawing, read_image
from models.inference.result import legend_lines, more_classes
from models.weights.files import locate
from tools.engine.panels import beside

OWN_RESULT = re.compile(r'\.(overlay|labels)\.png$|^contact_sheet(_\d+)?\.png$')
IMAGES_PER_BATCH = 8  # on a GPU
THUMBNAIL, COLUMNS, ROWS, MARGIN = 256, 6, 8, 6  # of a contact sheet, in pixels and images


def find_images(folder: Path, out: Path) -> dict[str, Path]:
    """Find all images in a folder and below, except results, by the names of their results.

    Names lose the ending where that is unambiguous.

    Raises:
        UserError: there is none.
    """
    files = sorted(Path(place) / name for place, _, names in os.walk(folder) for name in names
                   if name[0] != '.' and Path(name).suffix.lower() in ENDINGS and not OWN_RESULT.search(name))
    if out.resolve() != folder.resolve():
        files = [file for file in files if not file.resolve().is_relative_to(out.resolve())]
    if not files:
        raise UserError(f'{folder} contains no images ({", ".join(ENDINGS)}). Name an image, a video, or the folder '
                        'of the images.')
    stems = Counter(file.with_suffix('') for file in files)
    names = [file.with_suffix('') if stems[file.with_suffix('')] == 1 else file for file in files]
    names = names if len({*names}) == len(names) else files  # an a.png.jpg beside an a.png and an a.jpg
    return {str(name.relative_to(folder)): file for file, name in zip(files, names, strict=True)}


def inputs_of(file: Path, args: Namespace, options: dict) -> dict:
    """Describe all that a result depends on, in plain values: a result with the same inputs is up to date."""
    def stamp(path: str | Path | None) -> list | None:
        if path is None or not os.path.exists(path):  # not given, or a broken link
            return None
        stat = os.stat(path)
        return [Path(path).name, stat.st_size, stat.st_mtime_ns]
    return {'image': stamp(file), 'checkpoint': stamp(locate(args.checkpoint)), 'config': stamp(args.config),
            'clip': stamp(args.clip and locate(args.clip)), 'amp': args.amp, 'opacity': args.opacity, 'top': args.top,
            **options, 'prompts': args.prompts and list(templates_of(args.prompts))}


def is_up_to_date(folder: Path, name: str, inputs: dict, parts: Sequence[str] = ('labels.png', 'overlay.png')) -> bool:
    """Tell whether the results of an image exist and have these inputs."""
    try:
        return all((folder / f'{name}.{part}').is_file() for part in parts) and \
            read_summary(folder, name).get('inputs') == inputs
    except (OSError, ValueError, AttributeError):
        return False


def segment_images(model: Segmenter, files: dict[str, Path], args: Namespace, options: dict, folder: Path
                   ) -> dict[str, dict]:
    """Write the results that are not up to date; return the outlines of all. Each unreadable image is logged.

    Args:
        files: by the names of their results in the folder.
    """
    logger, readable = get_root_logger(), [*files]
    inputs = {name: inputs_of(file, args, options) for name, file in files.items()}
    waiting = [name for name in files if not is_up_to_date(folder, name, inputs[name])]
    if len(waiting) < len(files):
        logger.info('%d of %d are up to date', len(files) - len(waiting), len(files))
    rest = iter(waiting)
    with logging_redirect_tqdm([logger]), tqdm(total=len(waiting), unit='image', disable=None) as progress:
        while batch := list(islice(rest, IMAGES_PER_BATCH if model.device.type == 'cuda' else 1)):
            images = {}
            for name in batch:
                try:
                    images[name] = read_image(files[name])
                except UserError as error:
                    logger.warning('%s', error)
                    readable.remove(name)
            for name, result in zip(images, model.segment(list(images.values()), **options), strict=True):
                save(result, folder, name, inputs[name], top=args.top, opacity=args.opacity)
            progress.update(len(batch))
    return {name: outline(read_summary(folder, name)) for name in readable}


def save(result: Result, folder: Path, name: str, inputs: dict, *, top: int | None, opacity: float | None = None
         ) -> None:
    """Write a result, without an overlay if there is no opacity. The JSON file comes last and completes it."""
    (folder / f'{name}.json').unlink(missing_ok=True)
    result.settings['inputs'] = inputs
    result.save((folder / name).parent, Path(name).name, opacity=opacity, top=top)


def contact_sheets(outlines: dict[str, dict], folder: Path) -> list[Path]:
    """Draw all overlays as thumbnails with their names and one legend: `contact_sheet.png`, or several if many."""
    files, names, per_sheet = [], list(outlines), COLUMNS * ROWS
    for start in range(0, len(names), per_sheet):
        cells, classes = [], {}
        for name in names[start:start + per_sheet]:
            for entry in outlines[name]['classes']:
                classes.setdefault(entry['label'], {**entry, 'area': 0})['area'] += entry['area']
            with Image.open(folder / f'{name}.overlay.png') as image:
                image = image.crop((0, 0, outlines[name]['width'], outlines[name]['height']))  # without its legend
            cells.append(drawing.stack([ImageOps.pad(image, (THUMBNAIL, THUMBNAIL), color='white'),
                                        drawing.caption(name, THUMBNAIL)]))
        rows = [beside(cells[first:first + COLUMNS], MARGIN) for first in range(0, len(cells), COLUMNS)]
        number = '' if len(names) <= per_sheet else f'_{start // per_sheet + 1}'
        files.append(folder / f'contact_sheet{number}.png')
        entries = legend_entries([*classes.values()], outlines[names[0]]['count'])
        drawing.stack([*rows, drawing.legend(entries, rows[0].width)]).save(files[-1])
    return files


def read_summary(folder: Path, name: str) -> dict:
    return json.loads((folder / f'{name}.json').read_text(encoding='utf-8'))


def outline(summary: dict) -> dict:
    """Keep of a summary what does not grow with its classes: a folder may have thousands of both."""
    named, _ = legend_lines([entry['pixels'] for entry in summary['classes']])
    return {'width': summary['width'], 'height': summary['height'], 'warning': summary['warning'],
            'classes': [summary['classes'][index] for index in named], 'count': len(summary['classes'])}


def legend_entries(classes: Sequence[dict], count: int) -> list[tuple[str, Sequence[int]]]:
    """Choose the lines of a legend of several images, largest class first.

    Args:
        classes: `name`, `colour` and `area` of each, or of those in the images' outlines.
        count: of all classes.
    """
    named, _ = legend_lines([entry['area'] for entry in classes])
    rest = [(f'({more_classes(count - len(named))})', UNLABELLED)] if count > len(named) else []
    return [*((classes[index]['name'], classes[index]['colour']) for index in named), *rest]


def log_classes(summary: dict) -> None:
    """Log area and mean score of the classes, largest first; see `legend_lines` for many."""
    logger, size = get_root_logger(), summary['width'] * summary['height']
    pixels = [entry['pixels'] for entry in summary['classes']]
    named, others = legend_lines(pixels)
    for entry in (summary['classes'][index] for index in named):
        score = '   -' if entry['mean_score'] is None else f'{entry["mean_score"]:.2f}'
        logger.info('%5.1f %%  mean score %s  %s', 100 * entry['pixels'] / size, score, entry['name'])
    if others:
        logger.info('%5.1f %%  %s', 100 * sum(pixels[index] for index in others) / size, more_classes(len(others)))
    logger.info('%5.1f %%  unlabelled', 100 * summary['unlabelled']['pixels'] / size)


def warn_of_unreliable(summaries: Sequence[dict]) -> None:
    """Log one warning for all results that have one."""
    warnings = [summary['warning'] for summary in summaries if summary.get('warning')]
    if warnings:
        count = f'{len(warnings)} of {len(summaries)}: ' if len(summaries) > 1 else ''
        get_root_logger().warning('%s%s', count, warnings[0])
