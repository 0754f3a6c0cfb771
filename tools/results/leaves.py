"""The configs of this repository as data: what each is trained and tested on, and the sizes of its model."""
import math
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


class Sizes(NamedTuple):
    """What of a model's build its weights show; None for what a config leaves to the CLIP file."""
    prompts: int  # P, prompt tokens before every block
    regions: int  # R, region tokens
    resolution: int  # side of an image in pixels
    patch: int | None  # side of a patch in pixels
    width: int | None
    layers: int | None
    space: int | None  # E, width of CLIP's common space
    decoder_layers: int
    recovery_layers: int  # 0: no recovery decoder

    def fits(self, weights: 'Sizes') -> bool:
        """Whether a model of these sizes loads such weights; a recovery decoder that it has no use for is dropped."""
        return self.on(weights._asdict()) in (weights, weights._replace(recovery_layers=0))

    def fits_clip(self, patch: int, width: int, layers: int, space: int) -> bool:
        """Whether a model of these sizes can be built on a CLIP of those: whole patches, and in them whole regions."""
        sizes = self.on({'patch': patch, 'width': width, 'layers': layers, 'space': space})
        side = max(1, math.isqrt(self.regions))
        return sizes[3:7] == (patch, width, layers, space) and self.resolution % (patch * side) == 0

    def on(self, clip: Mapping[str, int]) -> 'Sizes':
        """These, and for what is left out those of `clip`."""
        return self._replace(**{name: clip[name] for name, value in self._asdict().items() if value is None})

    @property
    def of_any_clip(self) -> bool:
        return self.width is None


class Leaf(NamedTuple):
    """A config that is whole."""
    name: str  # its path in the repository
    config: Config
    facts: DatasetFacts
    setting: str  # a value of `Setting`, or CROSS_DATASET
    sizes: Sizes

    @property
    def protocol(self) -> str | None:
        """A name of `tools.results.published.PROTOCOLS`; None for a dataset that no one else scores on."""
        return self.config.get('protocol')


@cache
def leaves() -> dict[str, Leaf]:
    """Path in the repository -> leaf, of all configs but bases. One that cannot be read is left out with a warning."""
    found = {}
    for path in sorted((REPOSITORY / 'configs').rglob('*.py')):
        name = path.relative_to(REPOSITORY)
        if '_base_' in name.parts:
            continue
        try:
            config = load_config(Namespace(config=str(path), data_root=None, options=[], cfg_options=[]))
            facts = dataset_facts(config)
            setting = CROSS_DATASET if config.get('cross_dataset') else setting_of(config.model, facts.split.unseen)
            found[str(name)] = Leaf(str(name), config, facts, setting, sizes_of(config.model))
        except (ValueError, AttributeError, KeyError) as error:  # a file of the user's own
            get_logger('mmseg').warning('%s is left out: %s', name, error)
    return found


def setting_of(model: Mapping, unseen: Sequence) -> str:
    """The setting of a config's `model`, of ours or an official one, for a dataset with these unseen classes."""
    novel = model.get('novel_class')
    if not unseen or (novel is not None and len(novel) == 0):
        return Setting.FULLY_SUPERVISED.value
    return (Setting.TRANSDUCTIVE if model.get('self_training') else Setting.INDUCTIVE).value


def sizes_of(model: Config) -> Sizes:
    """The sizes that a config's `model` names."""
    encoder, head = model.backbone, model.decode_head
    recovers = head.loss_decode.recovery_loss_weight != 0
    return Sizes(prompts=encoder.num_tokens, regions=encoder.region_level_bridge_size,
                 resolution=encoder.input_resolution, patch=encoder.get('patch_size'), width=encoder.get('width'),
                 layers=encoder.get('layers'), space=encoder.get('output_dim'), decoder_layers=head.num_layers,
                 recovery_layers=head.recovery_decoder_num_layers if recovers else 0)


def called(file_name: str) -> list[Leaf]:
    """The leaves whose file has this name, whatever its folder."""
    return [leaf for leaf in leaves().values() if Path(leaf.name).name == file_name]
