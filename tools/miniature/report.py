#!/usr/bin/env python3
"""Print the scores of a quickstart and draw its results: `python tools/miniature/report.py WORK_DIR`.

Writes results.json (scores as fractions) and results.png (images of unseen classes) to WORK_DIR.
"""
import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # so that `datasets` and `tools` are this repository's
import models  # noqa: F401  first: silences the notices of mmcv's import

# isort: split
import numpy as np
from mmseg.utils import get_root_logger
from PIL import Image
from prettytable import PrettyTable

from datasets.miniature import Miniature
from models.errors import UserError
from models.inference import load_model
from models.inference.drawing import caption, stack
from tools.engine.errors import run
from tools.engine.files import atomic_path
from tools.engine.model_arguments import THRESHOLD
from tools.engine.panels import beside
from tools.miniature.world import SIZE, swatch

SCORES = ('mIoU_seen', 'mIoU_unseen', 'hIoU')
TITLES = {'inductive': 'inductive', 'transductive': 'transductive',
          'control': 'control: inductive, unseen names swapped'}  # by folder
MARGIN, TITLE = 10, 110  # pixels; the width of a row's title
IGNORED = (236, 236, 236)  # colour of pixels of no class


def read_scores(folder: Path) -> dict[str, float]:
    """Return the scores of the newest test in a work folder, as fractions.

    Raises:
        UserError: there is none, or the file is damaged.
    """
    files = sorted(folder.glob('eval_*.json'), key=lambda file: file.stat().st_mtime)
    if not files:
        raise UserError(f'no eval_*.json in {folder}: its test has not ended.')
    try:
        return json.loads(files[-1].read_text())['metric']
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{files[-1]} is damaged: remove it, and test again.') from error


def read_mask(path: Path) -> np.ndarray:
    """Read a mask file as class indices (SIZE, SIZE), 255 for no class."""
    with Image.open(path) as image:
        return np.asarray(image) - np.uint8(1)  # 0 becomes 255


def patterned(labels: np.ndarray) -> Image.Image:
    """Draw a label map (SIZE, SIZE), each class in its own colour and pattern."""
    canvas = np.full((SIZE, SIZE, 3), IGNORED, np.uint8)
    for index in np.unique(labels[labels != 255]):
        canvas[labels == index] = swatch(index)[labels == index]
    return Image.fromarray(canvas)


def results_image(world: Path, runs: dict[str, Path], threshold: float, count: int = 8) -> Image.Image:
    """Draw the first `count` test images that show an unseen class: image, truth, and two rows for each model.

    The first row of a model is what scores count: the best class of each pixel inside the truth's outlines. The second
    one is the segmentation of the whole image, where a best score below the threshold means background.

    Args:
        runs: title -> work folder with latest.pth.
        threshold: between 0 and 1.
    """
    names = (world / 'ImageSets/Segmentation/val.txt').read_text().split()
    unseen = Miniature.describe().split.unseen
    truths = {name: read_mask(world / f'SegmentationClass/{name}.png') for name in names}
    chosen = [name for name in names if np.isin(truths[name], unseen).any()][:count]
    images = [Image.open(world / f'JPEGImages/{name}.jpg') for name in chosen]
    rows = [('image', images), ('truth', [patterned(truths[name]) for name in chosen])]
    for title, folder in runs.items():
        model = load_model(folder / 'latest.pth', device='cpu')
        best = [result.labels for result in model.segment(images)]
        rows.append((title, [patterned(np.where(truths[name] == 255, 255, labels))
                             for name, labels in zip(chosen, best, strict=True)]))
        rows.append(('whole image', [patterned(result.labels)
                                     for result in model.segment(images, threshold=threshold)]))

    drawn = [beside([caption(title, TITLE, 16), *images], MARGIN) for title, images in rows]
    looks = [beside([Image.fromarray(swatch(index)).crop((0, 0, 36, 36)), caption(
        f'{name} (unseen)' if index in unseen else name, 190, 16)], MARGIN)
        for index, name in enumerate(Miniature.CLASSES)]
    legend = [beside(looks[row::4], 0) for row in range(4)]
    notes = ['Grey: background, which is no class and is not scored. In the rows "whole image" it is where the best',
             f'score is below {threshold:g}; in the rows above these it is that of the truth.']
    return stack([*drawn, *legend, *(beside([caption(note, size=16)], MARGIN) for note in notes)])


def main() -> None:
    parser = argparse.ArgumentParser(description='Print the scores of a quickstart and draw its results.')
    parser.add_argument('work_dir', type=Path, help='folder of the quickstart')
    work = parser.parse_args().work_dir
    scores = {title: read_scores(work / name) for name, title in TITLES.items()}
    with atomic_path(work / 'results.json') as file:
        file.write_text(json.dumps({title: {name: values[name] for name in SCORES}
                                    for title, values in scores.items()}, indent=1) + '\n')
    with atomic_path(work / 'results.png') as file:
        results_image(work / 'world', {name: work / name for name in ('inductive', 'transductive')}, THRESHOLD
                      ).save(file)
    table = PrettyTable(['mIoU in percent', 'seen', 'unseen', 'hIoU'], align='r')
    table.align['mIoU in percent'] = 'l'
    for title, values in scores.items():
        table.add_row([title, *(f'{100 * values[name]:.1f}' for name in SCORES)])
    print(table)
    print(f'{work}/results.png: results on images of unseen classes')


if __name__ == '__main__':
    get_root_logger().setLevel('ERROR')  # the table and the image show what warnings would say of a short run
    run(main)
