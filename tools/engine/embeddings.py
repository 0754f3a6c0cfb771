"""Computes text embeddings of class names, keeps them in a cache, and finds those that are alike."""
import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmcv.utils import get_logger

from datasets import DatasetFacts
from models.class_names import synonyms
from models.text_encoder import CLIPTextEncoder, embed_class_names
from models.weights import files
from tools.engine.files import atomic_path

ROWS = 256  # classes that are compared with all later ones together: 10 MB for 10,000 classes
ROUNDING = 1e-6  # of a cosine in float32


class Similar(NamedTuple):
    """Pairs of classes whose embeddings are alike, the most alike first."""
    pairs: np.ndarray  # (pairs, 2) class indices, the smaller one first
    cosines: np.ndarray  # (pairs,)
    neighbours: np.ndarray  # (C,) classes that each class is alike to, those of pairs that are left out too


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
        logger.info('text embeddings: %s (computed before, with %s)', file, prompts_in_words(facts))
        return files.read_embeddings(file)
    logger.info('text embeddings: computing %d classes with %s from %s', len(facts.split.names),
                prompts_in_words(facts), source)
    names = [synonyms(name) for name in facts.split.names]
    rows = embed_class_names(encoder, names, facts.templates)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as part:
            np.save(part, rows.numpy())
    except OSError as error:
        logger.warning('the text embeddings are not kept in %s: %s', cache, error)
    return rows


def prompts_in_words(facts: DatasetFacts) -> str:
    """Name the prompts of a dataset for a message."""
    return f'the prompt set {facts.prompt_set!r}' if isinstance(facts.prompt_set, str) else 'your prompts'


def similar_pairs(embeddings: np.ndarray, cosine: float, most: int) -> Similar:
    """Find the pairs of embeddings (C, E) with at least a cosine.

    They are compared in blocks of rows: memory grows with C and `most`, and time with C * C.

    Args:
        most: pairs to return; of more, the most alike.
    """
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    pairs, cosines = np.empty((0, 2), dtype=int), np.empty(0, dtype=directions.dtype)
    neighbours = np.zeros(len(directions), dtype=int)
    for start in range(0, len(directions), ROWS):
        block = directions[start:start + ROWS] @ directions[start:].T
        found = np.argwhere(np.triu(block >= cosine - ROUNDING, k=1))  # each pair once
        pairs, cosines = np.concatenate([pairs, found + start]), np.concatenate([cosines, block[tuple(found.T)]])
        neighbours += np.bincount((found + start).ravel(), minlength=len(neighbours))
        best = np.argsort(-cosines, kind='stable')[:most]
        pairs, cosines = pairs[best], cosines[best]
    return Similar(pairs, cosines, neighbours)
