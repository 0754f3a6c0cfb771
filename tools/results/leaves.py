"""The configs of this repository: the dataset and the setting of each."""
from functools import cache
from typing import NamedTuple

from mmcv import Config
from mmcv.utils import get_logger

from datasets import ClassSplit
from models.training_labels import setting_of
from tools.engine.build import dataset_facts
from tools.engine.config import REPOSITORY, load_config
from tools.engine.model_settings import class_lists

CROSS_DATASET = 'cross_dataset'  # no training: a model of other classes is tested


class Leaf(NamedTuple):
    """A complete config, not a base of one."""
    name: str  # its path in the repository
    config: Config
    split: ClassSplit  # of the classes as scores count them
    setting: str  # a value of `Setting`, or CROSS_DATASET
    protocol: str | None  # a name of `tools.results.published.PROTOCOLS`; None: no scores are published


@cache
def leaves() -> dict[str, Leaf]:
    """Read all configs but bases, by their path in the repository; skip one that cannot be read, with a warning."""
    read = {}
    for path in sorted((REPOSITORY / 'configs').rglob('*.py')):
        name = path.relative_to(REPOSITORY)
        if '_base_' in name.parts:
            continue
        try:
            config = load_config(path)
            facts = dataset_facts(config)
            setting = CROSS_DATASET if config.get('cross_dataset') else setting_of(
                len(facts.split.names), class_lists(config, facts.split)['base_class'],
                self_training=config.model.get('self_training', False)).value
            read[str(name)] = Leaf(str(name), config, facts.scored, setting, config.get('protocol'))
        except (ValueError, AttributeError, KeyError) as error:  # a file of the user's own
            get_logger('mmseg').warning('%s is left out: %s', name, error)
    return read
