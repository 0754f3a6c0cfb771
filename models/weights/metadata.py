"""The metadata of our checkpoints, `meta['clip_rc']`: plain JSON values, enough to use a checkpoint alone."""
import base64
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import plugins
from ..class_names import PROMPT_SETS
from ..errors import UserError
from ..training_labels import Setting, setting_of
from .config_text import read_config_text
from .files import Checkpoint

FORMAT = 1
SLIM = 'slim'  # entry of checkpoints from tools/export.py: the number format of their weights


class Description(NamedTuple):
    """The metadata of a checkpoint of ours."""
    class_names: Sequence[str]
    unseen_names: Sequence[str]
    setting: str  # a value of `Setting`
    prompt_set: str | Sequence[str]
    config: dict  # of its training, as plain JSON values
    embeddings: Tensor  # (C, E) of its class names


class Training(NamedTuple):
    """The classes of a checkpoint's training; None for what it does not record."""
    class_names: Sequence[str] | None
    unseen_names: Sequence[str] | None
    setting: str | None  # a value of `Setting`

    @property
    def names_used(self) -> list[str] | None:
        """Return the class names that training used: without those of unseen classes in the inductive setting."""
        if self.setting is None:
            return None
        left_out = self.unseen_names if self.setting == Setting.INDUCTIVE.value else ()
        return [name for name in self.class_names if name not in left_out]


def entry_of(description: Description) -> dict:
    """Make the entry `clip_rc` of a checkpoint's meta, which `description` reads.

    The text embeddings are stored as base64 of little-endian float32, with their hash: a test needs no text tower.
    """
    class_names, unseen_names, setting, prompt_set, config, embeddings = description
    table = embeddings.numpy().astype('<f4')
    return {
        'format': FORMAT,
        'class_names': list(class_names),
        'split': {'seen': [name for name in class_names if name not in unseen_names],
                  'unseen': [name for name in class_names if name in unseen_names]},
        'setting': setting,
        'prompt_set': prompt_set if isinstance(prompt_set, str) else list(prompt_set),
        'config': config,
        'text_embeddings': {'shape': list(table.shape), 'sha256': hashlib.sha256(table.tobytes()).hexdigest(),
                            'base64': base64.b64encode(table.tobytes()).decode()},
    }


def is_ours(checkpoint: Checkpoint) -> bool:
    """Tell whether a checkpoint was saved by this project.

    Raises:
        UserError: a newer version saved it, in a format that this one does not know.
    """
    entry = checkpoint.meta.get('clip_rc')
    if entry is None:
        return False
    if entry.get('format') != FORMAT:
        raise UserError(f'{checkpoint.path} has format {entry.get("format")}, this version reads {FORMAT}: update.')
    return True


def is_slim(checkpoint: Checkpoint) -> bool:
    """Tell whether a checkpoint holds only the weights for inference: no recovery decoder."""
    return is_ours(checkpoint) and SLIM in checkpoint.meta['clip_rc']


def iterations_done(checkpoint: Checkpoint) -> int | None:
    """Return the iterations of a checkpoint's run; None if its meta does not have them."""
    last = checkpoint.meta.get('iter')  # mmcv writes the index of the last one, counted from 0
    return last + 1 if isinstance(last, int) else None


def description(checkpoint: Checkpoint) -> Description | None:
    """Read the metadata of a checkpoint of ours; None if it is not ours.

    Raises:
        UserError: values are missing or damaged, or the embeddings do not have the recorded hash.
    """
    if not is_ours(checkpoint):
        return None
    entry = checkpoint.meta['clip_rc']
    try:
        stored, prompt_set, unseen = entry['text_embeddings'], entry['prompt_set'], entry['split']['unseen']
        names, setting, config = entry['class_names'], entry['setting'], entry['config']
        data = base64.b64decode(stored['base64'])
        # A checkpoint names no text file of prompts: nothing but a known set is looked up.
        prompts = [*PROMPT_SETS.keys() & {prompt_set}] if isinstance(prompt_set, str) else prompt_set
        table = np.frombuffer(data, '<f4').reshape(stored['shape']).astype(np.float32)
        if not prompts or not isinstance(config, dict) or table.ndim != 2 or len(table) != len(names) or \
                hashlib.sha256(data).hexdigest() != stored['sha256'] or not all(
                    isinstance(texts, list) and all(isinstance(text, str) and text.isprintable() for text in texts)
                    for texts in (names, unseen, prompts, [setting])):
            raise ValueError('values of another type, or embeddings of another size or hash')
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f'{checkpoint.path}: its metadata (meta) are damaged. Copy it again.') from error
    return Description(names, unseen, setting, prompt_set if isinstance(prompt_set, str) else tuple(prompt_set), config,
                       torch.from_numpy(table))


def training(checkpoint: Checkpoint) -> Training:
    """Read the classes and the setting of a checkpoint's training, also of one saved by mmsegmentation.

    mmsegmentation saves class names, and the config as text.

    Raises:
        UserError: the metadata are damaged, or see `description`.
    """
    if ours := description(checkpoint):
        return Training(ours.class_names, ours.unseen_names, ours.setting)
    names = [str(name) for name in checkpoint.meta.get('CLASSES') or ()] or None
    try:
        model = read_config_text(checkpoint.meta.get('config') or '').get('model') or {}
        novel = model.get('novel_class') if names else None
        if novel is None:
            return Training(names, None, None)
        unseen = [names[index] for index in novel]
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f'{checkpoint.path}: its metadata (meta) are damaged. Copy it again.') from error
    setting = setting_of(len(names), [*{*names} - {*unseen}], self_training=model.get('self_training', False))
    return Training(names, unseen, setting.value)


def own_modules(checkpoint: Checkpoint) -> list[str]:
    """List the user's own modules (`custom_imports`) that a checkpoint of ours was trained with."""
    known = description(checkpoint)
    return plugins.names(known.config) if known else []
