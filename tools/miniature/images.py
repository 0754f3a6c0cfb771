"""The miniature's images: results side by side, and loss curves."""
import json
import pickle
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from datasets.miniature import Miniature
from tools.miniature.world import SIZE, swatch

MARGIN, LINE = 10, 44  # pixels
NOTHING = (236, 236, 236)


def read_mask(path: Path) -> np.ndarray:
    """Mask file -> (SIZE, SIZE) class indices, 255 where there is none."""
    with Image.open(path) as image:
        return np.asarray(image) - np.uint8(1)  # 0 becomes 255


def patterned(labels: np.ndarray) -> Image.Image:
    """Label map (SIZE, SIZE), 255 for nothing -> each class in its own colour and pattern."""
    canvas = np.full((SIZE, SIZE, 3), NOTHING, np.uint8)
    for index in np.unique(labels[labels != 255]):
        canvas[labels == index] = swatch(index)[labels == index]
    return Image.fromarray(canvas)


def results_image(world: Path, label_files: dict[str, Path], count: int = 8) -> Image.Image:
    """The first test images that show an unseen class: image, truth, and a row for each of `label_files`.

    Background is left out of predictions, as it is left out of scores.
    """
    names = (world / 'ImageSets/Segmentation/val.txt').read_text().split()
    unseen = Miniature.describe().split.unseen
    truths = {index: read_mask(world / f'SegmentationClass/{name}.png') for index, name in enumerate(names)}
    chosen = [index for index, truth in truths.items() if np.isin(truth, unseen).any()][:count]
    rows = {'image': [Image.open(world / f'JPEGImages/{names[index]}.jpg') for index in chosen],
            'truth': [patterned(truths[index]) for index in chosen]}
    for title, file in label_files.items():
        labels = pickle.loads(file.read_bytes())  # our own, written by test.py
        rows[title] = [patterned(np.where(truths[index] == 255, 255, labels[index])) for index in chosen]

    font, title_width = ImageFont.load_default(size=16), 120
    width = title_width + len(chosen) * (SIZE + MARGIN)
    columns = 5
    legend = (-(-len(Miniature.CLASSES) // columns) + 1) * LINE
    canvas = Image.new('RGB', (width, MARGIN + len(rows) * (SIZE + MARGIN) + legend + MARGIN), 'white')
    draw = ImageDraw.Draw(canvas)
    for row, (title, images) in enumerate(rows.items()):
        top = MARGIN + row * (SIZE + MARGIN)
        draw.text((MARGIN, top + SIZE // 2 - 8), title, fill='black', font=font)
        for place, image in enumerate(images):
            canvas.paste(image, (title_width + place * (SIZE + MARGIN), top))
    top = MARGIN + len(rows) * (SIZE + MARGIN) + MARGIN
    for index, name in enumerate(Miniature.CLASSES):
        place = MARGIN + index // 4 * (width // columns), top + index % 4 * LINE
        canvas.paste(Image.fromarray(swatch(index)).crop((0, 0, 36, 36)), place)
        label = f'{name} (unseen)' if index in unseen else name
        draw.text((place[0] + 44, place[1] + 8), label, fill='black', font=font,
                  stroke_width=0.4 if index in unseen else 0)
    note = "Grey: background. It is no class, counts in no score and is left out here: all outlines are the truth's."
    draw.text((MARGIN, top + legend - LINE + 8), note, fill='black', font=font)
    return canvas


def losses(folder: Path) -> tuple[list[int], dict[str, list[float]]]:
    """Iterations and logged losses of a run."""
    lines = {}
    for log in sorted(folder.glob('*.log.json')):
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            if entry.get('mode') == 'train':
                lines[entry['iter']] = entry  # a later log of a resumed run wins
    iterations = sorted(lines)
    return iterations, {name: [lines[i].get(name, np.nan) for i in iterations] for name in LOSSES}


LOSSES = ('loss', 'decode.loss_mask', 'decode.loss_dice', 'decode.recovery_loss_q', 'decode.recovery_loss_k')


def loss_image(folders: dict[str, Path], file: Path) -> None:
    """A panel for each run: its losses, weights included, against the iteration."""
    figure = Figure(figsize=(4.6 * len(folders), 3.4), layout='constrained', dpi=100)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(folders), sharey=True, squeeze=False)[0]
    for panel, (title, folder) in zip(panels, folders.items(), strict=True):
        iterations, curves = losses(folder)
        for name, values in curves.items():
            panel.plot(iterations, values, label=name, linewidth=2.2 if name == 'loss' else 1.2,
                       marker='o' if len(iterations) < 10 else None)
        panel.set(title=title, xlabel='iteration', yscale='log')
        panel.grid(alpha=0.3)
    panels[0].set_ylabel('loss')
    panels[-1].legend(fontsize=8)
    figure.savefig(file)
