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
from models.text_encoder import CLIPTextEncoder, embed_class_names
from models.weights import files
from tools.engine.files import atomic_path


def cached_embeddings(encoder: CLIPTextEncoder, facts: DatasetFacts, source: str) -> torch.Tensor:
    """Compute embeddings (C, E) by a text encoder, once for each encoder, class list and prompt set.

    Args:
        source: file of the encoder, for messages.
    """
    block = encoder.transformer.resblocks[0]
    digest = hashlib.sha256(json.dumps([facts.split.names, facts.templates, block.attn.heads,
                                        str(block.mlp.gelu)]).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    cache = Path(os.environ.get('CLIPRC_CACHE') or Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache'))
                 / 'clip-rc') / 'text_embeddings'
    file = cache / f'{digest.hexdigest()[:32]}.npy'
    logger = get_logger('mmseg')
    if file.is_file():
        logger.info('text embeddings: %s (computed before)', file)
        return files.read_embeddings(file)
    logger.info('text embeddings: computing %d classes with %s from %s', len(facts.split.names),
                f'the prompt set {facts.prompt_set!r}' if isinstance(facts.prompt_set, str) else 'your prompts',
                source)
    names = [synonyms(name) for name in facts.split.names]
    rows = embed_class_names(encoder, names, facts.templates)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as part:
            np.save(part, rows.numpy())
    except OSError as error:
        logger.warning('the text embeddings are not kept in %s: %s', cache, error)
    return rows
