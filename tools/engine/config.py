"""Read configs, override them from the command line, and make their paths absolute."""
import json
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path
from pprint import pformat

from mmcv import Config, ConfigDict, DictAction

from models.errors import UserError
from models.plugins import REPOSITORY, read_config
from models.weights.config_text import with_pairs
from models.weights.files import downloaded
from models.weights.published_files import FOLDER
from tools.engine.config_names import SETTINGS, check_names
from tools.engine.config_values import check_values, require

FILES = ('pretrained', 'pretrained_text', 'load_text_embedding')  # settings of a config's model
TEXT_FILES = ('classes', 'unseen', 'prompt_set', 'background')  # settings of datasets, where they are not lists
# The lengths in pixels of a pipeline's steps.
PIXELS = {'Resize': ('img_scale', 'min_size'), 'RandomCrop': ('crop_size',), 'Pad': ('size',),
          'MultiScaleFlipAug': ('img_scale',)}


def load_config(file: str | Path, options: Sequence[str] = (), data_root: str | None = None) -> Config:
    """Read a config and check its settings. Relative paths in it are relative to the repository.

    A config is Python code, and is executed. Modules in its `custom_imports` are imported; they may lie beside it.

    Args:
        options: of the command line, KEY=VALUE.
        data_root: the folder of all its datasets, instead of their own.

    Raises:
        UserError: the file is missing or not a config, one of its modules cannot be imported, or a setting is unknown
            or invalid, or an option has no effect.
    """
    config = read_config(file)
    check_names(config, Path(file))
    _override(config, options)
    require(config, file, 'model', 'data', 'model.backbone', 'model.decode_head', 'data.test', 'model.test_cfg')
    check_values(config)
    for dataset in dataset_configs(config.data):
        if isinstance(dataset.get('pipeline'), list):
            dataset.pipeline = with_pairs(dataset.pipeline)
        if data_root is not None:
            dataset.data_root = str(Path(data_root).absolute())
        elif dataset.get('data_root') is not None:
            dataset.data_root = str(REPOSITORY / dataset.data_root)
        for name in TEXT_FILES:
            if isinstance(dataset.get(name), str) and (REPOSITORY / dataset[name]).is_file():
                dataset[name] = str(REPOSITORY / dataset[name])
    set_image_size(config)
    for name in FILES:
        if config.model.get(name) is not None:
            config.model[name] = str(_weights_path(config.model[name]))
    prompts = [option for option in options if option.split('=')[0].endswith('.prompt_set')]
    if prompts and (named := config.model.get('load_text_embedding')) and Path(named).exists():
        raise UserError(f'{prompts[0]} has no effect, because the embeddings are those in {named}. Add '
                        'model.load_text_embedding=None to compute them.')
    return config


def _override(config: Config, options: Sequence[str]) -> None:
    """Change settings by the KEY=VALUE options of a command line; the last one of a key counts."""
    parser = ArgumentParser()
    parser.add_argument('--options', nargs='*', action=DictAction, default={})
    options = parser.parse_args(['--options', *options]).options
    for key, value in options.items():
        name = key.split('.')[0]
        if name not in SETTINGS:
            why = f'{name!r} is a helper variable of the config file, not a setting' if name in config else \
                f'the config has no {name!r}'
            raise UserError(f'{key}: {why}. The settings: {", ".join(sorted({*SETTINGS} & {*config}))}.')
        if key.split('.')[-1] in (*FILES, *TEXT_FILES) and isinstance(value, str) and Path(value).is_file():
            options[key] = str(Path(value).absolute())  # relative to the current folder, as in a shell
    try:
        config.merge_from_dict(options)
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise UserError(f'{" ".join(options)}: does not fit the config: {error}') from error


def _weights_path(name: str) -> Path:
    """Find 'ViT-B-16.pt' of official configs, or 'ViT-B-16': in the repository, or in the folder for downloads."""
    path = REPOSITORY / name
    if path.exists():
        return path
    fetched = REPOSITORY / FOLDER / name
    return downloaded(name) or (fetched if fetched.exists() else path)


def dataset_configs(node) -> Iterator[ConfigDict]:
    """Yield every dataset config below `node`, also wrapped ones."""
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from dataset_configs(item)
    elif isinstance(node, dict):
        if 'img_dir' in node:
            yield node
        yield from dataset_configs([*node.values()])


def set_image_size(config: Config) -> None:
    """Set the side of crops and windows to the config's `image_size` (pixels), and scale related lengths with it.

    These are the sizes of the model's inputs, the stride of windows, and the sizes in pipelines.
    """
    model, side = config.model, config.get('image_size')
    if side is None:
        return
    before = model.backbone.get('input_resolution', 512)

    def scale(settings: ConfigDict, *names: str) -> None:
        for name in names:
            if (lengths := settings.get(name)) is not None:
                settings[name] = (round(lengths * side / before) if isinstance(lengths, int) else
                                  tuple(round(length * side / before) for length in lengths))

    scale(model.test_cfg, 'crop_size', 'stride')
    for dataset in dataset_configs(config.data):
        for step in dataset.get('pipeline', []):
            for part in (step, *step.get('transforms', [])):
                scale(part, *PIXELS.get(part.type, ()))
    model.backbone.input_resolution = model.decode_head.img_size = side


def as_text(config: Config) -> str:
    """Write the config as Python that reads back as the same (mmcv's own text is wrong if a value holds a quote)."""
    return '\n'.join(f'{key} = {pformat(value, width=120, sort_dicts=False)}'
                     for key, value in config._cfg_dict.to_dict().items()) + '\n'


def as_data(config: Config) -> dict:
    """Return the config as plain JSON values, for checkpoints: read back as data, never executed."""
    return json.loads(json.dumps(config._cfg_dict.to_dict(), default=str))
