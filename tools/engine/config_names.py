"""The names at the top of a config file: settings, helpers that the file itself reads, or neither."""
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

# What is read of a config; all else in it serves to write these.
SETTINGS = ('model', 'data', 'optimizer', 'optimizer_config', 'lr_config', 'runner', 'checkpoint_config', 'evaluation',
            'log_config', 'log_level', 'amp', 'fp16', 'compile', 'cross_dataset', 'seed', 'work_dir', 'load_from',
            'resume_from', 'cudnn_benchmark', 'find_unused_parameters', 'custom_hooks', 'image_size',
            'total_batch_size', 'total_batch_size_source', 'protocol', 'published')
FILES_ONLY = ('custom_imports', 'workflow')  # settings, too, which a command line cannot change
# Settings of mmcv, mmseg and MMEngine: values that change nothing here (None and False never do), and what does it.
OTHERS = {
    'dist_params': ([{'backend': 'nccl'}], 'GPUs talk by NCCL and CPUs by Gloo anyway: leave it out'),
    'mp_start_method': (['fork'], 'loader workers are forked: leave it out'),
    'opencv_num_threads': ([0], 'a loader worker has one thread: leave it out'),
    'device': (['cuda'], '--device says it'),
    'gpu_ids': ([[0], range(1)], '--gpu-id or dist_train.sh says it'),
    'auto_resume': ([], '--auto-resume says it'),
    'resume': ([], '--auto-resume says it, or resume_from'),
    'deterministic': ([], '--deterministic says it'),
    'momentum_config': ([], "custom_hooks=[dict(type='...MomentumUpdaterHook', by_epoch=False)] does it"),
    'profiler_config': ([], "custom_hooks=[dict(type='ProfilerHook', by_epoch=False)] does it"),
    'timer_config': ([{'type': 'IterTimerHook'}], 'leave it out'),
    'total_epochs': ([], 'runner=dict(max_iters=N) says it'),
    'total_iters': ([], 'runner=dict(max_iters=N) says it'),
    'optim_wrapper': ([], 'optimizer, optimizer_config and amp say it'),
    'param_scheduler': ([], 'lr_config says it'),
    'default_hooks': ([], 'checkpoint_config, log_config and evaluation say it'),
    'train_dataloader': ([], 'data.samples_per_gpu, data.workers_per_gpu and data.train say it'),
    'val_dataloader': ([], 'data.val says it'),
    'test_dataloader': ([], 'data.test says it'),
    'val_evaluator': ([], 'evaluation says it'),
    'test_evaluator': ([], '--eval says it'),
    'model_wrapper_cfg': ([], 'find_unused_parameters says it'),
    'randomness': ([], 'seed says it, or --deterministic'),
    'vis_backends': ([], 'log_config.hooks says it'),
}


class ConfigFile(NamedTuple):
    """A file of a config, as it is written."""
    path: Path
    names: set[str]  # that it gives a value
    reads: set[str]  # names that it, or a file that has it as base, reads
    whole: bool  # all that it names must serve it: no base is whole, and no file that a program may have written


def check_names(config: Config, path: Path) -> None:
    """Makes sure that no name at the top of a config file or of its bases is passed over in silence.

    A name is a setting, or a helper, which the file that gives it a value reads, or one that has this file as a base.
    A base may offer helpers that nothing reads, and a file that a program wrote holds those that were read elsewhere.

    Raises:
        UserError: a setting that this project lacks, a misspelt one, or a helper that helps nothing.
    """
    known = (*SETTINGS, *FILES_ONLY)
    for file in _files(path):
        for name in sorted((file.names & {*config}) - file.reads - {*known}):
            value, (harmless, remedy) = config[name], OTHERS.get(name, ([], ''))
            if name in OTHERS and (value is None or value is False or value in harmless):
                continue
            close = get_close_matches(name, known, n=1, cutoff=0.7 if file.whole else 0.85)
            if remedy or close or file.whole or name.endswith('_config'):
                meant = remedy or (f'did you mean {close[0]}' if close else 'nothing comes of it. What a base says '
                                   'changes by its settings alone, such as data=dict(train=dict(...))')
                raise UserError(f'{file.path}: {name} is no setting of this project, and nothing there reads it: '
                                f'{meant}{"?" if close and not remedy else "."}')


def check_workflow(config: Config) -> None:
    """Raises a UserError where `workflow` asks for anything but training."""
    flow = config.get('workflow') or []
    if not isinstance(flow, (list, tuple)) or not all(isinstance(step, (list, tuple)) and step and step[0] == 'train'
                                                      for step in flow):
        raise UserError(f'workflow={flow!r}: only [(\'train\', 1)] is known here, as no losses of validation are '
                        'computed. While it trains a model is scored on data.val: evaluation=dict(interval=N).')


def _files(path: Path, read_by_leaves: set[str] | None = None) -> Iterator[ConfigFile]:
    """A config file, and then its bases, of which leaves read some names."""
    text = read_text(path)
    if path.suffix == '.py':
        tree = ast.parse(text)
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        names, reads = ({node.id for node in nodes if isinstance(node.ctx, kind)} for kind in (ast.Store, ast.Load))
        bases = [line.value for line in tree.body if isinstance(line, ast.Assign)
                 and isinstance(line.targets[0], ast.Name) and line.targets[0].id == '_base_']
        try:
            bases = ast.literal_eval(bases[-1]) if bases else []
        except ValueError:  # it is computed: those files are not looked at
            bases = []
    else:
        content = mmcv.load(io.StringIO(text), file_format=path.suffix[1:]) or {}
        names, reads, bases = {*content}, set(), content.get('_base_', [])
    whole = read_by_leaves is None and bool(bases or reads - {*dir(builtins)})
    yield ConfigFile(path, names, reads | (read_by_leaves or set()), whole)
    by_leaves = {*re.findall(r'\{\{\s*_base_\.(\w+)', text)} | (read_by_leaves or set())
    for base in [bases] if isinstance(bases, str) else bases:
        yield from _files(path.parent / base, by_leaves)
