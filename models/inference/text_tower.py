"""The source of the text encoder: the checkpoint itself, or a CLIP file."""
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import UserError
from ..plugins import REPOSITORY
from ..text_encoder import CLIPTextEncoder
from ..weights import files
from ..weights.clip import holds_text_tower
from ..weights.clip_variant import text_encoder_of
from ..weights.files import Checkpoint
from ..weights.published_files import FOLDER, MODELS

USUAL_CLIP = 'pretrained/ViT-B-16.pt'


class TextTower:
    """Finds and loads the text encoder: from the checkpoint if it holds one, else from the first CLIP file there is.

    Args:
        clip_files: relative paths are looked up in the current folder, the repository and its `pretrained/`.
        model: a config's `model`, as for `text_encoder_of`.
        named: the user named the file, so it must exist.
    """

    def __init__(self, checkpoint: Checkpoint, clip_files: Sequence[str | os.PathLike], model: Mapping, *, named: bool):
        self.checkpoint = None
        if holds_text_tower(checkpoint):  # the model has its own copies of all other weights
            self.checkpoint = checkpoint._replace(weights={name: tensor for name, tensor in checkpoint.weights.items()
                                                           if name.startswith('text_encoder.')})
        self.source, self.model = checkpoint.path, model
        self.files = [*clip_files] or [USUAL_CLIP]
        if named:
            self._file()  # fails now, not at the first new class name

    def load(self) -> CLIPTextEncoder:
        """Load the text encoder.

        Raises:
            UserError: the file is missing or damaged.
        """
        source = self.checkpoint or files.read(self._file())
        self.source = source.path
        return text_encoder_of(source, self.model)

    def _file(self) -> Path:
        for file in self.files:
            for place in (Path(file), REPOSITORY / file, REPOSITORY / FOLDER / Path(file).name,
                          files.downloaded(file)):
                if place and place.exists():
                    return place
        name = next((name for name in MODELS if Path(self.files[0]).name in (name, f'{name}.pt')), None)
        fetch = f'Fetch it with\n    python {REPOSITORY / "tools/download.py"} {name}\nor name' if name else 'Name'
        raise UserError(f'no CLIP file {self.files[0]}, and {self.source} holds no text tower: new class names need '
                        f'one. {fetch} the CLIP that the checkpoint was trained with: clip=FILE (--clip FILE). A '
                        'checkpoint that tools/export.py wrote with its text tower needs no other file.')
