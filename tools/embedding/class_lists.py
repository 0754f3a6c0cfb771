"""Class lists of tools/text_embeddings.py, and the similarity of their embeddings."""
from argparse import Namespace
from pathlib import Path

import numpy as np
from mmcv import Config

from datasets import BY_NAME, ClassSplit, DatasetFacts
from models.class_names import lines_of
from models.errors import UserError
from tools.engine.build import dataset_facts
from tools.engine.config import load_config


def facts_of(classes: str, prompts: str | None) -> tuple[DatasetFacts, Config | None]:
    """Read class names and prompts from the command line's arguments; give the config too, if it is one.

    Raises:
        UserError: no such dataset or file, or invalid names or prompts.
    """
    config = None
    if classes in BY_NAME:
        facts = BY_NAME[classes].describe()
    elif classes.endswith('.py'):
        config = load_config(Namespace(config=classes, data_root=None, options=[], cfg_options=[]))
        facts = dataset_facts(config)
    elif Path(classes).is_file():
        facts = DatasetFacts(ClassSplit(tuple(lines_of(classes, 'class names'))), 'coco15')
    else:
        raise UserError(f'{classes} is not a dataset ({", ".join(BY_NAME)}), a config or a text file of class names.')
    if prompts is not None:
        facts = DatasetFacts(facts.split, prompts)
    return facts, config


def nearest(rows: np.ndarray, names: tuple[str, ...], count: int = 5) -> list[str]:
    """List the most similar pairs of classes, `a ~ b 0.95`."""
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    first, second = np.triu_indices(len(names), k=1)
    similarity = (directions[first] * directions[second]).sum(axis=1)
    return [f'{names[first[pair]]} ~ {names[second[pair]]} {similarity[pair]:.3f}'
            for pair in (-similarity).argsort()[:count]]
