"""Drawn images of the miniature's world with class names, as examples for the miniature's model."""
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from tools.miniature.world import draw_scene

SCENES = {  # seed -> class names, in an order that gives most of them a colour like their own
    1000: 'red dots, blue stripes, yellow stripes, yellow checks',
    1003: 'red paint, purple stripes, green dots, purple checks',
    1014: 'red paint, blue dots, green dots, purple checks, blue stripes',
    1020: 'red stripes, purple stripes, yellow paint, purple checks',
}


class Example(NamedTuple):
    file: Path
    class_names: str


def draw(folder: Path) -> list[Example]:
    """Draw the examples and save them in a folder."""
    examples = []
    for number, (seed, class_names) in enumerate(SCENES.items(), 1):
        examples.append(Example(folder / f'drawn_{number}.png', class_names))
        Image.fromarray(draw_scene(seed).image).save(examples[-1].file)
    return examples
