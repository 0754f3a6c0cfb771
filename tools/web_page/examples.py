"""Drawn pictures of the miniature's world with fitting words, for the miniature's model."""
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from tools.miniature.world import draw_scene

SCENES = {  # seed -> words
    1000: 'blue stripes, yellow stripes, yellow checks',
    1003: 'red paint, purple checks, purple stripes',
    1014: 'blue dots, green dots, purple checks, blue stripes',
    1020: 'purple stripes, purple checks, yellow paint, red stripes',
}


class Example(NamedTuple):
    file: Path
    words: str


def draw(folder: Path) -> list[Example]:
    """Writes the pictures into the folder."""
    examples = []
    for number, (seed, words) in enumerate(SCENES.items(), 1):
        examples.append(Example(folder / f'drawn_{number}.png', words))
        Image.fromarray(draw_scene(seed).picture).save(examples[-1].file)
    return examples
