"""Check the variables at the top of a config file: settings, helpers that the file itself uses, or mistakes."""
import ast
import builtins
import io
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import mmcv
from mmcv import Config

from models.errors import UserError
from models.text_files import read_text

# All settings; every other variable must be a helper for these.
SETTINGS = ('model', 'data', 'optimizer', 'optimizer_config', 'lr_config', 'runner', 'checkpoint_config', 'evaluation',
            'log_config', 'log_level', 'amp', 'fp16', 'compile', 'cross_dataset', 'seed', 'work_dir', 'load_from',
            'resume_from', 'cudnn_benchmark', 'find_unused_parameters', 'custom_hooks', 'image_size',
            'total_batch_size', 'total_batch_size_source', 'protocol', 'published')
FILES_ONLY = ('custom_imports', 'workflow')  # settings that a command line cannot change
# Settings of mmcv, mmseg and MMEngine: their values without effect (None and False never have one), and what to use.
OTHERS = {
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
    'timer_config': ([{'type': 'IterTimerHook'}], 'remove it'),
    'total_epochs': ([], 'use runner=dict(max_iters=N)'),
    'total_iters': ([], 'use runner=dict(max_iters=N)'),
    'optim_wrapper': ([], 'use optimizer, optimizer_config and amp'),
    'param_scheduler': ([], 'use lr_config'),
    'default_hooks': ([], 'use checkpoint_config, log_config and evaluation'),
    'train_dataloader': ([], 'use data.samples_per_gpu, data.workers_per_gpu and data.train'),
    'val_dataloader': ([], 'use data.val'),
    'test_dataloader': ([], 'use data.test'),
    'val_evaluator': ([], 'use evaluation'),
    'test_evaluator': ([], 'use --eval'),
    'model_wrapper_cfg': ([], 'use find_unused_parameters'),
    'randomness': ([], 'use seed, or --deterministic'),
    'vis_backends': ([], 'use log_config.hooks'),
}


class ConfigFile(NamedTuple):
    """The variables of a config file."""
    path: Path
    names: set[str]  # variables that it assigns
    reads: set[str]  # variables that it, or a file based on it, reads
    strict: bool  # every variable must be used; not for bases, nor for files that a program may have written


def check_names(config: Config, path: Path) -> None:
    """Check that no variable at the top of a config file or of its bases is silently ignored.

    A variable is a setting, or a helper that its file, or a file based on it, reads. A base may define helpers that
    nothing reads, and a file that a program wrote holds helpers that were read elsewhere.

    Raises:
        UserError: a setting is unsupported or misspelt, or a helper is not used.
    """
    known = (*SETTINGS, *FILES_ONLY)
    for file in _files(path):
        for name in sorted((file.names & {*config}) - file.reads - {*known}):
            value, (harmless, remedy) = config[name], OTHERS.get(name, ([], ''))
            if name in OTHERS and (value is None or value is False or value in harmless):
                continue
            close = get_close_matches(name, known, n=1, cutoff=0.7 if file.strict else 0.85)
            if remedy or close or file.strict or name.endswith('_config'):
                advice = remedy or (f'did you mean {close[0]}' if close else 'it has no effect. Only settings change '
                                    'those of a base, such as data=dict(train=dict(...))')
                raise UserError(f'{file.path}: {name} is not a setting of this project, and the file does not use it: '
                                f'{advice}{"?" if close and not remedy else "."}')


def check_workflow(config: Config) -> None:
    """Raise a UserError if `workflow` asks for anything but training."""
    flow = config.get('workflow') or []
    if not isinstance(flow, (list, tuple)) or not all(isinstance(step, (list, tuple)) and step and step[0] == 'train'
                                                      for step in flow):
        raise UserError(f'workflow={flow!r}: only [(\'train\', 1)] is supported, as no validation losses are '
                        'computed. To score a model on data.val while training: evaluation=dict(interval=N).')


def _files(path: Path, read_by_leaves: set[str] | None = None) -> Iterator[ConfigFile]:
    """Give a config file and then its bases; `read_by_leaves` are variables that files based on it read."""
    text = read_text(path)
    if path.suffix == '.py':
        tree = ast.parse(text)
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        names, reads = ({node.id for node in nodes if isinstance(node.ctx, kind)} for kind in (ast.Store, ast.Load))
        bases = [line.value for line in tree.body if isinstance(line, ast.Assign)
                 and isinstance(line.targets[0], ast.Name) and line.targets[0].id == '_base_']
        try:
            bases = ast.literal_eval(bases[-1]) if bases else []
        except ValueError:  # it is computed: those files are not checked
            bases = []
    else:
        content = mmcv.load(io.StringIO(text), file_format=path.suffix[1:]) or {}
        names, reads, bases = {*content}, set(), content.get('_base_', [])
    strict = read_by_leaves is None and bool(bases or reads - {*dir(builtins)})
    yield ConfigFile(path, names, reads | (read_by_leaves or set()), strict)
    by_leaves = {*re.findall(r'\{\{\s*_base_\.(\w+)', text)} | (read_by_leaves or set())
    for base in [bases] if isinstance(bases, str) else bases:
        yield from _files(path.parent / base, by_leaves)
