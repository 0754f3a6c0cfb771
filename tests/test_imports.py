"""The import rules: commands, machinery and the method stay apart; importing changes nothing; `--help` is quick."""
import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

COMMANDS = [REPOSITORY / 'test.py', REPOSITORY / 'get_flops.py', *sorted(REPOSITORY.glob('tools/*.py'))]
COMMANDS.remove(REPOSITORY / 'tools/__init__.py')
CODE = [*COMMANDS, *(file for folder in ('models', 'datasets', 'tools/*')
                     for file in sorted(REPOSITORY.glob(f'{folder}/**/*.py')))]
OF_MODELS = {'class_names', 'colours', 'image_io', 'errors', 'label_format', 'file_kinds',
             'text_files'}  # for `datasets`
SEARCH_PATHS = {'models/plugins.py', 'tools/exporting/onnx_example.py',  # modules of a config lie beside it;
                'tools/miniature/world.py'}  # the others are scripts
SHARED = {'tools/web_page/server.py': 'miniature', 'tools/web_page/answers.py': 'explaining'}  # drawings; the figure


def imports(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports, with full names."""
    package = file.relative_to(REPOSITORY).parent.parts
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[:len(package) - node.level + 1] if node.level else ()
            module = '.'.join((*above, *filter(None, [node.module])))
            yield from (f'{module}.{alias.name}' for alias in node.names)


def allowed(file: Path, module: str) -> bool:
    """Tell whether a file may import a module of this repository."""
    folder, *below = file.relative_to(REPOSITORY).parts[:-1] or ['']
    first, second = (*module.split('.'), '')[:2]
    if module.startswith(tuple(f'{".".join(command.relative_to(REPOSITORY).with_suffix("").parts)}.'
                               for command in COMMANDS)):
        return False
    if first == 'tools' and second and (REPOSITORY / f'tools/{second}.py') in COMMANDS:
        return False
    if folder == 'models':
        return first not in ('datasets', 'tools')
    if folder == 'datasets':
        return first != 'tools' and (first != 'models' or second in OF_MODELS)
    return not below or first != 'tools' or second in ('engine', below[0], SHARED.get(
        file.relative_to(REPOSITORY).as_posix()))


@pytest.mark.parametrize('file', CODE, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_imports(file):
    assert not [module for module in imports(file) if not allowed(file, module)]


def test_search_path_is_set_by_commands_alone():
    """Scripts in private folders, which shell scripts call, are commands, too."""
    users = {str(file.relative_to(REPOSITORY)) for file in CODE if file not in COMMANDS
             and 'sys.path' in (text := file.read_text()) and "__name__ == '__main__'" not in text}
    assert users <= SEARCH_PATHS


STATE = '''
import logging, signal, sys, warnings
import cv2, matplotlib, mmcv.ops, mmseg.datasets, mmseg.models, open_clip, timm, torch
from mmcv.runner import CheckpointLoader

def state():
    return {'signals': {number: signal.getsignal(number) for number in signal.valid_signals()},
            'hooks': (sys.excepthook, sys.unraisablehook, sys.path[:]), 'warnings': warnings.filters[:],
            'loggers': {name: logging.getLogger(name).level for name in loggers},
            'mmcv': dict(CheckpointLoader._schemes)}

loggers = ['', *logging.root.manager.loggerDict]
before = state()
import models, datasets, tools, tools.engine.process
print([name for name, value in state().items() if value != before[name]])
'''


def test_importing_changes_nothing_else_in_the_process():
    done = subprocess.run([sys.executable, '-c', STATE], capture_output=True, text=True, cwd=REPOSITORY, timeout=120)
    assert done.returncode == 0 and done.stdout == '[]\n', done.stdout + done.stderr


HELP = '''
import runpy, sys
command = sys.argv.pop(1)
try:
    runpy.run_path(command, run_name='__main__')
except SystemExit as end:
    assert not end.code, end.code
assert not {'torch', 'mmcv', 'matplotlib', 'cv2'} & {*sys.modules}, 'it is slow'
'''


@pytest.mark.parametrize('command', COMMANDS, ids=lambda command: command.name)
def test_help_is_quick(command):
    """It imports no large package."""
    done = subprocess.run([sys.executable, '-c', HELP, command, '--help'], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith('usage: '), done.stderr
