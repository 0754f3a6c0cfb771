"""Config files, and the user's own parts: modules beside a config, named in its `custom_imports`, that register them.

Both are code and are run. The names of modules in a checkpoint are text: nothing is imported.
"""
import shutil
import sys
import traceback
from importlib import import_module
from pathlib import Path

from mmcv import Config

from .errors import UserError
from .file_kinds import CONFIG, TEXT, other_kind

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS: set[Path] = set()  # of configs whose modules were imported
NOT_OWN = [Path(path).resolve() for path in (REPOSITORY, sys.prefix, sys.base_prefix)]


def read_config(path: str | Path) -> Config:
    """Execute a config file, and import the modules in its `custom_imports`, which may lie beside it.

    Raises:
        UserError: the file is missing or not a config, or one of its modules cannot be imported.
    """
    path = Path(path)
    if not path.is_file():
        wrong = f'{path} is a folder, not a config' if path.is_dir() else f'no config file {path}'
        raise UserError(f'{wrong}; the configs are in {REPOSITORY / "configs"}.')
    if kind := other_kind(path, TEXT, CONFIG):
        raise UserError(f'{path} is not a config: it is {kind}. A config is needed here, a .py file such as those in '
                        'configs/; the checkpoint comes after it.')
    search_path, complain = [*sys.path], sys.unraisablehook
    try:
        config = Config.fromfile(str(path), import_custom_modules=False)
    except BaseException as error:  # any error of the user's code, or Ctrl-C, after which mmcv leaves traces
        sys.path[:], sys.unraisablehook = search_path, lambda _: None
        traceback.clear_frames(error.__traceback__)  # closes the temporary file now, whose folder is gone
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        raise UserError(f'{path} cannot be read as a config: {type(error).__name__}: {error}') from error
    finally:
        sys.unraisablehook = complain
    import_modules(config, path)
    return config


def names(config: dict) -> list[str]:
    """List the modules that a config names, `custom_imports=dict(imports=['my_head'])`.

    Raises:
        UserError: `custom_imports` has another form, or allows imports to fail.
    """
    wanted = config.get('custom_imports') or {}
    imports = wanted.get('imports', []) if isinstance(wanted, dict) else None
    imports = [imports] if isinstance(imports, str) else imports
    if not isinstance(imports, (list, tuple)) or not all(isinstance(name, str) for name in imports) or \
            set(wanted) - {'imports', 'allow_failed_imports'}:
        raise UserError(f"custom_imports={wanted!r}: names of modules are needed, dict(imports=['my_head']) for the "
                        'file my_head.py beside the config.')
    if wanted.get('allow_failed_imports'):
        raise UserError('custom_imports: allow_failed_imports=True is not supported; a named module must be there.')
    return list(imports)


def import_modules(config: Config, path: Path) -> None:
    """Import the modules that the config file `path` names; they may lie beside it.

    Raises:
        UserError: a module is missing, fails to import, or has the name of another.
    """
    wanted, folder = names(config), path.resolve().parent
    if not wanted:
        return
    added = str(folder) not in sys.path
    if added:
        sys.path.append(str(folder))  # last: `models` and `datasets` stay this repository's
    FOLDERS.add(folder)
    try:
        for name in wanted:
            _import(name, path, folder)
    except UserError:
        if added:
            sys.path.remove(str(folder))
        raise


def _import(name: str, path: Path, folder: Path) -> None:
    """Import a module; it must be the file beside the config, if there is one."""
    try:
        import_module(name)
    except Exception as error:  # the user's own code can raise any
        why = f'which fails: {type(error).__name__}: {error}'
        if isinstance(error, ModuleNotFoundError) and error.name in (name, name.split('.')[0]):
            why = (f'and there is no such module: neither {folder / name.replace(".", "/")}.py, nor one on '
                   'PYTHONPATH.')
        raise UserError(f'{path} imports {name!r} (custom_imports), {why}') from error
    first = name.split('.')[0]
    meant = [file for file in (folder / f'{first}.py', folder / first / '__init__.py') if file.is_file()]
    found = getattr(sys.modules[first], '__file__', None)
    if meant and found and Path(found).resolve() not in [file.resolve() for file in meant]:
        raise UserError(f'{meant[0]} has the name of another module, {found}, which is imported instead: rename '
                        'yours, and its name in custom_imports.')


def where(error: BaseException | None) -> str:
    """Give, in brackets, the last line of the user's own modules that an error passed through; empty without one."""
    known = []  # of errors that are each other's causes
    while error is not None and error not in known:
        known.append(error)
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if any(_is_own(Path(frame.filename), folder) for folder in FOLDERS):
                return f' ({frame.filename}, line {frame.lineno})'
        error = error.__cause__ or error.__context__
    return ''


def _is_own(file: Path, folder: Path) -> bool:
    """Tell whether a file below a config's folder is the user's: the folder may hold this repository, or Python."""
    return file.is_relative_to(folder) and 'site-packages' not in file.parts and not any(
        file.is_relative_to(other) for other in NOT_OWN if other.is_relative_to(folder))


def keep(path: Path, folder: Path) -> None:
    """Copy the modules that were imported from beside the config file `path` into a run's folder.

    So the copy of the config there is complete, and the run keeps the code that it was trained with.
    """
    source = path.resolve().parent
    if source not in FOLDERS or source == folder.resolve():
        return
    for module in list(sys.modules.values()):
        file = Path(getattr(module, '__file__', None) or source)
        if file != source and _is_own(file, source):
            copy = folder / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
