"""All choices of colour: of classes, heat maps, differences and lines.

A class whose name has a colour in it gets a shade of that colour ("yellow checks" is yellow); all others get colours
that differ most, also for colour-blind eyes. Heat maps are perceptually uniform.
"""
import re
from collections import Counter, defaultdict
from functools import cache, lru_cache

import cv2
import numpy as np

HEAT = 'magma'  # matplotlib's, of scores from low (dark) to high
WEIGHTS = 'viridis'  # matplotlib's, of weights such as attention
DIFFERENCE = 'RdBu_r'  # matplotlib's, around zero
SEEN, UNSEEN, BOTH = '#0072b2', '#d55e00', '#000000'  # lines of scores (Okabe and Ito): seen, unseen, harmonic mean
MARK, CELL = '#ff2fa0', '#3ddc84'  # outlines over images and heat maps: of what is explained, of a region
NEAR = 20  # distance in CIELAB below which a colour of Okabe and Ito is not preferred
UNLABELLED = (255, 255, 255)  # in a legend

# Okabe and Ito, "Color Universal Design" (2008), without black: the first colours of classes without one in their name.
OKABE_ITO = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66))
# Colour in a name -> its shades, the plainest first.
SHADES = {
    'red': ('dc141e', '8f0a14', 'ff6b61', 'b8443e', 'ff9d94', '5c0008'),
    'orange': ('f58200', 'b35c00', 'ffa94d', 'd9813a', 'ffc78a', '7a3f00'),
    'yellow': ('f7e11e', 'b89b00', 'fff6a0', 'd8c24a', 'ffd000', '857000'),
    'green': ('2fb84a', '0b5a24', '7fd67f', '4c8a57', 'b5ecad', '003d14'),
    'blue': ('1a4fd0', '0a2a80', '7fa8ff', '4a6bab', 'b4ccff', '001d5c'),
    'purple': ('b05ad8', '4d0f70', 'd49bec', '75508a', 'dcbcf0', '300048'),
    'pink': ('e6489c', 'b02a78', 'ffa6d4', 'd17aa8', 'ffcbe6', '8a2060'),
    'brown': ('9a6a3a', '54300f', 'c29366', '6e5039', 'd4ab84', '3b1f05'),
    'turquoise': ('3fdcd4', '0a6b70', '85e6e2', '4f9799', 'a8f0ec', '004a4d'),
    'grey': ('7c7c7c', '595959', 'b8b8b8', '9a9a9a', 'd0d0d0', '404040'),
    'black': ('1c1c1c', '2a2438', '243028', '38281f', '0a0a0a', '333333'),
    'white': ('ececec', 'e3e6f5', 'f5ecdc', 'dcefe2', 'f7e3e8', 'dedede')}
SYNONYMS = {'gray': 'grey', 'violet': 'purple', 'lilac': 'purple', 'magenta': 'pink', 'crimson': 'red',
            'scarlet': 'red', 'gold': 'yellow', 'golden': 'yellow', 'cyan': 'turquoise', 'teal': 'turquoise',
            'navy': 'blue', 'silver': 'grey', 'beige': 'brown'}
WORDS = re.compile(rf'(?<![^\W_])({"|".join([*SHADES, *SYNONYMS])})(?![^\W_])')  # in lower case

# Linear RGB as seen by usual eyes, without red cones, without green cones: Machado et al. (2009), severity 1.
EYES = np.array([
    np.eye(3),
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]])




@lru_cache(64)
def class_colours(names: tuple[str, ...]) -> tuple[tuple[int, int, int], ...]:
    """Choose a colour (red, green, blue), each from 0 to 255, for each class.

    The first class of each named colour gets its plainest shade. Every other colour is the candidate that is farthest
    from all that are given already, for the eyes that tell them apart worst. When all are given (some 1,000, and 51
    shades of a named colour), they are given again in the same order.
    """
    named, earlier, counts = [colour_in(name) for name in names], [], Counter()
    for name in named:
        earlier.append(counts[name])
        counts[name] += 1
    gaps = {name: np.full(len(_candidates(name)[0]), np.inf) for name in counts}  # to the nearest colour given
    chosen, given = {}, defaultdict(list)
    # Those with the least choice first.
    for index in sorted(range(len(names)), key=lambda index: (named[index] is None, earlier[index])):
        name = named[index]
        preferred, least = (len(OKABE_ITO), NEAR) if name is None else (1, 0)
        best = int(gaps[name][:preferred].argmax())
        if gaps[name][best] <= least:
            best = int(gaps[name].argmax())
        if not gaps[name][best]:
            chosen[index] = given[name][earlier[index] % len(given[name])]
            continue
        colours, looks = _candidates(name)
        chosen[index] = tuple(map(int, colours[best]))
        given[name].append(chosen[index])
        for other, gap in gaps.items():
            np.minimum(gap, distances(_candidates(other)[1], looks[best]), out=gap)
    return tuple(chosen[index] for index in range(len(names)))


def colour_in(name: str) -> str | None:
    """Return the first colour word in a class name, as a key of `SHADES`, or None."""
    found = WORDS.search(name.lower())  # re.IGNORECASE would also find the letters ı, İ and ſ
    return found and SYNONYMS.get(found[0], found[0])


def heat_table(name: str = HEAT) -> np.ndarray:
    """Return the colours (256, 3) uint8 of a heat map from its lowest to its highest value."""
    from matplotlib import colormaps  # slow to import
    return colormaps[name](np.arange(256), bytes=True)[:, :3]


def looks_of(colours: np.ndarray) -> np.ndarray:
    """Compute CIELAB (N, 3 kinds of eyes, 3) of sRGB colours (N, 3) from 0 to 255: for usual eyes, those without red
    cones (protanopia), and those without green cones (deuteranopia)."""
    srgb = np.asarray(colours, np.float32)[:, None] / 255  # (N, 1, 3)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055)**2.4)
    linear = np.einsum('kij,nj->nki', EYES, linear[:, 0]).clip(0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear**(1 / 2.4) - 0.055)
    return cv2.cvtColor(srgb.astype(np.float32), cv2.COLOR_RGB2Lab)


def distances(looks: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compute the distances in CIELAB (N,) of looks (N, 3, 3) to another (3, 3), for the eyes that see least of it."""
    return np.linalg.norm(looks - other, axis=-1).min(axis=-1)


@cache
def _candidates(name: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours that a class may have, the preferred ones first, and their looks."""
    if name is None:
        grid = np.stack(np.meshgrid(*3 * [np.linspace(0, 255, 12)]), axis=-1).reshape(-1, 3).round()
        lightness, *opponents = looks_of(grid)[:, 0].T
        chroma = np.hypot(*opponents)
        colours = np.concatenate([OKABE_ITO, grid[(lightness > 25) & (lightness < 90) & (chroma > 20) & (chroma < 85)]])
    else:
        shades = np.array([[int(shade[place:place + 2], 16) for place in (0, 2, 4)] for shade in SHADES[name]])
        mixed = [shades[one] + (shades[other] - shades[one]) * part for one in range(len(shades))
                 for other in range(one) for part in (0.25, 0.5, 0.75)]
        colours = np.concatenate([shades, np.round(mixed)])
    return colours, looks_of(colours)
