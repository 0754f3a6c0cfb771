"""Draws the figure of the method for the README: `python tools/visualization/draw_method.py`.

Coordinates are pixels of the figure, y downwards. The picture, its scores and its label maps are a toy scene computed
here; the attention mask is the real rule at toy size. The same library versions give the same file, byte for byte.
"""
import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as Line
from PIL import Image

OUT = Path(__file__).resolve().parents[2] / '.github' / 'assets' / 'method.png'
WIDTH, HEIGHT, DPI = 1800, 960, 100
INK, MUTED, WARM = '#1f2933', '#5b6673', '#b35900'
FILL = {'frozen': '#dde8f3', 'trained': '#ffe2bf', 'plain': '#ffffff', 'band': '#f5f5f3', 'group': '#fafbfc',
        'cls': '#34567d', 'prompt': '#d9730d', 'patch': '#3f8a55', 'region': '#8f5fb0', 'text': '#5f6b7a'}
EDGE = {'frozen': '#5b7c9e', 'trained': '#e07b00', 'plain': '#7f8a95', 'band': '#9aa3ac', 'group': '#b4bcc4'}
CLASSES = {'sky-other': '#8ecae6', 'house': '#d1495b', 'tree': '#2d6a4f', 'grass': '#a7c957'}
UNSEEN = [2, 3]  # tree and grass, as in COCO-Stuff's split
PALETTE = np.array([to_rgb(c) for c in (*CLASSES.values(), '#cfd4da')])  # the last one: label 255

# x, y, width, height, kind, title: the project's files, back to front
BOXES = [
    (220, 20, 407, 490, 'frozen', 'vision_encoder.py'), (220, 540, 407, 120, 'frozen', 'text_encoder.py'),
    (655, 160, 110, 165, 'group', ''), (795, 20, 310, 510, 'plain', 'region_clue_head.py'),
    (810, 60, 280, 170, 'group', ''), (810, 250, 280, 165, 'plain', 'text_class_head.py'),
    (1210, 20, 262, 640, 'trained', 'two_stream_decoder.py'), (1550, 20, 235, 423, 'plain', 'text_class_head.py'),
    (600, 700, 1185, 245, 'band', ''), (620, 745, 350, 185, 'trained', 'two_stream_decoder.py'),
    (1030, 745, 400, 152, 'plain', 'label_mapping.py'), (1530, 745, 240, 185, 'plain', 'losses.py'),
    (20, 740, 97, 28, 'frozen', ''), (20, 783, 97, 28, 'trained', ''), (20, 826, 97, 28, 'band', ''),  # legend
]
# x, y, width, height, kind, label: tokens and features, and the projections
CHIPS = [
    (230, 92, 48, 36, 'cls', 'CLS'), (281, 92, 102, 36, 'prompt', 'P prompts'),
    (386, 92, 128, 36, 'patch', 'G·G patches'), (517, 92, 100, 36, 'region', 'R regions'),
    (660, 75, 100, 58, 'patch', 'patches\n(B, E, G, G)'), (660, 170, 100, 58, 'cls', 'CLS\n(B, E)'),
    (660, 258, 100, 58, 'region', 'regions\n(B, E, r, r)'), (660, 571, 100, 58, 'text', 'text\n(C, E)'),
    (820, 98, 106, 36, 'region', 'regions ↑'), (929, 98, 54, 36, 'cls', 'CLS'), (986, 98, 94, 36, 'patch', 'patches'),
    (832, 322, 68, 36, 'region', 'region'), (921, 322, 44, 36, 'cls', 'CLS'), (995, 322, 42, 36, 'text', 'text'),
    (1040, 322, 42, 36, 'text', 'text'), (830, 178, 240, 38, 'trained', 'lateral_proj  3E → E'),
    (830, 468, 240, 38, 'trained', 'q_proj  2E → E'), (20, 869, 47, 28, 'cls', ''), (70, 869, 47, 28, 'patch', ''),
]
ARROWS = [
    [(190, 110), (220, 110)], [(190, 600), (220, 600)], [(627, 104), (660, 104)], [(627, 242), (655, 242)],
    [(627, 600), (660, 600)], [(760, 104), (810, 104)], [(765, 195), (810, 195)], [(765, 290), (810, 290)],
    [(710, 571), (710, 385), (810, 385)], [(950, 134), (950, 178)], [(950, 415), (950, 468)],
    [(1070, 197), (1210, 197)], [(1070, 487), (1210, 487)], [(1452, 197), (1550, 197)],
    [(1452, 487), (1511, 487), (1511, 290), (1550, 290)], [(1698, 443), (1698, 478)],
]
DASHED = [  # in training only
    [(1250, 660), (1250, 682), (795, 682), (795, 745)], [(1575, 443), (1575, 745)],
    [(1575, 682), (1390, 682), (1390, 745)], [(1430, 820), (1530, 820)], [(970, 914), (1530, 914)],
]
STYLES = {'': {}, 'left': {'ha': 'left'}, 'bold': {'ha': 'left', 'weight': 'bold'}, 'centre bold': {'weight': 'bold'},
          'soft': {'color': MUTED}, 'soft left': {'color': MUTED, 'ha': 'left'}, 'warm': {'color': WARM},
          'soft right': {'color': MUTED, 'ha': 'right'}, 'frozen': {'color': '#44678b', 'ha': 'right'}}
# x, y, words, style
TEXTS = [
    (102, 40, 'image', 'centre bold'), (102, 256, '(B, 3, 16G, 16G)', ''), (102, 281, 'cut into r·r cells', 'soft'),
    (20, 526, 'class names', 'bold'), (613, 42, '❄ frozen ViT-B/16', 'frozen'), (613, 562, '❄ frozen', 'frozen'),
    (423, 75, '12 blocks on (B, 1 + P + G² + R, D)', ''), (423, 148, 'prompts: trained, new ones per block', 'warm'),
    (234, 192, 'attention mask of every block', 'bold'), (234, 216, 'here 4×4 patches, 2×2 regions', 'soft left'),
    (470, 324, 'A region sees\nonly itself and\nthe patches of\nits cell; no other\ntoken sees it.', 'left'),
    (470, 429, 'The rest all see\neach other.', 'left'), (354, 488, 'row looks at column', 'soft'),
    (423, 600, '“a photo of a {class}”', ''), (423, 632, 'or stored embeddings (.npy)', 'soft'),
    (710, 42, 'outputs of\nunit length', 'soft'), (775, 600, 'inductive training:\nseen classes only', 'soft left'),
    (822, 80, 'pixels', 'bold'), (1080, 80, '↑ resized to G×G', 'soft right'), (962, 155, '(B, G², 3E)', 'left'),
    (824, 302, 'for each region and class', 'left'), (825, 340, '(', ''), (910.5, 340, '+', ''), (971, 340, ')', ''),
    (984, 340, '⊙', ''), (950, 386, 'class queries', 'centre bold'), (962, 442, '(B, R·C, 2E)', 'left'),
    (1157, 168, 'pixels\n(B, G², E)', ''), (1157, 458, 'queries\n(B, R·C, E)', ''),
    (1341, 96, '3 layers: both streams\nare updated at once,\neach from the other', ''),
    (1341, 153, 'pixels attend to queries', 'warm'), (1341, 533, 'queries attend to pixels', 'warm'),
    (1341, 602, 'a layer: cross-attention\n(8 heads) and MLP,\nno self-attention', ''),
    (1564, 107, 'queries · pixels\n→ mean over regions\n→ resize → sigmoid\n→ − 0.1 on the seen', 'left'),
    (1583, 170, '(not if transductive)', 'soft left'), (1709, 459, 'argmax', 'left'),
    (1698, 662, 'label map', 'centre bold'), (1524, 590, 'mask\nlogits\n(B,C,H,W)', ''), (1525, 668, 'detached', ''),
    (1020, 668, 'final queries and pixels', ''), (618, 722, 'Training only', 'bold'), (1480, 805, 'targets', ''),
    (634, 850, 'Recovery decoder, 1 layer: from\nthe final queries and pixels, it\nrebuilds the class queries (2E)\n'
     'and the patch features (E), both\nas detached targets', 'left'),
    (1544, 838, '100 × focal\n+ 1 × dice\n+ 2 × recovery (L1)', 'left'), (1544, 905, '(VOC, zero-shot)', 'soft left'),
    (1416, 767, 'labels by setting', 'soft right'), (20, 716, 'Legend', 'bold'), (128, 797, 'trained', 'left'),
    (128, 754, '❄ frozen, from CLIP', 'left'), (128, 840, 'training only', 'left'), (128, 883, 'concatenated', 'left'),
    (350, 819, 'B  images\nC  classes\nP  prompts\nR = r·r  regions\nG·G  patches of 16×16\nD = 768, E = 512', 'left'),
]


def region_mask(grid: int, side: int, prompts: int) -> np.ndarray:
    """Which token (row) may look at which (column), in the order CLS, prompts, patches, regions."""
    row, column = np.indices((grid, grid)).reshape(2, -1) // (grid // side)
    cell = np.concatenate([np.full(1 + prompts, -1), row * side + column, np.arange(side * side)])
    region = np.arange(len(cell)) >= 1 + prompts + grid * grid
    return (~region[:, None] & ~region) | (cell[:, None] == cell)


def scene(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The toy picture (size, size, 3) and its labels (size, size), indices into CLASSES."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    picture = np.stack([0.45 + 0.4 * y, 0.68 + 0.22 * y, 0.92 + 0 * y], -1)
    labels = np.zeros((size, size), int)
    ground = y > 0.7 + 0.03 * np.sin(5 * x)
    house, tree = abs(x - 0.3), abs(x - 0.75)  # distances from their middles
    for where, rgb, label in [
        ((x - 0.86) ** 2 + (y - 0.12) ** 2 < 0.005, '#ffe38a', 0),
        (ground, '#86b552', 3), (ground & (np.sin(60 * y * y + 2 * x) > 0.4), '#78a847', 3),
        ((house < 0.18) & (abs(y - 0.62) < 0.18), '#ecdcc0', 1), ((house < y - 0.2) & (y < 0.45), '#b5543f', 1),
        ((abs(x - 0.37) < 0.045) & (abs(y - 0.7) < 0.1), '#7a4a32', 1),
        ((abs(x - 0.22) < 0.05) & (abs(y - 0.58) < 0.05), '#7fb1cf', 1),
        ((tree < 0.035) & (abs(y - 0.66) < 0.18), '#6d4a2f', 2), (tree ** 2 + (y - 0.38) ** 2 < 0.034, '#3f7d47', 2),
        ((x - 0.7) ** 2 + (y - 0.33) ** 2 < 0.008, '#54955a', 2),
    ]:
        picture[where], labels[where] = to_rgb(rgb), label
    return picture, labels


def toy_scores(labels: np.ndarray, reach: int) -> np.ndarray:
    """(C, size, size): the labels as soft maps, standing in for a model's scores."""
    index = np.arange(len(labels))
    blur = np.maximum(0, 1 - abs(index[:, None] - index) / reach)
    blur /= blur.sum(1, keepdims=True)
    return np.stack([blur @ (labels == c) @ blur.T for c in range(len(CLASSES))])


def text(ax: Axes, x: float, y: float, words: str, size: float = 13, **style: object) -> None:
    """Lines of one pitch, centred on y (matplotlib's own line spacing varies with the letters)."""
    lines = words.split('\n')
    for i, line in enumerate(lines):
        below = (i - (len(lines) - 1) / 2) * 1.78 * size + size / 2
        ax.text(x, y + below, line, **{'size': size, 'color': INK, 'ha': 'center', 'zorder': 4,
                                   'family': 'DejaVu Sans', **style})


def box(ax: Axes, x: float, y: float, width: float, height: float, kind: str, label: str, chip: bool = False) -> None:
    """A rounded box with a file's name in its corner, or a chip with a label in its middle."""
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=f'round,pad=0,rounding_size={5 if chip else 9}', lw=1.6,
                                fc=FILL[kind], ec=EDGE.get(kind, FILL[kind]), ls='--' if kind == 'band' else '-'))
    if chip:
        text(ax, x + width / 2, y + height / 2, label, 12.5, color=INK if kind == 'trained' else 'white')
    else:
        text(ax, x + 14, y + 22, label, 13.5, ha='left', weight='bold', family='DejaVu Sans Mono')


def arrow(ax: Axes, *points: tuple[float, float], color: str = INK, dashed: bool = False) -> None:
    ax.add_patch(FancyArrowPatch(path=Line(points), arrowstyle='-|>', mutation_scale=14, lw=1.8, color=color,
                                 ls='--' if dashed else '-', joinstyle='miter'))


def image(ax: Axes, x: float, y: float, side: float, pixels: np.ndarray, cells: int = 1, line: str = 'white') -> None:
    """Pixels in a square frame, cut into cells x cells by lines."""
    ax.imshow(pixels, extent=(x, x + side, y + side, y), interpolation='nearest', cmap='magma', zorder=1.5)
    for cut in np.arange(1, cells) * side / cells:
        ax.plot([x + cut] * 2, [y, y + side], line, [x, x + side], [y + cut] * 2, line, lw=0.8)
    ax.add_patch(Rectangle((x, y), side, side, fc='none', ec=INK, lw=1, zorder=3))


def draw_mask(ax: Axes, x: float, y: float, cell: float, grid: int = 4, side: int = 2, prompts: int = 2) -> None:
    """The attention mask at toy size, an allowed cell in the colour of the token looked at."""
    counts = {'cls': 1, 'prompt': prompts, 'patch': grid * grid, 'region': side * side}
    tokens = np.repeat([to_rgb(FILL[kind]) for kind in counts], list(counts.values()), axis=0)
    allowed = region_mask(grid, side, prompts)[..., None]
    image(ax, x, y, cell * len(tokens), np.where(allowed, tokens * 0.75 + 0.25, 1), len(tokens), '#c9d2db')
    for i, rgb in enumerate(tokens):
        ax.add_patch(Rectangle((x - 14, y + i * cell), 10, cell, fc=rgb))
        ax.add_patch(Rectangle((x + i * cell, y - 14), cell, 10, fc=rgb))


def draw_layers(ax: Axes, left: float, columns: tuple[float, ...], lanes: tuple[float, float]) -> None:
    """The decoder's two streams: a layer reads what the layer before it left in both."""
    for layer, (start, x) in enumerate(zip((left, *(c + 22 for c in columns)), columns, strict=False), 1):
        for lane, other in (lanes, lanes[::-1]):
            arrow(ax, (start, lane), (x - 22, lane))
            arrow(ax, (start, lane), (x - 16, other + (24 if lane > other else -24)), color=WARM)
            ax.add_patch(Rectangle((x - 22, lane - 22), 44, 44, fc='white', ec=EDGE['trained'], lw=1.5, zorder=3))
            text(ax, x, lane, str(layer), 15, weight='bold', color=WARM)


def draw(out: Path) -> None:
    fig = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor='white')
    canvas = FigureCanvasAgg(fig)
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0), frame_on=False, xticks=[], yticks=[])
    for item in BOXES + CHIPS:
        box(ax, *item, chip=item in CHIPS)
    for points in ARROWS + DASHED:
        arrow(ax, *points, dashed=points in DASHED)
    for x, y, words, style in TEXTS:
        text(ax, x, y, words, **STYLES[style])
    draw_mask(ax, 248, 256, 9)
    draw_layers(ax, 1210, (1270, 1350, 1430), (197, 487))
    picture, labels = scene(192)
    scores = toy_scores(labels, 10)
    image(ax, 15, 60, 175, picture, 4)
    image(ax, 1618, 482, 160, PALETTE[scores.argmax(0)])
    for c, (name, rgb) in enumerate(CLASSES.items()):
        ax.add_patch(Rectangle((20, 550 + 28 * c), 18, 18, fc=rgb, ec=INK, lw=0.8))
        text(ax, 46, 559 + 28 * c, name + ' (unseen)' * (c in UNSEEN), ha='left')
        x, y = 1575 + 107 * (c % 2), 192 + 120 * (c // 2)
        image(ax, x, y, 84, scores[c, 3::6, 3::6])
        text(ax, x + 42, y + 99, name, 12.5)
    unseen = np.isin(labels, UNSEEN)
    pseudo = np.take(UNSEEN, toy_scores(labels, 50)[UNSEEN].argmax(0))  # a model that is not sure yet
    for x, caption, pixels in [(1063, 'inductive\nunseen → 255', np.where(unseen, -1, labels)),
                               (1195, 'transductive\npseudo-labels', np.where(unseen, pseudo, labels)),
                               (1327, 'fully\nall labels', labels)]:
        image(ax, x, 781, 70, PALETTE[pixels])
        text(ax, x + 35, 873, caption, 12)
    canvas.draw()
    rgb = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    rgb.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=OUT, help='the PNG to write (default: .github/assets/method.png)')
    draw(parser.parse_args().out)
