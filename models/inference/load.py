"""From a checkpoint to a model that takes any class names."""
import os

import torch
from mmcv import Config, ConfigDict
from mmseg.datasets import DATASETS

from ..builder import build
from ..class_names import PROMPT_SETS
from ..errors import UserError
from ..plugins import read_config
from ..precision import set_tf32
from ..training_labels import Setting
from ..weights import cliprc, files, metadata
from ..weights.clip_sizes import fill_in
from ..weights.config_text import read_config_text
from ..weights.files import Checkpoint
from .limits import check_image_sizes, check_parts
from .segmenter import Segmenter
from .text_tower import TextTower

# A damaged config in a checkpoint can raise any of these.
DAMAGE = (TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, AssertionError)


def load_model(checkpoint: str | os.PathLike | Checkpoint, config: str | os.PathLike | Config | None = None, *,
               clip: str | os.PathLike | None = None, device: str | torch.device | None = None,
               clip_name: str | None = None, amp: str | None = None) -> Segmenter:
    """Load a model that segments any image by any class names.

    PyTorch's TF32 settings, which hold for the whole process, become the config's `tf32`: by default products of
    float32 are exact on a GPU.

    Args:
        checkpoint: `.pth` of ours or of the authors, a slim `.safetensors` of tools/export.py, or the name of a file
            that tools/download.py fetched, such as 'voc12-inductive'.
        config: config of its training, a file or mmcv's object; by default the one in the checkpoint, which is read
            as data. A file is Python code and is run, with the modules in its custom_imports: trust its source.
        clip: CLIP file for the text tower, unless the checkpoint has one; by default the one in the config. It is
            read at the first new class name: the embeddings of the training classes are in the checkpoint.
        clip_name: open_clip's name of that CLIP, where its kind of GELU is not known otherwise.
        device: such as 'cuda:1' or 'cpu'; by default a GPU where there is one.
        amp: 'bfloat16' or 'float16' for matrix products in that type.

    Raises:
        UserError: a file is missing, damaged or does not fit; the message names the remedy.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = files.read(checkpoint)
    cliprc.check_clip_rc(checkpoint)
    trusted = config is not None
    try:
        known = metadata.description(checkpoint)
        if not trusted:
            config = Config(known.config if known else read_config_text(checkpoint.meta.get('config') or ''))
        elif not isinstance(config, Config):
            config = read_config(config)
        _complete(config, checkpoint, trusted=trusted)
        model = _model(config, checkpoint, trusted=trusted)
        if config.get('tf32') not in (None, False, True):
            raise UserError(f'tf32={config.tf32!r}: True or False is needed.')
        set_tf32(bool(config.get('tf32')))
        names, seen, prompts = _training(checkpoint, config, known, trusted=trusted)
        clip_files = [clip] if clip else [config.model.get('pretrained_text'), config.model.get('pretrained')]
        tower = TextTower(checkpoint, [*filter(None, clip_files)],
                          {**config.model, **({'clip_name': clip_name} if clip_name else {})}, named=clip is not None)
        if amp not in (None, 'bfloat16', 'float16'):
            raise UserError(f'amp={amp!r} is neither bfloat16 nor float16.')
        model.amp_dtype = amp and getattr(torch, amp)
        embeddings = {} if known is None else dict(zip(names, known.embeddings, strict=True))
        return Segmenter(model.to(_device(device)).eval(), config, tower=tower, class_names=names, seen_names=seen,
                         prompts=prompts, known=embeddings)
    except DAMAGE as error:
        if trusted:
            raise
        raise UserError(f'{checkpoint.path}: the config in it is damaged ({type(error).__name__}: {error}). Copy it '
                        'again, or name the config of its training: config=FILE (--config FILE).') from error


def _model(config: Config, checkpoint: Checkpoint, *, trusted: bool) -> torch.nn.Module:
    """Build the config's model without its parts for training, and load the checkpoint's weights."""
    head = {**config.model.decode_head, 'recovery_decoder_num_layers': 0}
    parts = {**config.model, 'decode_head': head, 'both_class': None, 'base_class': None, 'novel_class': None,
             'pretrained': None, 'load_text_embedding': None, 'text_encoder': None}
    try:
        if not trusted:
            check_parts(parts, checkpoint)
            check_image_sizes(config)
        model = build(ConfigDict(parts))
    except ValueError as error:
        if trusted and not isinstance(error, UserError):  # only values from a checkpoint are to blame
            raise
        remedy = '' if trusted else (f'\n{checkpoint.path} holds this config, and no code is run from it: if it has '
                                     'parts of your own, name the config that imports them: config=FILE '
                                     '(--config FILE).')
        raise UserError(f'{error}{remedy}') from error
    cliprc.load_weights(model, checkpoint)
    return model


def _device(name: str | torch.device | None) -> torch.device:
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except RuntimeError as error:
        raise UserError(f'device={name!r} is not a device: write cpu, cuda or cuda:1.') from error
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f'{device} was asked for, but PyTorch sees {torch.cuda.device_count()} GPUs. Check nvidia-smi '
                        'and CUDA_VISIBLE_DEVICES, or use the CPU.')
    return device


def _complete(config: Config, checkpoint: Checkpoint, *, trusted: bool) -> None:
    """Check that a config has model and test data, keep the first of several test datasets, and add CLIP's sizes."""
    source = 'the config' if trusted else checkpoint.path
    if not isinstance(config.get('model'), dict) or not isinstance(config.get('data'), dict):
        source = 'the config' if trusted else f'{checkpoint.path} does not say how it was trained: it'
        raise UserError(f'{source} has no complete `model` and `data`: name the config of its training '
                        '(tools/inspect_checkpoint.py shows its classes and sizes).')
    tests = config.data.get('test')
    while isinstance(tests, (list, tuple)) and tests or isinstance(tests, dict) and 'datasets' in tests:
        tests = (tests['datasets'] if isinstance(tests, dict) else tests)[0]
    if not isinstance(tests, dict) or not isinstance(tests.get('pipeline'), (list, tuple)):
        raise UserError(f'{source} has no data.test with a pipeline for the images: name the config of its '
                        'training.')
    config.data.test = tests
    fill_in(config, checkpoint)


def _training(checkpoint: Checkpoint, config: Config, known: metadata.Description | None, *,
              trusted: bool) -> tuple[list[str], list[str], str | tuple[str, ...]]:
    """Read the training classes from our metadata; else from the config's dataset, if it is ours; else from mmseg's.

    Args:
        trusted: the config may name text files of classes and prompts; one in a checkpoint may not.

    Returns:
        the names of the classes, of those trained with masks (none in self-training), and the prompts.
    """
    if known is not None:
        names, unseen, prompts = known.class_names, known.unseen_names, known.prompt_set
        self_training = known.setting == Setting.TRANSDUCTIVE.value
    else:
        model = {**(read_config_text(checkpoint.meta.get('config') or '').get('model') or {}), **config.model}
        dataset, novel, self_training = config.data.test, model.get('novel_class'), model.get('self_training')
        names = [str(name) for name in checkpoint.meta.get('CLASSES') or ()]
        unseen = [names[index] for index in novel or () if index < len(names)]
        prompts = 'coco15' if dataset.get('type') == 'ZeroCOCOStuffDataset' else 'single'  # as published
        cls = DATASETS.get(dataset.get('type') or '')
        if hasattr(cls, 'describe'):
            given = {key: dataset.get(key) for key in ('classes', 'unseen', 'prompt_set')}
            facts = cls.describe(**{key: value for key, value in given.items()
                                    if trusted or not isinstance(value, str) or value in PROMPT_SETS})
            if names in ([], list(facts.split.names)):
                names, prompts = facts.split.names, facts.prompt_set
                unseen = facts.split.unseen_names if novel != [] else ()
    return list(names), [] if self_training else [name for name in names if name not in unseen], prompts
