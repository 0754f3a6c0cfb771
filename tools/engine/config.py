"""Configs as the scripts use them: read, overridden from the command line, paths made absolute."""
import json
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from pprint import pformat

from mmcv import Config, ConfigDict, DictAction

from models import file_kinds, mmcv_compat, plugins
from models.errors import UserError
from models.weights.config_text import with_pairs
from tools.engine.arguments import IS_RUN, add_config_arguments  # noqa: F401
from tools.engine.config_names import SETTINGS, check_names, check_workflow

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = ('pretrained', 'pretrained_text', 'load_text_embedding')  # of a config's model
TEXT_FILES = ('classes', 'unseen', 'prompt_set')  # of a config's datasets, where they are no lists
LEVELS = ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG')
FP16_HOOKS = ('Fp16OptimizerHook', 'GradientCumulativeFp16OptimizerHook')
DATA_SETTINGS = ('samples_per_gpu', 'workers_per_gpu', 'train', 'val', 'test')
# The lengths in pixels of a pipeline's steps.
PIXELS = {'Resize': ('img_scale', 'min_size'), 'RandomCrop': ('crop_size',), 'Pad': ('size',),
          'MultiScaleFlipAug': ('img_scale',)}


def read_options(options: list[str]) -> dict:
    """KEY=VALUE options of a command line -> values by key, read as mmcv reads them; of one key the last one counts."""
    parser = ArgumentParser()
    parser.add_argument('--options', nargs='*', action=DictAction, default={})
    return parser.parse_args(['--options', *options]).options


def load_config(args: Namespace) -> Config:
    """The config of the command line. Relative paths in it are relative to the repository.

    It is Python code, and is run. Modules that it names in `custom_imports` are imported; they may lie beside it.

    Raises:
        UserError: no such file, one that is not a config, such a module that cannot be imported, or a setting that
            this project does not know.
    """
    path = Path(args.config)
    config = read_config(path)
    check_names(config, path)
    check_workflow(config)
    options = {**read_options(args.options), **read_options(args.cfg_options)}
    for key, value in options.items():
        if key.split('.')[0] not in SETTINGS:
            name = key.split('.')[0]
            why = f'{name!r} only helps to write the settings in the config file' if name in config else \
                f'the config has no {name!r}'
            raise UserError(f'{key}: {why}. The settings: {", ".join(sorted({*SETTINGS} & {*config}))}.')
        if key.split('.')[-1] in (*FILES, *TEXT_FILES) and isinstance(value, str) and Path(value).is_file():
            options[key] = str(Path(value).absolute())  # as the shell means it
    try:
        config.merge_from_dict(options)
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise UserError(f'{" ".join(options)}: does not fit the config: {error}') from error
    for needed in ('model', 'data', 'model.backbone', 'model.decode_head', 'data.test'):
        part = config
        for name in needed.split('.'):
            part = part.get(name) if isinstance(part, (Config, dict)) else None
        if part is None:
            raise UserError(f'{path} has no `{needed}`: it is not a whole config, but may be a base of one.')
    unknown = [f'data.{name}' for name in config.data if name not in DATA_SETTINGS]
    if unknown:
        raise UserError(f'{", ".join(unknown)}: data has {", ".join(DATA_SETTINGS)}.')
    if config.get('log_level', 'INFO') not in LEVELS:
        raise UserError(f'log_level={config.log_level!r}: one of {", ".join(LEVELS)} is needed.')
    take_fp16_for_amp(config)
    for dataset in dataset_configs(config.data):
        if isinstance(dataset.get('pipeline'), list):
            dataset.pipeline = with_pairs(dataset.pipeline)
    set_image_size(config)
    if args.data_root is not None:
        for dataset in dataset_configs(config.data):
            dataset.data_root = str(Path(args.data_root).absolute())
    for dataset in dataset_configs(config.data):
        if dataset.get('data_root') is not None:
            dataset.data_root = str(REPOSITORY / dataset.data_root)
        for name in TEXT_FILES:
            if isinstance(dataset.get(name), str) and (REPOSITORY / dataset[name]).is_file():
                dataset[name] = str(REPOSITORY / dataset[name])
    for name in FILES:
        if config.model.get(name) is not None:
            config.model[name] = str(_weights_path(config.model[name]))
    return config


def take_fp16_for_amp(config: Config) -> None:
    """Makes mmcv's two ways of training in float16 ours: `fp16`, and a hook for it in `optimizer_config`.

    Raises:
        UserError: they contradict `amp`, or say what there is not.
    """
    fp16, updating = config.pop('fp16', None), dict(config.get('optimizer_config') or {})
    by_hook = updating.get('type') in FP16_HOOKS
    if fp16 is None and not by_hook:
        return
    if not isinstance(fp16 or {}, dict) or {*(fp16 or {})} - {'loss_scale'}:
        raise UserError(f'fp16={fp16!r}: only loss_scale is known in it. Say amp=dict(dtype=\'float16\') instead.')
    if config.get('amp') not in (None, {'dtype': 'float16'}):
        raise UserError(f'the config asks for float16 ({"optimizer_config.type" if by_hook else "fp16"}) and for '
                        f'amp={dict(config.amp)}: say amp alone.')
    if by_hook:
        for name in ('type', 'coalesce', 'bucket_size_mb', 'distributed'):  # how gradients travel does not change them
            updating.pop(name, None)
        updating.setdefault('loss_scale', 512.)  # mmcv's
    config.amp, config.optimizer_config = {'dtype': 'float16'}, {**updating, **(fp16 or {})}


def set_image_size(config: Config) -> None:
    """Makes the side of crops and windows what the config's `image_size` says, in pixels, and all else in proportion.

    That is: the sizes that the model was built for, the stride of windows, and what pipelines make images and crops.

    Raises:
        UserError: it is no whole number.
    """
    model, side = config.model, config.get('image_size')
    if side is None:
        return
    if type(side) is not int or side < 1:
        raise UserError(f'image_size={side!r} is no whole number of pixels.')
    before = model.backbone.get('input_resolution', 512)

    def scale(settings: ConfigDict, *names: str) -> None:
        for name in names:
            if settings.get(name) is not None:
                lengths = settings[name]
                settings[name] = (round(lengths * side / before) if isinstance(lengths, int) else
                                  tuple(round(length * side / before) for length in lengths))

    scale(model.test_cfg, 'crop_size', 'stride')
    for dataset in dataset_configs(config.data):
        for step in dataset.get('pipeline', []):
            for part in (step, *step.get('transforms', [])):
                scale(part, *PIXELS.get(part.type, ()))
    model.backbone.input_resolution = model.decode_head.img_size = side


def read_config(path: str | Path) -> Config:
    """A config file, which is run as Python, and the modules that it names in `custom_imports` imported, which may lie
    beside it.

    Raises:
        UserError: no such file, one that is not a config, or such a module that cannot be imported.
    """
    config = _read(Path(path))
    plugins.import_modules(config, Path(path))
    return config


def _read(path: Path) -> Config:
    """mmcv's reading, without what it leaves behind when it fails: a search path, and the complaint of a file."""
    file_kinds.check_config(path)
    if not path.is_file():
        raise UserError(f'no config file {path}; the configs are in {REPOSITORY / "configs"}.')
    search_path, complain = [*sys.path], sys.unraisablehook
    try:
        with mmcv_compat.configs_of_any_editor():
            return Config.fromfile(str(path), import_custom_modules=False)
    except BaseException as error:  # whatever the user's own code raises, or Ctrl-C
        sys.path[:], sys.unraisablehook = search_path, lambda _: None
        traceback.clear_frames(error.__traceback__)  # the temporary file, whose folder is gone, ends now
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        raise UserError(f'{path} cannot be read as a config: {type(error).__name__}: {error}') from error
    finally:
        sys.unraisablehook = complain


def dataset_configs(node) -> Iterator[ConfigDict]:
    """Every dataset config below `node`, wrapped ones too."""
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from dataset_configs(item)
    elif isinstance(node, dict):
        if 'img_dir' in node:
            yield node
        for item in node.values():
            if isinstance(item, (dict, list, tuple)):
                yield from dataset_configs(item)


def _weights_path(name: str) -> Path:
    """Official configs say 'ViT-B-16.pt', which they look for in the repository; downloads lie in `pretrained/`."""
    path = REPOSITORY / name
    downloaded = REPOSITORY / 'pretrained' / name
    return downloaded if not path.exists() and downloaded.exists() else path


def as_text(config: Config) -> str:
    """The config as a file that reads back as the same (mmcv's own text is wrong where a value holds a quote)."""
    return '\n'.join(f'{key} = {pformat(value, width=120, sort_dicts=False)}'
                     for key, value in config._cfg_dict.to_dict().items()) + '\n'


def as_data(config: Config) -> dict:
    """The config as plain JSON values, as checkpoints carry it: read back as data, never run as code."""
    return json.loads(json.dumps(config._cfg_dict.to_dict(), default=str))
