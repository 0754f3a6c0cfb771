"""From a checkpoint to a model that takes words: its config as data, its weights, and where its text tower is."""
import os
from pathlib import Path
from typing import NamedTuple

import torch
from mmcv import Config, ConfigDict
from mmseg.datasets import DATASETS
from mmseg.models.builder import MODELS

from .. import file_kinds, plugins
from ..builder import build
from ..class_names import PROMPT_SETS
from ..errors import UserError
from ..text_encoder import CLIPTextEncoder
from ..training_labels import Setting
from ..weights import files, metadata
from ..weights.clip_variant import text_encoder_of, told_by_config
from ..weights.config_text import read_config_text
from ..weights.files import Checkpoint
from .segmenter import Segmenter

REPOSITORY = Path(__file__).resolve().parents[2]
LONGEST_SIDE, LARGEST_RATIO = 10_000, 2  # to which the config in a checkpoint may resize images: pixels, and more
USUAL_CLIP = 'pretrained/ViT-B-16.pt'


def load_model(checkpoint: str | os.PathLike | Checkpoint, config: str | os.PathLike | Config | None = None, *,
               clip: str | os.PathLike | None = None, device: str | torch.device | None = None,
               clip_name: str | None = None, amp: str | None = None) -> Segmenter:
    """A model that segments any image with any words.

    Args:
        checkpoint: `.pth` of ours or of the authors, or a slim `.safetensors` of tools/export.py.
        config: the config of its training, a file or mmcv's object; without it the one that the checkpoint carries,
            which is read as data. A file is Python code and is run, with the modules that it names in custom_imports:
            take none from strangers.
        clip: CLIP file for the text tower, where the checkpoint holds none; without it the one of the config. Only
            read when a word is new: class names of the training are in the checkpoint.
        clip_name: open_clip's name of that CLIP, where nothing else tells its kind of GELU.
        device: such as 'cuda:1' or 'cpu'; without it a GPU where there is one.
        amp: 'bfloat16' or 'float16' for products in that type.

    Raises:
        UserError: a file that is missing, damaged or does not fit; the message names the remedy.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = files.read(checkpoint)
    if config is not None:
        return _model_of(checkpoint, config, clip=clip, device=device, clip_name=clip_name, amp=amp)
    try:
        return _model_of(checkpoint, None, clip=clip, device=device, clip_name=clip_name, amp=amp)
    except (TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, AssertionError) as error:
        raise UserError(f'{checkpoint.path}: the config that it carries is damaged ({type(error).__name__}: {error}). '
                        'Copy it again, or name the config of its training: config=FILE (--config FILE).') from error


def _model_of(checkpoint: Checkpoint, config: str | os.PathLike | Config | None, *, clip: str | os.PathLike | None,
              device: str | torch.device | None, clip_name: str | None, amp: str | None) -> Segmenter:
    told = metadata.description(checkpoint)
    own_config, config = config is not None, _config(checkpoint, config, told)
    head = {**config.model.decode_head, 'recovery_decoder_num_layers': 0}  # which only training needs
    parts = {**config.model, 'decode_head': head, 'both_class': None, 'base_class': None, 'novel_class': None,
             'pretrained': None, 'load_text_embedding': None, 'text_encoder': None}
    refused = UserError if own_config else ValueError  # a stranger's values may be any
    try:
        if not own_config:
            _check_stranger(parts, checkpoint)
            _check_sizes(config)
        model = build(ConfigDict(parts))
    except refused as error:
        remedy = '' if own_config else (f'\n{checkpoint.path} carries this config; no code is run from there: if it '
                                        'has parts of your own, name the config that imports them: config=FILE '
                                        '(--config FILE).')
        raise UserError(f'{error}{remedy}') from error
    try:
        model.load_state_dict(checkpoint.weights)
    except UserError as error:
        raise UserError(f'{checkpoint.path}: {error}') from error
    if amp not in (None, 'bfloat16', 'float16'):
        raise UserError(f'amp={amp!r} is neither bfloat16 nor float16.')
    model.amp_dtype = amp and getattr(torch, amp)
    training = _training(checkpoint, config, told, trusted=own_config)
    known = {} if told is None else dict(zip(training.names, told.embeddings, strict=True))
    clip_files = [path for path in (clip, config.model.get('pretrained_text'), config.model.get('pretrained')) if path]
    tower = TextTower(checkpoint, clip_files or [USUAL_CLIP],
                      {**told_by_config(config.model), **({'name': clip_name} if clip_name else {})},
                      named=clip is not None)
    seen = [] if training.self_training else [name for name in training.names if name not in training.unseen]
    return Segmenter(model.to(_device(device)).eval(), config, tower=tower, class_names=training.names, seen_names=seen,
                     prompts=training.prompts, known=known)


def _check_stranger(parts: dict, checkpoint: Checkpoint) -> None:
    """What the config in a checkpoint may ask for: parts of this project, of about as many numbers as the file has.

    Parts of mmseg may download and load files of their own as soon as they are built.

    Raises:
        UserError: it asks for something else.
    """
    left = [parts]
    while left:
        for name, value in left.pop().items():
            known = MODELS.get(value) if name == 'type' and isinstance(value, str) else None
            if known is not None and known.__module__.split('.')[0] in ('mmseg', 'mmcv'):
                raise UserError(f'the config\'s model has a part {value!r}, which is mmseg\'s.')
            if 'layers' in name and isinstance(value, int) and value > len(checkpoint.weights):
                raise UserError(f'the config\'s model has {name}={value}, more than the file has tensors.')
            if isinstance(value, dict):
                left.append(value)
    with torch.device('meta'):  # which takes no memory
        needed = sum(tensor.numel() for tensor in build(ConfigDict(parts)).state_dict().values())
    held = sum(tensor.numel() for tensor in checkpoint.weights.values())
    if needed > 2 * held:
        raise UserError(f'the config\'s model has {needed:,} parameters, the file {held:,}.')


def _check_sizes(config: Config) -> None:
    """How large the config in a checkpoint may make an image, and how many windows of it.

    Raises:
        UserError: it asks for more.
    """
    left = [('pipeline', (config.data.get('test') or {}).get('pipeline'))]
    while left:
        name, value = left.pop()
        most = LARGEST_RATIO if 'ratio' in name else LONGEST_SIDE
        if isinstance(value, (int, float)) and not abs(value) <= most:
            raise UserError(f'the config makes images too large: {name} has {value}, more than {most:,}.')
        if isinstance(value, dict):
            left.extend((str(key), inside) for key, inside in value.items())
        elif isinstance(value, (list, tuple)):
            left.extend((name, inside) for inside in value)
    windows, resolution = config.model.get('test_cfg') or {}, config.model.backbone.get('input_resolution', 512)
    for side, step in zip(windows.get('crop_size') or (), windows.get('stride') or (), strict=True):
        if side != resolution or not step >= side / 4:
            raise UserError(f'the config\'s windows of {side} pixels every {step} pixels: they are of {resolution} '
                            'pixels, and every quarter of that at most.')


def _device(asked: str | torch.device | None) -> torch.device:
    try:
        device = torch.device(asked or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except RuntimeError as error:
        raise UserError(f'device={asked!r} is none: cpu, cuda or cuda:1 are.') from error
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f'{device} was asked for, but PyTorch sees {torch.cuda.device_count()} GPUs. Check nvidia-smi '
                        'and CUDA_VISIBLE_DEVICES, or use the CPU.')
    return device


def _config(checkpoint: Checkpoint, config: str | os.PathLike | Config | None,
            told: metadata.Description | None) -> Config:
    """The config that is named, or the one that the checkpoint carries."""
    files.check_clip_rc(checkpoint)
    if isinstance(config, Config):
        found = config
    elif config is not None:
        file_kinds.check_config(Path(config))
        if not Path(config).is_file():
            raise UserError(f'no config file {config}; the configs are in {REPOSITORY / "configs"}.')
        try:
            found = Config.fromfile(str(config), import_custom_modules=False)
        except Exception as error:  # whatever the user's own code raises
            raise UserError(f'{config} cannot be read as a config: {type(error).__name__}: {error}') from error
        plugins.import_modules(found, Path(config))
    else:
        found = Config(told.config if told else read_config_text(checkpoint.meta.get('config') or ''))
    if not isinstance(found.get('model'), dict) or not isinstance(found.get('data'), dict):
        where = 'the config' if config is not None else f'{checkpoint.path} does not say how it was trained: it'
        other = '' if 'backbone.region_level_bridge' in checkpoint.weights else ' It may be of another model: it has ' \
            'no backbone.region_level_bridge, as a CLIP-RC has.'
        raise UserError(f'{where} has no whole `model` and `data`: name the config of its training '
                        f'(tools/inspect_checkpoint.py finds it).{other}')
    tests = found.data.get('test')
    while isinstance(tests, (list, tuple)) and tests or isinstance(tests, dict) and 'datasets' in tests:
        tests = (tests['datasets'] if isinstance(tests, dict) else tests)[0]  # of several the first one
    if not isinstance(tests, dict) or not isinstance(tests.get('pipeline'), (list, tuple)):
        raise UserError(f'{"the config" if config is not None else checkpoint.path} has no data.test with a pipeline, '
                        'which says how images are prepared: name the config of its training.')
    found.data.test = tests
    for part in ('backbone', 'text_encoder', 'decode_head') if told else ():  # sizes that a config leaves to its CLIP
        said = {key: value for key, value in (found.model.get(part) or {}).items() if value is not None}
        found.model[part] = {**(told.config['model'].get(part) or {}), **said}
    return found


class Training(NamedTuple):
    """What a model was trained on."""
    names: list[str]  # of its classes
    unseen: list[str]  # those of them without masks
    self_training: bool  # the transductive setting
    prompts: str | tuple[str, ...]


def _training(checkpoint: Checkpoint, config: Config, told: metadata.Description | None, *,
              trusted: bool) -> Training:
    """By a checkpoint of ours; else by the config's dataset, if its code is imported; else by mmseg's meta.

    Args:
        trusted: the config may name text files of classes and prompts; a stranger's may not.
    """
    if told is not None:
        transductive = told.setting == Setting.TRANSDUCTIVE.value
        return Training(told.class_names, told.unseen_names, transductive, told.prompt_set)
    model = {**(read_config_text(checkpoint.meta.get('config') or '').get('model') or {}), **config.model}
    dataset, novel = config.data.get('test') or {}, model.get('novel_class')
    known = DATASETS.get(dataset.get('type') or '')
    names = [str(name) for name in checkpoint.meta.get('CLASSES') or ()]
    unseen = [names[index] for index in novel or () if index < len(names)]
    prompts = 'coco15' if dataset.get('type') == 'ZeroCOCOStuffDataset' else 'single'  # as published
    if hasattr(known, 'describe'):
        asked = {key: dataset.get(key) for key in ('classes', 'unseen', 'prompt_set')}
        facts = known.describe(**{key: value for key, value in asked.items()
                                  if trusted or not isinstance(value, str) or value in PROMPT_SETS})
        if names in ([], list(facts.split.names)):
            names, prompts = facts.split.names, facts.prompt_set
            unseen = facts.split.unseen_names if novel != [] else ()
    return Training(list(names), list(unseen), bool(model.get('self_training')), prompts)


class TextTower:
    """Where the text encoder comes from: the checkpoint if it holds one, else the first of the CLIP files.

    Args:
        clip_files: relative ones are looked for here, then in the repository and in its `pretrained/`.
        told: what no tensor tells, as `text_encoder_of` takes it.
        named: the first file was named by the user, and must be there.
    """

    def __init__(self, checkpoint: Checkpoint, clip_files: list[str | os.PathLike], told: dict, *,
                 named: bool):
        self.checkpoint = None
        if files.holds_text_tower(checkpoint):  # of its other weights the model has its own
            self.checkpoint = checkpoint._replace(weights={name: tensor for name, tensor in checkpoint.weights.items()
                                                           if name.startswith('text_encoder.')})
        self.source, self.files, self.told, self.named = checkpoint.path, clip_files, told, named
        if named:
            self._file()  # or a message now, not when a word is new

    def load(self) -> CLIPTextEncoder:
        """The text encoder.

        Raises:
            UserError: there is none, or it is damaged.
        """
        source = self.checkpoint or files.read(self._file())
        self.source = source.path
        return text_encoder_of(source, **self.told)

    def _file(self) -> Path:
        for file in self.files[:1] if self.named else self.files:
            for place in (Path(file), REPOSITORY / file, REPOSITORY / 'pretrained' / Path(file).name):
                if place.exists():
                    return place
        name = Path(self.files[0]).name
        fetch = f'Fetch it with\n    python {REPOSITORY / "tools/download.py"}\nor name' if name == Path(
            USUAL_CLIP).name else 'Name'
        raise UserError(f'no CLIP file {self.files[0]}, and {self.source} holds no text tower: new words need one. '
                        f'{fetch} the CLIP that the checkpoint was trained with: clip=FILE (--clip FILE). A '
                        'checkpoint that tools/export.py has made with its text tower needs none.')
