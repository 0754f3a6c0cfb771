"""Check the variables at the top of a config file: settings, helpers that the file itself uses, or mistakes."""
import re
from difflib import get_close_matches
from pathlib import Path

from mmcv import Config

from models.errors import UserError
from models.text_files import read_text

# All settings; every other variable must be used by the config file itself.
SETTINGS = ('model', 'data', 'optimizer', 'optimizer_config', 'lr_config', 'runner', 'checkpoint_config', 'evaluation',
            'log_config', 'log_level', 'amp', 'tf32', 'compile', 'cross_dataset', 'seed', 'work_dir', 'load_from',
            'resume_from', 'cudnn_benchmark', 'find_unused_parameters', 'custom_hooks', 'image_size',
            'total_batch_size', 'total_batch_size_source', 'protocol', 'published')
# Unsupported settings of mmcv and mmseg: the values that change nothing (None and False never do), and the remedy.
OTHERS = {
    'workflow': ([[('train', 1)], [['train', 1]]],
                 "only [('train', 1)] is supported. To score data.val while training: evaluation=dict(interval=N)"),
    'fp16': ([], "use amp=dict(dtype='float16')"),
    'dist_params': ([{'backend': 'nccl'}], 'GPUs always use NCCL and CPUs Gloo: remove it'),
    'mp_start_method': (['fork'], 'loader workers are always forked: remove it'),
    'opencv_num_threads': ([0], 'a loader worker has one thread: remove it'),
    'device': (['cuda'], 'use --device'),
    'gpu_ids': ([[0], range(1)], 'use --gpu-id or dist_train.sh'),
    'auto_resume': ([], 'use --auto-resume'),
    'resume': ([], 'use --auto-resume, or resume_from'),
    'deterministic': ([], 'use --deterministic'),
    'momentum_config': ([], "use custom_hooks=[dict(type='...MomentumUpdaterHook', by_epoch=False)]"),
    'profiler_config': ([], "use custom_hooks=[dict(type='ProfilerHook', by_epoch=False)]"),
    'total_epochs': ([], 'use runner=dict(max_iters=N)'),
    'total_iters': ([], 'use runner=dict(max_iters=N)'),
    **dict.fromkeys(('optim_wrapper', 'param_scheduler', 'default_hooks', 'train_dataloader', 'val_dataloader',
                     'test_dataloader', 'val_evaluator', 'test_evaluator', 'model_wrapper_cfg', 'randomness',
                     'vis_backends'), ([], 'it is a setting of MMEngine, and configs here are those of mmsegmentation '
                                           '0.x')),
}


def check_names(config: Config, path: Path) -> None:
    """Check that no variable at the top of a config file or of its bases is silently ignored.

    A variable is a setting, or a helper that its file uses. A base, or a file that a program wrote, may hold helpers
    that nothing uses.

    Raises:
        UserError: a setting is unsupported or misspelt, or a helper is not used.
    """
    own = read_text(path)
    is_leaf = path.suffix == '.py' and re.search('^_base_ *=', own, re.M)
    for name in sorted({*config} - {*SETTINGS, 'custom_imports'}):
        harmless, remedy = OTHERS.get(name, ([], ''))
        strict = is_leaf and re.search(rf'^{name} *=', own, re.M)
        if _is_used(name, own if strict else config.text) or remedy and config[name] in (None, False, *harmless):
            continue
        close = get_close_matches(name, SETTINGS, n=1, cutoff=0.7 if strict else 0.85)
        if remedy or close or strict:
            advice = remedy or (f'did you mean {close[0]}?' if close else 'it has no effect. Settings of a base are '
                                'changed in their dict, such as data=dict(train=dict(...))')
            raise UserError(f'{path}: {name} is not a setting of this project, and the file does not use it: {advice}')


def _is_used(name: str, text: str) -> bool:
    """Tell whether a name occurs in a config's text more often than it is assigned."""
    assigned = len(re.findall(rf'^{name} *=', text, re.M))
    return len(re.findall(rf'\b{name}\b', text)) > max(assigned, 1)
