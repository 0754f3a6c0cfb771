"""Check the values of settings, so that none fails, or has no effect, after hours of training."""
from typing import Any

from mmcv import Config

from models.errors import UserError

# The settings in a part of a config; None: those that a library knows.
PARTS = {
    'data': ('samples_per_gpu', 'workers_per_gpu', 'train', 'val', 'test'),
    'model.test_cfg': ('mode', 'crop_size', 'stride', 'windows_per_batch'),
    'runner': ('type', 'max_iters'),
    'evaluation': ('interval', 'start', 'metric', 'save_best', 'rule', 'greater_keys', 'less_keys', 'pre_eval',
                   'efficient_test', 'file_client_args'),
    'checkpoint_config': ('type', 'interval', 'save_last', 'max_keep_ckpts', 'filename_tmpl', 'create_symlink',
                          'by_epoch'),
    'log_config': ('interval', 'hooks'),
    'optimizer': None, 'lr_config': None, 'optimizer_config': None,
}
# What a setting may be: one of these values, or an integer of at least this number. None is always the default.
VALUES = {
    'log_level': ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG'), 'compile': (False, True, 'reduce-overhead'),
    'tf32': (False, True), 'seed': 0, 'image_size': 1, 'model.test_cfg.mode': ('slide', 'whole'),
    'model.test_cfg.windows_per_batch': 1,
    'data.samples_per_gpu': 1, 'data.workers_per_gpu': 0, 'runner.type': ('IterBasedRunner',), 'runner.max_iters': 1,
    'evaluation.interval': 1, 'checkpoint_config.type': ('CheckpointHook',), 'checkpoint_config.interval': 1,
    'log_config.interval': 1, 'lr_config.warmup_iters': 0,
}


def setting(config: Config, name: str) -> Any:
    """Return a setting by its name with dots; None if there is none."""
    for key in name.split('.'):
        config = config.get(key) if isinstance(config, (Config, dict)) else None
    return config


def check_values(config: Config) -> None:
    """Raise a UserError for a setting that is unknown, or has a value that it cannot have."""
    for name, known in PARTS.items():
        part = setting(config, name)
        if not isinstance(part or {}, dict):
            raise UserError(f'{name}={part!r}: a dict is needed.')
        if known and (unknown := [key for key in part or {} if key not in known]):
            raise UserError(f'{name} has no {", ".join(unknown)}; there are {", ".join(known)}.')
    for name, allowed in VALUES.items():
        value, counts = setting(config, name), isinstance(allowed, int)
        if value is not None and (type(value) is not int or value < allowed if counts else
                                  not any(type(value) is type(each) and value == each for each in allowed)):
            needed = f'an integer of at least {allowed}' if counts else f'one of {", ".join(map(str, allowed))}'
            raise UserError(f'{name}={value!r}: {needed} is needed.')
    for name in ('checkpoint_config.by_epoch', 'lr_config.by_epoch', 'lr_config.warmup_by_epoch'):
        if setting(config, name):
            raise UserError(f'{name}=True: there are no epochs here, lengths are iterations.')
    if config.get('compile') == 'reduce-overhead' and setting(config, 'model.test_cfg.mode') == 'whole':
        raise UserError("compile='reduce-overhead' with model.test_cfg.mode='whole' would record a CUDA graph for each "
                        'size of image: use compile=True.')
    if 'Fp16' in str(hook := setting(config, 'optimizer_config.type')):
        raise UserError(f"optimizer_config.type={hook!r}: use amp=dict(dtype='float16') instead.")


def require(config: Config, file: str, *names: str) -> None:
    """Raise a UserError if one of these settings is missing."""
    for name in names:
        if setting(config, name) is None:
            raise UserError(f'{file} has no `{name}`: it is not a complete config, but may be a base of one.')
