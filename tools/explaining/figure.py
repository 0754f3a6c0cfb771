"""Draws an explanation as one figure: the image, logits by region, attention, and scores with and without clues."""
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image

from models.colours import CELL, DIFFERENCE, HEAT, MARK, WEIGHTS
from models.inference.drawing import font_for, shorten
from tools.engine.plots import even_ends, even_ticks
from tools.explaining.explanation import Explanation

SHOWN = 1000  # pixels of the longer side of the whole image, which is drawn less than half as large
BELOW = {'shrink': 0.75, 'orientation': 'horizontal', 'pad': 0.03}  # a colour bar


def draw(explanation: Explanation) -> Figure:
    """Draw the figure, ready to be saved."""
    figure = Figure(figsize=(14, 8.6), layout='constrained')
    FigureCanvasAgg(figure)
    name = shorten(explanation.class_name)
    font = font_for(f'Regional clues for “{name}”', 12)
    if font is None:  # no font has all letters
        name, font = 'the class', font_for('class', 12)
    figure.suptitle(f'Regional clues for “{name}”', parse_math=False,
                    fontproperties=FontProperties(fname=font.path, size=16))
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.1, 1))
    first, second, third = upper.subfigures(1, 3)
    _draw_image(first, explanation)
    logits, means = explanation.region_logits, explanation.mean_logits
    pixels = _pixels(explanation)
    scores = 1 / (1 + np.exp(-logits))
    _draw_regions(second, explanation, scores, cmap=HEAT, limits=(0, max(scores.max(), 0.01)), numbers=means,
                  title=f'2. Scores by region\nnumbers: mean logit, {pixels}', label='sigmoid of the mask logits')
    margins = logits - logits.mean(axis=0)
    limit = max(float(np.abs(margins).max()), 1e-3)
    _draw_regions(third, explanation, margins, cmap=DIFFERENCE, limits=(-limit, limit), numbers=means - means.mean(),
                  title=f'3. Regions minus their mean\nnumbers: mean difference, {pixels}',
                  label='difference of mask logits')
    attention, *panels = lower.subplots(1, 4)
    _draw_attention(lower, attention, explanation)
    _draw_ablation(lower, panels, explanation)
    return figure


def _draw_image(figure: SubFigure, explanation: Explanation) -> None:
    """Draw the whole image, grey outside the pixels of the class, and the regions of the window."""
    axes = figure.subplots()
    image, mask = explanation.result.image, explanation.result.labels == 0
    share = mask.mean()
    if max(mask.shape) > SHOWN:  # larger images take seconds and gigabytes
        size = tuple(max(1, round(SHOWN / max(mask.shape) * side)) for side in mask.shape[::-1])
        image, mask = (np.asarray(Image.fromarray(array).resize(size)) for array in (image, mask))
    grey = np.asarray(Image.fromarray(image).convert('L'))[..., None]
    axes.imshow(np.where(mask[..., None], image, (0.5 * grey + 110).astype(np.uint8)), interpolation='bilinear')
    _outline(axes, mask)
    scale_y, scale_x = image.shape[0] / explanation.size[0], image.shape[1] / explanation.size[1]
    window = explanation.window
    _draw_grid(axes, explanation.side, window.left * scale_x, window.top * scale_y, window.width * scale_x,
               window.height * scale_y)
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(image.shape[0] - 0.5, -0.5)
    area = f'class: {100 * share:.1f} % of the image' if share else 'class: not found'
    place = '' if explanation.windows == 1 else f', window {explanation.number} of {explanation.windows}'
    axes.set_title(f'1. Image and {explanation.side}x{explanation.side} regions{place}\n{area}; other classes: '
                   f'{len(explanation.result.class_names) - 1}', fontsize=11)
    axes.set_axis_off()


def _draw_regions(figure: SubFigure, explanation: Explanation, maps: np.ndarray, *, cmap: str,
                  limits: tuple[float, float], numbers: np.ndarray, title: str, label: str) -> None:
    """Draw the map (h, w) of each region, arranged as the regions are."""
    panels, limits = figure.subplots(explanation.side, explanation.side, squeeze=False), even_ends(*limits)
    height, width = (length / explanation.side for length in maps.shape[1:])
    highest = explanation.mean_logits.argmax()
    for region, axes in enumerate(panels.flat):
        shown = axes.imshow(maps[region], cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation='nearest')
        _outline(axes, explanation.prediction.mask, width=0.8)
        row, column = divmod(region, explanation.side)
        axes.add_patch(Rectangle((column * width - 0.5, row * height - 0.5), width, height, fill=False,
                                 edgecolor=CELL, linewidth=1.2))
        axes.set_axis_off()
        axes.set_title(f'{numbers[region]:+.2f}', fontsize=9, pad=2)
        if region == highest:
            axes.title.set(color=MARK, fontweight='bold')
            axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, clip_on=False, fill=False, edgecolor=MARK,
                                     linewidth=2.5))
    figure.suptitle(title, fontsize=11)
    _add_colorbar(figure, panels, shown, label, shrink=0.8, pad=0.02)


def _draw_attention(figure: SubFigure, axes: Axes, explanation: Explanation) -> None:
    patches, itself = (weights[explanation.block - 1].float().cpu().numpy() for weights in explanation.attention)
    view, side = explanation.view, explanation.side
    axes.imshow(np.asarray(Image.fromarray(view).convert('L')), cmap='gray', vmin=0, vmax=255)
    shown = axes.imshow(100 * patches, cmap=WEIGHTS, vmin=0, vmax=even_ends(0, 100 * patches.max())[1], alpha=0.75,
                        interpolation='nearest',
                        extent=(-0.5, view.shape[1] - 0.5, view.shape[0] - 0.5, -0.5))
    _draw_grid(axes, side, -0.5, -0.5, view.shape[1], view.shape[0])
    for region, weight in enumerate(itself):
        row, column = divmod(region, side)
        axes.text((column + 0.5) * view.shape[1] / side, (row + 0.93) * view.shape[0] / side,
                  f'itself {100 * weight:.0f} %', fontsize=8, ha='center', va='center', color='white',
                  bbox={'facecolor': 'black', 'alpha': 0.55, 'pad': 1, 'linewidth': 0})
    axes.set_title(f'4. Attention of region tokens\nblock {explanation.block} of '
                   f'{len(explanation.attention.patches)}', fontsize=11)
    axes.set_axis_off()
    _add_colorbar(figure, axes, shown, 'percent of its attention', **BELOW)


def _draw_ablation(figure: SubFigure, panels: list[Axes], explanation: Explanation) -> None:
    """Draw the scores of the class with region tokens, without them, and the difference."""
    before, after = explanation.prediction, explanation.ablated['everywhere']
    highest = even_ends(0, max(float(before.scores.max()), float(after.scores.max()), 0.01))[1]
    for axes, title, prediction in zip(panels, ('5. With region tokens', '6. Without region tokens'), (before, after)):
        shown = axes.imshow(prediction.scores, cmap=HEAT, vmin=0, vmax=highest)
        axes.set_title(f'{title}\n{100 * prediction.mask.mean():.1f} % of the window; mean score '
                       f'{prediction.scores[explanation.pixels].mean():.2f}', fontsize=11)
        _add_colorbar(figure, axes, shown, 'test score of the class', **BELOW)
    change = after.scores - before.scores
    largest = max(float(np.abs(change).max()), 1e-3)
    lowest, highest = even_ends(-largest, largest)
    shown = panels[2].imshow(change, cmap=DIFFERENCE, vmin=lowest, vmax=highest)
    lost, gained = before.mask & ~after.mask, after.mask & ~before.mask
    panels[2].set_title(f'7. Difference, 6 minus 5\n{100 * lost.mean():.1f} % of the window lost; '
                        f'{100 * gained.mean():.1f} % gained', fontsize=11)
    _add_colorbar(figure, panels[2], shown, 'difference of test scores', **BELOW)
    for axes in panels:
        _outline(axes, before.mask)
        axes.set_axis_off()


def _outline(axes: Axes, mask: np.ndarray, width: float = 1.5) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=MARK, linewidths=width)


def _draw_grid(axes: Axes, side: int, left: float, top: float, width: float, height: float) -> None:
    """Draw lines around `side` x `side` regions."""
    for i in range(side + 1):
        for colour, line in (('black', 2.), ('white', 1.)):
            axes.plot([left, left + width], [top + i * height / side] * 2, color=colour, linewidth=line, clip_on=False)
            axes.plot([left + i * width / side] * 2, [top, top + height], color=colour, linewidth=line, clip_on=False)


def _pixels(explanation: Explanation) -> str:
    return 'outlined pixels' if explanation.prediction.mask.any() else 'all pixels'


def _add_colorbar(figure: SubFigure, axes: Axes | np.ndarray, shown: AxesImage, label: str, **place) -> None:
    """Add a colour bar; a pointed end says that there are lower scores, as a penalty makes them."""
    below = shown.get_array().min() < shown.norm.vmin
    bar = figure.colorbar(shown, ax=axes, ticks=even_ticks(), extend='min' if below else 'neither', **place)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
