"""The miniature: a drawn world, the small CLIP and model that ship with the project, and the experiment on them."""
from pathlib import Path

CLIP = Path(__file__).with_name('clip.pt')
