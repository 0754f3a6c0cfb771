"""Computes text embeddings of class names and keeps them in a cache."""
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from mmcv.utils import get_logger

from datasets import DatasetFacts
from models.class_names import synonyms
from models.text_encoder import embed_class_names
from models.weights import clip, files
from models.weights.clip_variant import text_encoder_of, text_variant_of
from models.weights.files import Checkpoint
from tools.engine.files import atomic_path


def cached_embeddings(source: Checkpoint, facts: DatasetFacts, **variant: int | str | None) -> torch.Tensor:
    """Compute embeddings (C, E) by a checkpoint's text encoder, once for each encoder, class list and prompt set.

    `variant` is that of `models.weights.clip_variant.text_encoder_of`.
    """
    tower, sizes = clip.text_tower(source), text_variant_of(source, **variant)
    digest = hashlib.sha256(json.dumps([facts.split.names, facts.templates, sizes['transformer_heads'],
                                        sizes['gelu']]).encode())
    for name in sorted(tower):
        digest.update(name.encode())
        digest.update(tower[name].numpy().tobytes())
    cache = Path(os.environ.get('CLIPRC_CACHE') or Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache'))
                 / 'clip-rc') / 'text_embeddings'
    file = cache / f'{digest.hexdigest()[:32]}.npy'
    logger = get_logger('mmseg')
    if file.is_file():
        logger.info('text embeddings: %s (computed before)', file)
        return files.read_embeddings(file)
    logger.info('text embeddings: computing %d classes with %s from %s', len(facts.split.names),
                f'the prompt set {facts.prompt_set!r}' if isinstance(facts.prompt_set, str) else 'your prompts',
                source.path)
    names = [synonyms(name) for name in facts.split.names]
    rows = embed_class_names(text_encoder_of(source, **variant), names, facts.templates)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as part:
            np.save(part, rows.numpy())
    except OSError as error:
        logger.warning('the text embeddings are not kept in %s: %s', cache, error)
    return rows
