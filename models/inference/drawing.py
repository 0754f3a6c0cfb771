"""Colours over images, and legends with words of any script."""
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def colour(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Label map (H, W) -> (H, W, 3) uint8; labels that have no colour are black."""
    table = np.zeros((max(256, len(palette) + 1), 3), dtype=np.uint8)
    table[:len(palette)] = palette
    return table[np.minimum(labels, len(table) - 1)]


def overlay(image: np.ndarray, labels: np.ndarray, palette: Sequence[Sequence[int]], opacity: float) -> Image.Image:
    """The colours of the labels over the image (H, W, 3); pixels whose label has no colour stay as they are."""
    coloured = labels < len(palette)
    mixed = image.copy()
    mixed[coloured] = image[coloured] * (1 - opacity) + colour(labels[coloured], palette) * opacity
    return Image.fromarray(mixed)


@cache
def _fonts() -> list[str]:
    """Font files, that of matplotlib first, which is always there; without the one whose letters are boxes."""
    from matplotlib import font_manager  # slow to import
    first = font_manager.findfont('DejaVu Sans')
    others = {entry.fname for entry in font_manager.fontManager.ttflist if 'LastResort' not in entry.fname}
    return [first, *sorted(others - {first})]


@cache
def _letters_of(font: str) -> frozenset[int]:
    from matplotlib import font_manager
    try:
        return frozenset(font_manager.get_font(font).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@lru_cache(4096)  # not of all texts for ever
def font_for(text: str, size: int) -> ImageFont.FreeTypeFont | None:
    """A font of this machine with all letters of the text; None where there is none."""
    letters = {ord(letter) for letter in text if not letter.isspace()}
    for font in _fonts():
        if letters <= _letters_of(font):
            try:
                return ImageFont.truetype(font, size)
            except OSError:  # a font that only matplotlib reads
                continue
    return None


def legend(entries: Sequence[tuple[str, Sequence[int]]], width: int, size: int = 15) -> Image.Image:
    """Words beside their colours, in as many columns as fit.

    Letters that no font of this machine has are written as boxes, and long words are cut.

    Args:
        entries: (word, colour).
        width: the least width in pixels; less only where one column needs more.
        size: of the letters in pixels.
    """
    line, margin = round(1.5 * size), max(2, size // 2)
    texts = []
    for word, _ in entries:
        word = word if len(word) <= 40 else f'{word[:39]}…'
        font = font_for(word, size)
        texts.append((word, font) if font else (_readable(word), font_for('word', size)))
    column = max((int(font.getlength(word)) for word, font in texts), default=0) + line + 2 * margin
    columns = max(1, min((width - margin) // column, len(texts)))
    rows = -(-len(texts) // columns)
    canvas = Image.new('RGB', (max(width, margin + columns * column), rows * line + 2 * margin), 'white')
    draw = ImageDraw.Draw(canvas)
    for place, ((word, font), (_, shade)) in enumerate(zip(texts, entries, strict=True)):
        left, top = margin + place % columns * column, margin + place // columns * line
        draw.rectangle((left, top + line // 8, left + size, top + line // 8 + size), fill=tuple(shade), outline='black')
        draw.text((left + line, top + line // 8 + size // 2), word, fill='black', font=font, anchor='lm')
    return canvas


def _readable(text: str) -> str:
    """The text with boxes in place of the letters that the first font lacks."""
    letters = _letters_of(_fonts()[0])
    return ''.join(letter if letter.isspace() or ord(letter) in letters else '□' for letter in text)


def write(canvas: Image.Image, place: tuple[int, int], text: str, width: int, size: int = 13) -> None:
    """One line of text on the canvas, its start left out where it is wider than `width` pixels."""
    font = font_for(text, size) or font_for('?', size)
    if font.getlength(text) > width:
        cut = (f'…{text[start:]}' for start in range(len(text)))
        text = next((some for some in cut if font.getlength(some) <= width), '')
    ImageDraw.Draw(canvas).text(place, text, fill='black', font=font)


def under(image: Image.Image, note: Image.Image) -> Image.Image:
    """The note below the image, on white."""
    canvas = Image.new('RGB', (max(image.width, note.width), image.height + note.height), 'white')
    canvas.paste(image, (0, 0))
    canvas.paste(note, (0, image.height))
    return canvas
