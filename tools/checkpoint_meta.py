"""What a checkpoint of ours says of itself in `meta['clip_rc']`: plain JSON values, enough to test it alone."""
import base64
import hashlib

import numpy as np
import torch
from mmcv import Config

from datasets import DatasetFacts
from models import CLIPRC
from models.clip_checkpoint import Checkpoint
from tools.config import as_data

FORMAT = 1


def describe(model: CLIPRC, config: Config, facts: DatasetFacts) -> dict:
    """The entry `clip_rc` of a checkpoint's meta.

    Class names, split, prompt set, setting, config as data, and the text embeddings (float32, little endian, base64)
    with their hash: the model has no other use for a text tower.
    """
    table = model.class_embeddings().astype('<f4')
    return {
        'format': FORMAT,
        'class_names': list(facts.split.names),
        'split': {'seen': [facts.split.names[index] for index in facts.split.seen],
                  'unseen': [facts.split.names[index] for index in facts.split.unseen]},
        'setting': model.setting.value,
        'prompt_set': facts.prompt_set if isinstance(facts.prompt_set, str) else list(facts.prompt_set),
        'config': as_data(config),
        'text_embeddings': {'shape': list(table.shape), 'sha256': hashlib.sha256(table.tobytes()).hexdigest(),
                            'base64': base64.b64encode(table.tobytes()).decode()},
    }


def is_ours(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint was saved by this project.

    Raises:
        ValueError: by a newer version of it, which this one cannot read.
    """
    entry = checkpoint.meta.get('clip_rc')
    if entry is None:
        return False
    if entry.get('format') != FORMAT:
        raise ValueError(f'{checkpoint.path} has format {entry.get("format")}, this version reads {FORMAT}: update.')
    return True


def iterations_done(checkpoint: Checkpoint) -> int | None:
    """How many iterations of its run a checkpoint has seen; None if it does not tell."""
    last = checkpoint.meta.get('iter')  # mmcv writes the index of the last one, counted from 0
    return last + 1 if isinstance(last, int) else None


def embeddings(checkpoint: Checkpoint, facts: DatasetFacts) -> torch.Tensor | None:
    """The text embeddings (C, E) in a checkpoint of ours; None if it is not ours or of another class list.

    Raises:
        ValueError: they do not have the hash that the checkpoint says.
    """
    if not is_ours(checkpoint):
        return None
    entry = checkpoint.meta['clip_rc']
    prompt_set = entry['prompt_set'] if isinstance(entry['prompt_set'], str) else tuple(entry['prompt_set'])
    if entry['class_names'] != list(facts.split.names) or prompt_set != facts.prompt_set:
        return None
    stored = entry['text_embeddings']
    data = base64.b64decode(stored['base64'])
    if hashlib.sha256(data).hexdigest() != stored['sha256']:
        raise ValueError(f'{checkpoint.path}: its text embeddings are damaged. Copy it again.')
    return torch.from_numpy(np.frombuffer(data, '<f4').reshape(stored['shape']).astype(np.float32))
