"""Build a config's model for its dataset: class names, split and prompt set pass from the data to the model here."""
import os

import torch
from mmcv import Config, ConfigDict
from mmcv.utils import get_logger
from mmseg.datasets import DATASETS
from mmseg.models.builder import MODELS

from datasets import DatasetFacts
from models import CLIPRC
from models.builder import build, compile_layers, compile_windows
from models.errors import UserError
from models.precision import set_tf32
from models.weights import clip, files, metadata
from models.weights.clip_sizes import fill_in, require_clip
from models.weights.clip_variant import text_encoder_of
from models.weights.cliprc import load_weights
from models.weights.files import Checkpoint
from tools.engine.config import as_data, dataset_configs
from tools.engine.embeddings import cached_embeddings, prompts_in_words
from tools.engine.model_settings import amp_type, check_sizes, class_lists


def dataset_facts(config: Config) -> DatasetFacts:
    """Read class names, split, prompt set and background of the test data from the config."""
    dataset = next(dataset_configs(config.data.get('test', {})), None)
    if dataset is None:
        raise UserError('the config\'s data.test names no folder of images (img_dir).')
    return _facts_of(dataset)


def common_facts(config: Config) -> DatasetFacts:
    """Read class names, split and prompt set for a training run; training, evaluation and test data must agree.

    Raises:
        UserError: their class names, splits or prompt sets differ.
    """
    facts = dataset_facts(config)
    for part in ('train', 'val'):
        for dataset in dataset_configs(config.data.get(part, {})):
            other = _facts_of(dataset)
            if (other.split, other.prompt_set) != (facts.split, facts.prompt_set):
                raise UserError(f'data.{part} has other classes, another split or another prompt set than data.test: '
                                'a model is trained and scored on one split.')
    return facts


def _facts_of(dataset: ConfigDict) -> DatasetFacts:
    cls = DATASETS.get(dataset.type)
    if cls is None or not hasattr(cls, 'describe'):
        raise UserError(f'type={dataset.type!r} in the config\'s data is not a zero-shot dataset of this project.')
    return cls.describe(**{key: dataset.get(key) for key in ('classes', 'unseen', 'prompt_set', 'background')})


def build_model(config: Config, checkpoint: Checkpoint | None = None) -> CLIPRC:
    """Build the config's model for the config's dataset, with initial weights and without text embeddings.

    `amp` becomes the model's `amp_dtype`, and `tf32` a setting of this process.

    CLIP sizes that are missing in the config are added to it, from `checkpoint`, whose weights the model will get, or
    from the CLIP file (`clip_sizes.fill_in`). Class lists of an official config must match the dataset's split.

    Raises:
        UserError: sizes, lists or splits that do not fit each other, or an unknown argument.
    """
    split = dataset_facts(config).split
    if len(split.names) < 2:
        raise UserError(f'the dataset has one class, {split.names[0]}: two are needed, and background can be one.')
    fill_in(config, checkpoint)
    model = config.model.copy()
    model.update(class_lists(config, split), load_text_embedding=None, text_encoder=None)
    check_sizes(config)
    amp_dtype = amp_type(config)
    set_tf32(bool(config.get('tf32')))
    built = build(model)
    built.amp_dtype = amp_dtype
    if config.get('compile'):
        compile_layers(built)
    if config.get('compile') == 'reduce-overhead':
        compile_windows(built)
    return built


def trained_model(config: Config, checkpoint: Checkpoint) -> CLIPRC:
    """Build the config's model with the weights of a checkpoint of its classes, and with text embeddings.

    Raises:
        UserError: the checkpoint does not fit the config, or there are no embeddings.
    """
    model = build_model(config, checkpoint)
    check_classes(checkpoint, config)
    load_weights(model, checkpoint)
    give_text_embeddings(model, config, checkpoint)
    return model


def warn_of_other_parts(checkpoint: Checkpoint, config: Config) -> None:
    """Warn if the checkpoint was trained with another type of encoder or head than the config's.

    Loading the weights does not show this if both types have tensors of the same names.
    """
    description = metadata.description(checkpoint)
    for part in ('backbone', 'decode_head') if description else ():
        trained, tested = (model[part]['type'] for model in (description.config['model'], config.model))
        if MODELS.get(trained) is not MODELS.get(tested):
            get_logger('mmseg').warning('%s was trained with the %s %s, the config has %s', checkpoint.path, part,
                                        trained, tested)


def describe(model: CLIPRC, config: Config) -> dict:
    """Make the metadata of a checkpoint of the config's training."""
    facts = dataset_facts(config)
    return metadata.entry_of(metadata.Description(
        facts.split.names, facts.split.unseen_names, model.setting.value, facts.prompt_set, as_data(config),
        model.class_head.embeddings.cpu()))


def check_classes(checkpoint: Checkpoint, config: Config) -> None:
    """Check that a checkpoint was trained on the config's classes, unless the config has `cross_dataset=True`.

    Raises:
        UserError: its metadata names other classes.
    """
    trained_on = checkpoint.meta.get('CLASSES')
    names = dataset_facts(config).split.names
    if config.get('cross_dataset') or not trained_on or tuple(trained_on) == names:
        return
    different = [f'{where} {only[0]} ({len(only)} in all)' for where, only in (
        ('only there', [name for name in trained_on if name not in names]),
        ('only here', [name for name in names if name not in trained_on])) if only]
    raise UserError(f'{checkpoint.path} was trained on {len(trained_on)} classes, the config\'s dataset has '
                    f'{len(names)}: {", ".join(different) or "the same in another order"}. Use the config of the '
                    'checkpoint (tools/inspect_checkpoint.py finds it). To test it on classes it was not trained on: '
                    'a config of configs/cross_dataset, or --cfg-options cross_dataset=True.')


def embedding_file(config: Config) -> str | None:
    """Return the file `load_text_embedding` of a config if it exists. It is used then, and `prompt_set` is not."""
    named = config.model.get('load_text_embedding')
    return named if named is not None and os.path.exists(named) else None


def give_text_embeddings(model: CLIPRC, config: Config, checkpoint: Checkpoint | None = None) -> None:
    """Set the text embeddings of a model from `build_model`, which has the classes and split of the config's dataset.

    They come from the first of these that exists: the file `load_text_embedding`; a checkpoint of ours of the same
    classes; the text encoder in an official checkpoint; the CLIP file `pretrained_text`. Computed ones are cached.

    Raises:
        UserError: there are no embeddings, or they do not fit.
    """
    logger, facts, named = get_logger('mmseg'), dataset_facts(config), embedding_file(config)
    known = checkpoint and metadata.description(checkpoint)
    stored = known.embeddings if known and (tuple(known.class_names), known.prompt_set) == (
        facts.split.names, facts.prompt_set) else None
    if named is None and config.model.get('load_text_embedding') is not None:
        logger.warning('no embedding file %s: those of the checkpoint are taken, or new ones are computed',
                       config.model.load_text_embedding)
    if named is not None:
        rows, source = files.read_embeddings(named), named
        logger.info('text embeddings: %s (prompt_set has no effect on them)', named)
        if stored is not None and not torch.equal(stored, rows):
            logger.warning('%s differs from the embeddings that the checkpoint was trained with; the file is used. '
                           'Remove load_text_embedding to use the checkpoint\'s.', named)
    elif stored is not None:
        rows, source = stored, checkpoint.path
        logger.info('text embeddings: those in %s, with %s', source, prompts_in_words(facts))
    else:
        tower = checkpoint if checkpoint is not None and clip.holds_text_tower(checkpoint) else files.read(
            require_clip(config.model.get('pretrained_text') or config.model.get('pretrained')))
        rows, source = cached_embeddings(text_encoder_of(tower, config.model), facts, tower.path), tower.path
    model.class_head.set_classes(len(facts.split.names), rows, source=source)
