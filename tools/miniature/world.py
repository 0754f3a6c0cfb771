#!/usr/bin/env python3
"""Draw the miniature's world in VOC's folder layout: `python tools/miniature/world.py FOLDER`.

An image shows a few shapes, each with a colour and a pattern, on soft noise with thin lines and dots of any colour.
It depends on its seed alone.
"""
import argparse
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

sys.path[0] = str(Path(__file__).resolve().parents[2])  # so that `datasets` and `tools` are this repository's
import models  # noqa: F401  first: silences the notices of mmcv's import

# isort: split
import cv2
import numpy as np
from PIL import Image

from datasets.miniature import COLOURS, PATTERNS, Miniature
from models.errors import UserError
from tools.engine.arguments import positive_int
from tools.engine.errors import run
from tools.engine.files import make_folder

SIZE = 128  # pixels a side
HUES = {'red': 0, 'yellow': 55, 'green': 125, 'blue': 220, 'purple': 290}  # degrees
OUTLINES = (4, 5, 40)  # corners: squares, pentagons, circles
# Kind of classes -> the class of a combination of colour and pattern.
GROUPINGS = {'combinations': lambda index: index, 'colours': lambda index: index // len(PATTERNS),
             'patterns': lambda index: index % len(PATTERNS)}


class Scene(NamedTuple):
    image: np.ndarray  # (SIZE, SIZE, 3) uint8, RGB
    labels: np.ndarray  # (SIZE, SIZE) uint8: 0 background, 1 + index of the class elsewhere
    classes: list[int]  # one for each object, from the farthest to the nearest


def outline(centre: np.ndarray, radius: float, outlines: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Return the corners (n, 2) of a regular polygon at a random angle."""
    corners = random.choice(outlines)
    angles = random.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(corners) / corners
    return centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def pattern(kind: str, side: int, random: np.random.Generator) -> np.ndarray:
    """Return the share of the second tone at each pixel, (side, side, 1) in 0..1."""
    angle, scale = random.uniform(-0.3, 0.3), random.uniform(0.85, 1.15)
    x, y = np.meshgrid(*(np.arange(side, dtype=np.float32) + random.uniform(0, 20) for _ in range(2)))
    across, down = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y

    def sine(pixels: np.ndarray, period: float) -> np.ndarray:
        return np.sin(2 * np.pi / (period * scale) * pixels)

    wave = {'paint': lambda: np.full((side, side), -1, np.float32),
            'stripes': lambda: sine(down, 13),
            'dots': lambda: sine(across, 10) + sine(down, 10) - 0.7,
            'checks': lambda: 2 * sine(across, 20) * sine(down, 20)}[kind]()
    return (0.5 + 2 * wave).clip(0, 1)[..., None]


def paint(canvas: np.ndarray, points: np.ndarray, colour: str, kind: str, random: np.random.Generator) -> None:
    """Fill an outline with a shade of the colour, patterned with a dark second tone."""
    (left, top), (right, bottom) = np.floor(points.min(0)).astype(int), np.ceil(points.max(0)).astype(int) + 1
    where = pattern(kind, max(right - left, bottom - top), random)
    tone = rgb((HUES[colour] + random.uniform(-9, 9)) % 360, random.uniform(0.65, 1.0), random.uniform(0.6, 1.0))
    inside = slice(max(top, 0), bottom), slice(max(left, 0), right)
    cover = np.zeros((SIZE, SIZE, 1), np.float32)
    polygon(cover, points, 1)
    cover, under = cover[inside], canvas[inside]
    where = where[inside[0].start - top:, inside[1].start - left:][:cover.shape[0], :cover.shape[1]]
    canvas[inside] = under * (1 - cover) + cover * (tone * (1 - where) + 0.2 * tone * where)


def rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    return 255 * cv2.cvtColor(np.array([[[hue, saturation, value]]], np.float32), cv2.COLOR_HSV2RGB)[0, 0]


def soft_noise(cells: int, random: np.random.Generator) -> np.ndarray:
    """Draw smooth noise between about -1 and 1, (SIZE, SIZE, 1)."""
    return cv2.resize(random.uniform(-1, 1, (cells, cells)).astype(np.float32), (SIZE, SIZE),
                      interpolation=cv2.INTER_CUBIC)[..., None]


def polygon(canvas: np.ndarray, points: np.ndarray, colour, *, smooth: bool = True) -> None:
    cv2.fillPoly(canvas, [np.round(points * 16).astype(np.int32)], [float(value) for value in np.atleast_1d(colour)],
                 lineType=cv2.LINE_AA if smooth else cv2.LINE_8, shift=4)


def background(random: np.random.Generator) -> np.ndarray:
    """Draw noise in dull colours with lines and dots of any colour, (SIZE, SIZE, 3) float32."""
    canvas = np.empty((SIZE, SIZE, 3), np.float32)
    canvas[:] = rgb(random.uniform(0, 360), random.uniform(0, 0.25), random.uniform(0.25, 0.85))
    canvas += soft_noise(6, random) * random.uniform(10, 30, 3).astype(np.float32)
    for _ in range(random.integers(4, 10)):
        ends = random.integers(0, SIZE, (2, 2))
        colour = rgb(random.uniform(0, 360), random.uniform(0.2, 1), random.uniform(0.3, 1)).tolist()
        if random.random() < 0.5:
            cv2.line(canvas, ends[0].tolist(), ends[1].tolist(), colour, int(random.integers(1, 3)), cv2.LINE_AA)
        else:
            cv2.circle(canvas, ends[0].tolist(), int(random.integers(2, 5)), colour, -1, cv2.LINE_AA)
    return canvas


def draw_scene(seed: int | list[int], *, objects: tuple[int, int] = (2, 4), radii: tuple[float, float] = (16, 30),
               outlines: tuple[int, ...] = OUTLINES) -> Scene:
    """Draw the scene of a seed.

    Args:
        objects: lowest and highest number of objects.
        radii: smallest and largest radius of an object in pixels.
        outlines: numbers of corners to choose from.
    """
    random = np.random.default_rng(seed)
    canvas = background(random)
    labels = np.zeros((SIZE, SIZE), np.uint8)
    placed: list[tuple[np.ndarray, float]] = []
    classes = []
    for _ in range(random.integers(objects[0], objects[1] + 1)):
        radius = random.uniform(*radii)
        for _ in range(20):  # until it covers little of the others
            centre = random.uniform(0.7 * radius, SIZE - 0.7 * radius, 2)
            if all(np.hypot(*(centre - other)) > 0.95 * (radius + reach) for other, reach in placed):
                break
        else:
            continue
        placed.append((centre, radius))
        colour, kind = random.integers(len(COLOURS)), random.integers(len(PATTERNS))
        classes.append(int(colour * len(PATTERNS) + kind))
        points = outline(centre, radius, outlines, random)
        paint(canvas, points, COLOURS[colour], PATTERNS[kind], random)
        polygon(labels, points, 1 + classes[-1], smooth=False)
    shade = 1 + 0.15 * soft_noise(4, random)
    canvas = canvas * shade + random.normal(0, random.uniform(2, 10), canvas.shape)
    return Scene(canvas.clip(0, 255).astype(np.uint8), labels, classes)


def swatch(index: int) -> np.ndarray:
    """Draw the canonical look of a class, (SIZE, SIZE, 3) uint8."""
    colour, kind = divmod(index, len(PATTERNS))
    canvas = np.zeros((SIZE, SIZE, 3), np.float32)
    everywhere = np.array([[0, 0], [SIZE, 0], [SIZE, SIZE], [0, SIZE]])
    paint(canvas, everywhere, COLOURS[colour], PATTERNS[kind], np.random.default_rng(4))
    return canvas.clip(0, 255).astype(np.uint8)


def write_world(folder: Path, *, train: int, val: int, seed: int, classes: str = 'combinations',
                outlines: tuple[int, ...] = OUTLINES) -> None:
    """Write the whole dataset; the folder appears when it is complete.

    Args:
        train, val: number of images.
        classes: a key of GROUPINGS; 'colours' and 'patterns' make other datasets of the same appearance.
        outlines: numbers of corners of its shapes.
    """
    part = folder.with_name(f'{folder.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    for name in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (part / name).mkdir(parents=True)
    ids = np.array([0, *(1 + GROUPINGS[classes](index) for index in range(len(Miniature.CLASSES)))], dtype=np.uint8)
    for split, count, split_seed in (('train', train, 2 * seed), ('val', val, 2 * seed + 1)):
        names = [f'{split}_{index:05d}' for index in range(count)]
        for index, name in enumerate(names):
            scene = draw_scene([split_seed, index], outlines=outlines)
            Image.fromarray(scene.image).save(part / f'JPEGImages/{name}.jpg', quality=95)
            mask = Image.fromarray(ids[scene.labels], mode='P')
            mask.putpalette([0, 0, 0, *np.ravel(Miniature.PALETTE)])
            mask.save(part / f'SegmentationClass/{name}.png')
        (part / f'ImageSets/Segmentation/{split}.txt').write_text(''.join(f'{name}\n' for name in names))
    part.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the miniature's world.")
    parser.add_argument('folder', type=Path, help='folder to create, in the layout of VOC')
    parser.add_argument('--train', type=positive_int, default=1000, help='images for training (default: 1000)')
    parser.add_argument('--val', type=positive_int, default=200, help='images for testing (default: 200)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the images (default: 0)')
    parser.add_argument('--classes', choices=GROUPINGS, default='combinations',
                        help='kind of classes (default: combinations)')
    parser.add_argument('--corners', type=int, nargs='+', default=OUTLINES, help='numbers of corners of its shapes')
    args = parser.parse_args()
    if args.folder.exists():
        raise UserError(f'{args.folder} exists already: remove it to draw the world again.')
    make_folder(args.folder.absolute().parent)
    if min(args.corners) < 3:
        raise UserError(f'--corners {min(args.corners)}: a shape has at least 3 corners.')
    write_world(args.folder, train=args.train, val=args.val, seed=args.seed, classes=args.classes,
                outlines=tuple(args.corners))


if __name__ == '__main__':
    run(main)
