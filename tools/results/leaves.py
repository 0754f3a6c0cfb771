"""The configs of this repository: the dataset and the setting of each."""
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mmcv import Config
from mmcv.utils import get_logger

from datasets import DatasetFacts
from models.training_labels import Setting
from tools.engine.build import dataset_facts
from tools.engine.config import REPOSITORY, load_config

CROSS_DATASET = 'cross_dataset'  # no training: a model of other classes is tested


class Leaf(NamedTuple):
    """A complete config, not a base of one."""
    name: str  # its path in the repository
    config: Config
    facts: DatasetFacts
    setting: str  # a value of `Setting`, or CROSS_DATASET

    @property
    def protocol(self) -> str | None:
        """A name of `tools.results.published.PROTOCOLS`; None for a dataset without published scores."""
        return self.config.get('protocol')


@cache
def leaves() -> dict[str, Leaf]:
    """Read all configs but bases, by their path in the repository; skip one that cannot be read, with a warning."""
    read = {}
    for path in sorted((REPOSITORY / 'configs').rglob('*.py')):
        name = path.relative_to(REPOSITORY)
        if '_base_' in name.parts:
            continue
        try:
            config = load_config(Namespace(config=str(path), data_root=None, options=[], cfg_options=[]))
            facts = dataset_facts(config)
            setting = CROSS_DATASET if config.get('cross_dataset') else setting_of(config.model, facts.split.unseen)
            read[str(name)] = Leaf(str(name), config, facts, setting)
        except (ValueError, AttributeError, KeyError) as error:  # a file of the user's own
            get_logger('mmseg').warning('%s is left out: %s', name, error)
    return read


def setting_of(model: Mapping, unseen: Sequence) -> str:
    """Return the setting of a config's `model`, ours or official, for a dataset with these unseen classes."""
    novel = model.get('novel_class')
    if not unseen or (novel is not None and len(novel) == 0):
        return Setting.FULLY_SUPERVISED.value
    return (Setting.TRANSDUCTIVE if model.get('self_training') else Setting.INDUCTIVE).value


def called(file_name: str) -> list[Leaf]:
    """List the leaves with this file name, in any folder."""
    return [leaf for leaf in leaves().values() if Path(leaf.name).name == file_name]
