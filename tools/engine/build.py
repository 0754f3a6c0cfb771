"""A model for a dataset: the one place where class names, split and prompt set go from the data to the model."""
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from mmcv import Config, ConfigDict
from mmcv.utils import get_logger
from mmseg.datasets import DATASETS
from mmseg.models.builder import MODELS

from datasets import DatasetFacts
from models import CLIPRC, plugins
from models.class_names import synonyms
from models.errors import UserError
from models.segmentor import build
from models.sliding_window import sliding
from models.text_encoder import embed_class_names
from models.weights import clip, cliprc, files, metadata
from models.weights.clip_variant import text_encoder_of, text_options, text_variant_of
from models.weights.files import Checkpoint
from tools.engine.clip_sizes import fill_in, require_clip
from tools.engine.config import as_data, dataset_configs

WINDOW_SETTINGS = ('mode', 'crop_size', 'stride', 'windows_per_batch')  # of a config's model.test_cfg


def dataset_facts(config: Config) -> DatasetFacts:
    """Class names, split and prompt set of the config's test data, without a look at any file."""
    dataset = next(dataset_configs(config.data.get('test', {})), None)
    if dataset is None:
        raise UserError('the config\'s data.test names no folder of images (img_dir).')
    return _facts_of(dataset)


def common_facts(config: Config) -> DatasetFacts:
    """The same for a training run, whose training and evaluation data must agree with the test data.

    Raises:
        UserError: they name other classes, another split or other prompts.
    """
    facts = dataset_facts(config)
    for part in ('train', 'val'):
        for dataset in dataset_configs(config.data.get(part, {})):
            if _facts_of(dataset) != facts:
                raise UserError(f'data.{part} has other classes, another split or another prompt set than data.test: '
                                'a model is trained and scored on one split.')
    return facts


def _facts_of(dataset: ConfigDict) -> DatasetFacts:
    cls = DATASETS.get(dataset.type)
    if cls is None or not hasattr(cls, 'describe'):
        raise UserError(f'type={dataset.type!r} in the config\'s data is no zero-shot dataset of this project.')
    return cls.describe(**{key: dataset.get(key) for key in ('classes', 'unseen', 'prompt_set')})


def build_model(config: Config, checkpoint: Checkpoint | None = None) -> CLIPRC:
    """The config's model for the config's dataset, with initial weights and no text embeddings yet.

    What the config leaves out of its CLIP's sizes is written into it, from the checkpoint whose weights the model will
    get, or from the CLIP file (`clip_sizes.fill_in`). Lists that an official config holds are checked against the
    dataset's split.

    Raises:
        UserError: sizes, lists or splits that do not fit each other, or an argument that no part knows.
    """
    split = dataset_facts(config).split
    if len(split.names) < 2:
        raise UserError(f'the dataset has one class, {split.names[0]}: a model tells classes apart, it needs two at '
                        'least. Background can be one.')
    fill_in(config, checkpoint)
    model = config.model.copy()
    fully = model.get('novel_class') is not None and len(model.novel_class) == 0
    lists = {'both_class': list(range(len(split.names))),
             'base_class': list(range(len(split.names))) if fully else split.seen,
             'novel_class': [] if fully else split.unseen}
    for name, known in lists.items():
        if model.get(name) is not None and sorted(model[name]) != known:
            raise UserError(f'model.{name}={list(model[name])} differs from the dataset\'s split, where it is '
                            f'{known}. Leave it out: the dataset knows its split.')
    model.update(lists, load_text_embedding=None, text_encoder=None)
    _check_sizes(config)
    amp_dtype, compiles = _amp_dtype(config), config.get('compile', False)
    if not isinstance(compiles, bool):
        raise UserError(f'compile={compiles!r} is neither True nor False.')
    built = build(model)
    built.amp_dtype = amp_dtype
    if compiles:
        built.compile_layers()
    return built


def _amp_dtype(config: Config) -> torch.dtype | None:
    """The type that the config's `amp=dict(dtype='bfloat16')` names; None without one."""
    amp = config.get('amp')
    if amp is None:
        return None
    known = {'bfloat16': torch.bfloat16, 'float16': torch.float16}
    if not isinstance(amp, dict) or set(amp) != {'dtype'} or amp['dtype'] not in known:
        raise UserError(f'amp={amp!r}: amp.dtype is bfloat16 or float16 (in a config amp=dict(dtype=\'bfloat16\')); '
                        'amp=None is float32.')
    return known[amp['dtype']]


def load_weights(model: CLIPRC, checkpoint: Checkpoint) -> None:
    """The checkpoint's weights into the model, strictly.

    A slim checkpoint has no recovery decoder: the model's own, which only training needs, stays as it is.

    Raises:
        UserError: they do not fit; the message names the file and the tensors.
    """
    cliprc.check_clip_rc(checkpoint)
    weights = checkpoint.weights
    if metadata.is_slim(checkpoint):
        weights = cliprc.completed(weights, model.state_dict())
    try:
        model.load_state_dict(weights)
    except UserError as error:
        own = own_modules(checkpoint)
        told = f'\nIt was trained with modules of the user\'s own: {", ".join(own)} (custom_imports).' if own else ''
        raise UserError(f'{checkpoint.path}: {error}{told}') from error


def own_modules(checkpoint: Checkpoint) -> list[str]:
    """The modules of the user's own that a checkpoint of ours was trained with."""
    told = metadata.description(checkpoint)
    return plugins.names(told.config) if told else []


def warn_of_other_parts(checkpoint: Checkpoint, config: Config) -> None:
    """Says when the config's encoder or head is another than that which a checkpoint of ours was trained with.

    Weights alone do not show it, if both have tensors of the same names.
    """
    told = metadata.description(checkpoint)
    for part in ('backbone', 'decode_head') if told else ():
        trained, tested = (model[part]['type'] for model in (told.config['model'], config.model))
        if MODELS.get(trained) is not MODELS.get(tested):
            get_logger('mmseg').warning('%s was trained with the %s %s, the config has %s', checkpoint.path, part,
                                        trained, tested)


def describe(model: CLIPRC, config: Config) -> dict:
    """What a checkpoint of the config's training says of itself."""
    facts = dataset_facts(config)
    return metadata.describe(class_names=facts.split.names, unseen_names=facts.split.unseen_names,
                                    setting=model.setting.value, prompt_set=facts.prompt_set, config=as_data(config),
                                    embeddings=model.class_embeddings())


def check_classes(checkpoint: Checkpoint, config: Config) -> None:
    """A checkpoint is tested on the classes that it was trained on, unless the config says `cross_dataset=True`.

    Raises:
        UserError: it says which classes it was trained on, and they are others.
    """
    trained_on = checkpoint.meta.get('CLASSES')
    names = dataset_facts(config).split.names
    if config.get('cross_dataset') or not trained_on or tuple(trained_on) == names:
        return
    lost = [name for name in trained_on if name not in names]
    new = [name for name in names if name not in trained_on]
    differences = [f'{what}: {"; ".join(some[:5])}{f" and {len(some) - 5} more" if len(some) > 5 else ""}'
                   for what, some in (('only there', lost), ('only here', new)) if some]
    raise UserError(f'{checkpoint.path} was trained on {len(trained_on)} classes, the config\'s dataset has '
                    f'{len(names)}: {", ".join(differences) or "the same in another order"}. Use the config of the '
                    'checkpoint (tools/inspect_checkpoint.py finds it). To test it on classes it was not trained on: '
                    'a config of configs/cross_dataset, or --cfg-options cross_dataset=True.')


def _check_sizes(config: Config) -> None:
    """Crops and windows have the size that the model was built for; nothing else is said of windows."""
    windows = config.model.get('test_cfg')
    if not isinstance(windows, dict):
        raise UserError(f'model.test_cfg={windows!r}: a dict is needed, with {", ".join(WINDOW_SETTINGS)}.')
    unknown = [f'model.test_cfg.{name}' for name in windows if name not in WINDOW_SETTINGS]
    if unknown:
        raise UserError(f'{", ".join(unknown)}: test_cfg has {", ".join(WINDOW_SETTINGS)}.')
    if windows.get('mode', 'slide') not in ('slide', 'whole'):
        raise UserError(f'model.test_cfg.mode={windows.mode!r} is neither slide nor whole.')
    if windows.get('mode', 'slide') == 'slide' and windows.get('crop_size') and windows.get('stride'):
        sliding(windows.crop_size, windows.crop_size, windows.stride)
    at_once = windows.get('windows_per_batch')
    if at_once is not None and (type(at_once) is not int or at_once < 1):
        raise UserError(f'model.test_cfg.windows_per_batch={at_once!r} is no whole number from 1 up.')
    size = config.model.decode_head.get('img_size', 512)
    resolution = config.model.backbone.get('input_resolution', 512)
    if size != resolution:
        raise UserError(f'model.decode_head.img_size={size} but model.backbone.input_resolution={resolution}: '
                        'they are the same size, that of a training crop and of a test window.')
    crops = [('model.test_cfg.crop_size', config.model.test_cfg.get('crop_size'))]
    for dataset in dataset_configs(config.data.get('train', {})):
        crops += [(f'{step.type} of the training pipeline', step.get('crop_size', step.get('size')))
                  for step in dataset.get('pipeline', []) if step.type in ('RandomCrop', 'Pad')]
    for where, crop in crops:
        if crop is not None and tuple(crop) != (size, size):
            raise UserError(f'{where} is {tuple(crop)}, but this model is built for {size}x{size} pixels '
                            '(model.backbone.input_resolution, model.decode_head.img_size): make them equal.')


def give_text_embeddings(model: CLIPRC, config: Config, checkpoint: Checkpoint | None = None) -> None:
    """Gives the model the text embeddings of the dataset's classes.

    They come from the first of these that is there: the file named by `load_text_embedding`; our own checkpoint,
    when it is of these classes; the text tower in an official checkpoint; the CLIP file `pretrained_text`, whose
    result is kept.

    Raises:
        UserError: there is none, or it does not fit.
    """
    facts = dataset_facts(config)
    head = model.decode_head.class_head
    logger = get_logger('mmseg')
    named = config.model.get('load_text_embedding')
    stored = None if checkpoint is None else metadata.embeddings(checkpoint, facts.split.names, facts.prompt_set)
    if named is not None and os.path.exists(named):
        head.set_embeddings(files.read_embeddings(named), source=named)
        logger.info('text embeddings: %s', named)
        if stored is not None and not torch.equal(stored, head.embeddings.cpu()):
            logger.warning('%s differs from the embeddings that the checkpoint was trained with; the file is used. '
                           'Remove load_text_embedding to use the checkpoint\'s.', named)
        return
    if named is not None:
        logger.warning('no embedding file %s: those of the checkpoint are taken, or new ones are computed', named)
    if stored is not None:
        head.set_embeddings(stored, source=checkpoint.path)
        logger.info('text embeddings: those in %s', checkpoint.path)
        return
    holds_one = checkpoint is not None and clip.holds_text_tower(checkpoint)
    tower = checkpoint if holds_one else files.read(require_clip(
        config.model.get('pretrained_text') or config.model.get('pretrained')))
    head.set_embeddings(cached_embeddings(tower, facts, **text_options(config.model)), source=tower.path)


def cached_embeddings(source: Checkpoint, facts: DatasetFacts, **told: int | str | None) -> torch.Tensor:
    """Embeddings (C, E) by a checkpoint's text tower, computed once for each tower, class list and prompt set.

    Args:
        told: heads, gelu and name, as for `models.weights.clip_variant.text_encoder_of`.

    Raises:
        UserError: as there.
    """
    tower = clip.text_tower(source)
    built = text_variant_of(source, **told)
    digest = hashlib.sha256(json.dumps([facts.split.names, facts.templates, built['transformer_heads'],
                                        built['gelu']]).encode())
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
    rows = embed_class_names(text_encoder_of(source, **told), names, facts.templates)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f'.{os.getpid()}.part')
        with part.open('wb') as stream:
            np.save(stream, rows.numpy())
        part.replace(file)
    except OSError as error:
        logger.warning('the text embeddings are not kept in %s: %s', cache, error)
    return rows
