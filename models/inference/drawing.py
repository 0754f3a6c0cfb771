"""Overlays on images, and legends with class names in any script."""
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MAX_NAME = 40  # letters
MAX_ENTRY = MAX_NAME + 12  # letters in a legend: a name and what follows it, such as its share


def overlay(image: np.ndarray, labels: np.ndarray, colours: Sequence[Sequence[int]], opacity: float) -> Image.Image:
    """Draw the colours of the labels (H, W) over the image (H, W, 3); labels without a colour change nothing."""
    coloured = labels < len(colours)
    mixed = image.copy()
    if coloured.any():
        mixed[coloured] = image[coloured] * (1 - opacity) + np.asarray(colours)[labels[coloured]] * opacity
    return Image.fromarray(mixed)


def legend(entries: Sequence[tuple[str, Sequence[int]]], width: int, size: int = 15) -> Image.Image:
    """Draw names beside their colours, in as many columns as fit.

    Letters that no font of this machine has are drawn as boxes, and long names are cut.

    Args:
        entries: (name, colour).
        width: in pixels; exceeded only where a single column needs more.
        size: of the letters in pixels.
    """
    line, margin = round(1.5 * size), max(2, size // 2)
    texts = [_drawable(shorten(name, MAX_ENTRY), size) for name, _ in entries]
    column = max((int(font.getlength(text)) for text, font in texts), default=0) + line + 2 * margin
    columns = max(1, min((width - margin) // column, len(texts)))
    rows = -(-len(texts) // columns)
    canvas = Image.new('RGB', (max(width, margin + columns * column), rows * line + 2 * margin), 'white')
    draw = ImageDraw.Draw(canvas)
    for place, ((text, font), (_, colour)) in enumerate(zip(texts, entries, strict=True)):
        left, top = margin + place % columns * column, margin + place // columns * line + line // 8
        draw.rectangle((left, top, left + size, top + size), fill=tuple(colour), outline='black')
        draw.text((left + line, top + size // 2), text, fill='black', font=font, anchor='lm')
    return canvas


def caption(text: str, width: int | None = None, size: int = 13) -> Image.Image:
    """Draw one line of text, `width` pixels wide (the start of a longer text is left out), or as wide as needed."""
    text, font = _drawable(text, size)
    if width is None:
        width = int(font.getlength(text)) + 1
    elif font.getlength(text) > width:
        text = next((end for end in (f'…{text[start:]}' for start in range(len(text)))
                     if font.getlength(end) <= width), '')
    canvas = Image.new('RGB', (width, round(1.5 * size)), 'white')
    ImageDraw.Draw(canvas).text((0, 0), text, fill='black', font=font)
    return canvas


def stack(images: Sequence[Image.Image]) -> Image.Image:
    """Put images below each other, on white."""
    canvas = Image.new('RGB', (max(image.width for image in images), sum(image.height for image in images)), 'white')
    top = 0
    for image in images:
        canvas.paste(image, (0, top))
        top += image.height
    return canvas


def shorten(name: str, most: int = MAX_NAME) -> str:
    return name if len(name) <= most else f'{name[:most - 1]}…'


@lru_cache(4096)
def font_for(text: str, size: int) -> ImageFont.FreeTypeFont | None:
    """Return a font of this machine that has all letters of the text, or None."""
    letters = {ord(letter) for letter in text if not letter.isspace()}
    for font in _fonts():
        if letters <= _letters_of(font):
            try:
                return ImageFont.truetype(font, size)
            except OSError:  # a font that only matplotlib can read
                continue
    return None


def _drawable(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Return the text and a font for it; boxes replace letters that no single font has together with the others."""
    if font := font_for(text, size):
        return text, font
    letters = _letters_of(_fonts()[0])
    return ''.join(letter if letter.isspace() or ord(letter) in letters else '□' for letter in text), \
        ImageFont.truetype(_fonts()[0], size)


@cache
def _fonts() -> list[str]:
    """List the font files of this machine, beginning with matplotlib's own, which is always there."""
    from matplotlib import font_manager  # slow to import
    first = font_manager.findfont('DejaVu Sans')
    others = {entry.fname for entry in font_manager.fontManager.ttflist if 'LastResort' not in entry.fname}  # boxes
    return [first, *sorted(others - {first})]


@cache
def _letters_of(font: str) -> frozenset[int]:
    from matplotlib import font_manager
    try:
        return frozenset(font_manager.get_font(font).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
