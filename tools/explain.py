#!/usr/bin/env python3
"""What regional clues do for a word in an image: `python tools/explain.py IMAGE --word WORD --checkpoint FILE.pth`.

One figure: the word's pixels, the scores that each region's own query gives it, what each region token looks at, and
the word's scores with region tokens and without. Beside it comes a JSON file with the numbers. Explained is one window
of the image, as the model gets it.
"""
import argparse
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, whoever else has one
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from mmseg.utils import get_root_logger
from PIL import Image

from models.errors import UserError
from models.inference import parse_words
from models.inference.drawing import font_for
from tools import demo
from tools.engine import process
from tools.explaining.explanation import Explanation, explain

MARK, CELL = '#ff2fa0', '#3ddc84'  # what is found, and the region that speaks most; a region's own cell
ENDINGS = ('.png', '.pdf', '.svg', '.jpg', '.webp')


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw what regional clues do for a word in an image.')
    parser.add_argument('image', help='an image file')
    parser.add_argument('--word', required=True, help='what to explain; "sofa|couch" is one thing with two names')
    parser.add_argument('--words', metavar='"A, B"', help='words that compete with it for pixels (default: the class '
                                                          'names of the training)')
    demo.add_model_arguments(parser)
    parser.add_argument('--out', type=Path, metavar='FILE.png',
                        help=f'the figure ({", ".join(ENDINGS)}); FILE.json comes beside it (default: NAME.explain.png '
                             'here, NAME the image\'s)')
    parser.add_argument('--window', type=process.at_least_one, metavar='N',
                        help='of the image\'s windows, row by row (default: the one with most of the word)')
    parser.add_argument('--block', type=process.at_least_one, metavar='N',
                        help='of the vision encoder, whose attention is drawn (default: the last)')
    args = parser.parse_args()
    args.out = args.out or Path(f'{Path(args.image).stem}.explain.png')
    if args.out.suffix.lower() not in ENDINGS:
        raise UserError(f'--out {args.out}: the name must end in {", ".join(ENDINGS)}.')
    return args


def draw(told: Explanation) -> Figure:
    """The figure, to be saved."""
    found = told.reading.found.any()
    figure = Figure(figsize=(14, 8.6), layout='constrained')
    FigureCanvasAgg(figure)
    write(figure.suptitle, told, 'Regional clues for “{}”', fontsize=16)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.1, 1))
    first, second, third = upper.subfigures(1, 3, width_ratios=(1, 1, 1))
    draw_image(first, told)
    scores = 1 / (1 + np.exp(-told.by_region))
    loudest = int(told.speaks.argmax())
    where = 'the word\'s pixels' if found else 'all pixels'
    draw_regions(second, told, scores, cmap='magma', limits=(0, max(scores.max(), 0.01)),
                 title=f'scores of each region\'s own query (green: its cell)\nabove: its mean logit on {where}',
                 numbers=[f'{value:+.2f}' for value in told.speaks], marked=loudest, bar='sigmoid of the mask logits')
    rest = told.by_region - told.by_region.mean(axis=0)
    most = max(float(np.quantile(np.abs(rest), 0.995)), 1e-3)
    draw_regions(third, told, rest, cmap='RdBu_r', limits=(-most, most),
                 title=f'the same, as logits less the mean of all regions\nabove: that difference on {where}',
                 numbers=[f'{value - told.speaks.mean():+.2f}' for value in told.speaks], marked=loudest,
                 bar='mask logits less their mean')
    draw_attention_and_silence(lower, told)
    return figure


def draw_image(figure: SubFigure, told: Explanation) -> None:
    """The whole image, its pixels of the word, and the window with its regions."""
    axes = figure.subplots()
    image, found = told.result.image, told.result.labels == 0
    axes.imshow(tinted(image, found), interpolation='bilinear')
    outline(axes, found)
    scale_y, scale_x = image.shape[0] / told.size[0], image.shape[1] / told.size[1]
    top, left = told.window.top * scale_y, told.window.left * scale_x
    height, width = told.window.height * scale_y, told.window.width * scale_x
    grid(axes, told.side, (left, top, width, height))
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(image.shape[0] - 0.5, -0.5)
    shown = 'the image is one window' if told.windows == 1 else f'explained: window {told.number} of {told.windows}'
    says = f'{100 * found.mean():.1f} % of the image' if found.any() else 'the word is found nowhere'
    axes.set_title(f'{says}, against {len(told.result.words) - 1} other words\n{shown}, {told.side}x{told.side} '
                   'regions', fontsize=11)
    bare(axes)


def draw_regions(figure: SubFigure, told: Explanation, maps: np.ndarray, *, cmap: str, limits: tuple[float, float],
                 title: str, numbers: list[str], marked: int, bar: str) -> None:
    """A map (h, w) of each region, in the order of the regions, over the window."""
    cells = figure.subplots(told.side, told.side, squeeze=False)
    for region, axes in enumerate(cells.flat):
        shown = axes.imshow(maps[region], cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation='nearest')
        outline(axes, told.reading.found, width=0.8)
        row, column = divmod(region, told.side)
        height, width = (length / told.side for length in maps.shape[1:])
        axes.add_patch(Rectangle((column * width - 0.5, row * height - 0.5), width, height, fill=False,
                                 edgecolor=CELL, linewidth=1.2))
        axes.set_title(numbers[region], fontsize=9, pad=2, fontweight='bold' if region == marked else 'normal',
                       color=MARK if region == marked else 'black')
        bare(axes)
        if region == marked:
            for spine in axes.spines.values():
                spine.set(visible=True, color=MARK, linewidth=2.5)
    figure.suptitle(title, fontsize=11)
    legend(figure.colorbar(shown, ax=cells, shrink=0.8, pad=0.02), bar)


def draw_attention_and_silence(figure: SubFigure, told: Explanation) -> None:
    """What the region tokens look at; the word's scores with them, without them, and the difference."""
    panels = figure.subplots(1, 4)
    looks, itself = (each[told.block - 1].float().cpu().numpy() for each in told.attention)
    axes, extent = panels[0], (-0.5, told.view.shape[1] - 0.5, told.view.shape[0] - 0.5, -0.5)
    grey = np.asarray(Image.fromarray(told.view).convert('L'))
    axes.imshow(grey, cmap='gray', vmin=0, vmax=255)
    shown = axes.imshow(100 * looks, cmap='viridis', vmin=0, alpha=0.75, extent=extent, interpolation='nearest')
    grid(axes, told.side, (-0.5, -0.5, told.view.shape[1], told.view.shape[0]))
    height, width = (length / told.side for length in told.view.shape[:2])
    for region, share in enumerate(itself):
        row, column = divmod(region, told.side)
        axes.text((column + 0.5) * width, (row + 0.93) * height, f'itself {100 * share:.0f} %', fontsize=8, ha='center',
                  va='center', color='white', bbox={'facecolor': 'black', 'alpha': 0.55, 'pad': 1, 'linewidth': 0})
    axes.set_title(f'what each region token looks at,\nblock {told.block} of {len(told.attention.patches)}: patches of '
                   'its cell, and itself', fontsize=11)
    legend(figure.colorbar(shown, ax=axes, shrink=0.75, orientation='horizontal', pad=0.03), 'percent of its attention')

    readings = {'with region tokens': told.reading, 'region tokens silenced': told.silenced['everywhere']}
    highest = max(max(float(reading.scores.max()) for reading in readings.values()), 0.01)
    for axes, (title, reading) in zip(panels[1:], readings.items()):
        shown = axes.imshow(reading.scores.clip(0), cmap='magma', vmin=0, vmax=highest)
        outline(axes, told.reading.found)
        where = 'on the outlined pixels' if told.reading.found.any() else 'on all pixels'
        axes.set_title(f'{title}:\n{100 * reading.found.mean():.1f} % of the window is the word;\nmean score {where} '
                       f'{reading.scores[told.where].mean():.2f}', fontsize=11)
        legend(figure.colorbar(shown, ax=axes, shrink=0.75, orientation='horizontal', pad=0.03),
               'test score of the word')
    silent = told.silenced['everywhere']
    change = silent.scores - told.reading.scores
    most = max(float(np.abs(change).max()), 1e-3)
    shown = panels[3].imshow(change, cmap='RdBu_r', vmin=-most, vmax=most)
    lost, gained = told.reading.found & ~silent.found, silent.found & ~told.reading.found
    panels[3].set_title(f'what silencing changes\n{100 * lost.mean():.1f} % of the window lost, '
                        f'{100 * gained.mean():.1f} % gained', fontsize=11)
    outline(panels[3], told.reading.found)
    legend(figure.colorbar(shown, ax=panels[3], shrink=0.75, orientation='horizontal', pad=0.03),
           'silenced less with region tokens')
    for axes in panels:
        bare(axes)


def tinted(image: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The image (H, W, 3), grey and pale where `found` is not."""
    grey = np.asarray(Image.fromarray(image).convert('L'))[..., None]
    return np.where(found[..., None], image, (0.5 * grey + 110).astype(np.uint8))


def outline(axes: Axes, found: np.ndarray, width: float = 1.5) -> None:
    """A line around what is found."""
    if found.any() and not found.all():
        axes.contour(found, levels=[0.5], colors=MARK, linewidths=width)


def grid(axes: Axes, side: int, box: tuple[float, float, float, float]) -> None:
    """Lines around the regions of (left, top, width, height)."""
    left, top, width, height = box
    for i in range(side + 1):
        for colour, line in (('black', 2.), ('white', 1.)):
            axes.plot([left, left + width], [top + i * height / side] * 2, color=colour, linewidth=line, clip_on=False)
            axes.plot([left + i * width / side] * 2, [top, top + height], color=colour, linewidth=line, clip_on=False)


def bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def legend(bar: Colorbar, text: str) -> None:
    bar.set_label(text, fontsize=9)
    bar.locator = MaxNLocator(4)
    bar.ax.tick_params(labelsize=8)


def write(set_text, told: Explanation, text: str, **style) -> None:
    """A title with the word in it, in a font that has its letters; long words are cut."""
    word = told.word if len(told.word) <= 40 else f'{told.word[:39]}…'
    font = font_for(text.format(word), 12)
    set_text(text.format(word if font else 'the word'), parse_math=False,
             fontproperties=FontProperties(fname=(font or font_for('word', 12)).path, size=style.pop('fontsize')))


def main() -> None:
    args = parse_arguments()
    segmenter = demo.load(args)
    word, *more = parse_words(args.word)
    if more:
        raise UserError(f'--word {args.word!r} is several: one is explained at a time; the others belong to --words.')
    told = explain(segmenter, args.image, word, None if args.words is None else parse_words(args.words),
                   window=args.window, block=args.block)
    process.make_folder(args.out.absolute().parent)
    draw(told).savefig(args.out, dpi=100)
    numbers = told.summary()
    beside = args.out.with_suffix('.json')
    beside.write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    logger = get_root_logger()
    if not numbers['found']:
        logger.warning('%s is found nowhere in window %d: other words fit every pixel better', word, told.number)
    logger.info('figure: %s; numbers: %s', args.out, beside)


if __name__ == '__main__':
    process.run(main)
