"""Weights from disk: checkpoints and CLIP files of every format, text embeddings. No code in a file is run."""
import json
import logging
import re
import zipfile
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import torch
from torch import Tensor

from ..errors import UserError
from ..file_kinds import TABLE, WEIGHTS, other_kind
from ..plugins import REPOSITORY
from . import torch_files
from .checks import CONTROL, check_plain, walk
from .names import find_state_dict, in_layout_of_clip, is_hugging_face, unwrapped
from .published_files import FILES, FOLDER

LOGGER = logging.getLogger('mmseg')
ENDINGS = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors')
SHARD = re.compile(r'-\d+-of-0*([2-9]|[1-9]\d+)\.(bin|safetensors)$')
JOIN = ("save it in one file, with transformers: CLIPModel.from_pretrained(FOLDER).save_pretrained(OUT, "
        "max_shard_size='100GB').")
EXPLAINED = (ValueError, zipfile.BadZipFile, safetensors.SafetensorError)  # errors whose texts explain the damage
META = {'CLASSES': (list, tuple), 'PALETTE': (list, tuple), 'iter': Integral, 'epoch': Integral, 'seed': Integral,
        'hook_msgs': dict, 'clip_rc': dict, 'progress': dict, 'grad_scaler': dict}  # entries in use


class Checkpoint(NamedTuple):
    """The tensors of a file by name, and its `meta` (empty by default)."""
    weights: dict[str, Tensor]
    meta: dict
    path: str
    hugging_face: bool = False  # saved by transformers; the names here are CLIP's all the same


def downloaded(name: str | Path) -> Path | None:
    """Return the place of a file that `tools/download.py NAME` fetches, there or not; None for any other name."""
    file = FILES.get(str(name))
    return file and REPOSITORY / FOLDER / file


def locate(path: str | Path) -> Path:
    """Return the downloaded file for a name such as 'voc12-inductive'; any other path, or such a file, as it is.

    Raises:
        UserError: it is such a name, and not downloaded.
    """
    file = None if Path(path).is_file() else downloaded(path)
    if file and not file.is_file():
        raise UserError(f'{path} is not downloaded: python {REPOSITORY / "tools/download.py"} {path}')
    return file or Path(path)


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint or a CLIP file of any format; its tensors get the names of CLIP or CLIP-RC.

    Args:
        path: a file, or the name of one that tools/download.py fetched.

    Raises:
        UserError: the file is missing, truncated, damaged or unsafe, or holds no state dict.
    """
    path = locate(path)
    content = read_content(path)
    bare = unwrapped(content['state_dict'])
    return Checkpoint(in_layout_of_clip(bare), content['meta'], str(path), hugging_face=is_hugging_face(bare))


def read_content(path: str | Path) -> dict:
    """Read all of a file: `state_dict`, `meta`, and its other entries. Tensors are on the CPU, names as in the file.

    Raises:
        UserError: as `read`.
    """
    path = Path(path)
    _check_path(path)
    content = _load(path)
    meta = content.get('meta') if isinstance(content, dict) else None
    weights, way = find_state_dict(content)
    if way not in ([], ['state_dict']):
        LOGGER.info('%s: its weights are those in %s', path, '.'.join(way))
    weights = {name: value.detach() for name, value in weights.items() if isinstance(name, str) and isinstance(
        value, Tensor)} if isinstance(weights, dict) else {}
    if not weights:
        raise UserError(f'{path} holds no state dict: no tensors by name.')
    unusual = [name for name, tensor in weights.items() if tensor.is_meta or tensor.is_quantized or
               tensor.layout is not torch.strided]
    if unusual:
        raise UserError(f'{path} has tensors that are sparse, quantised or without data ({unusual[0]}): save it with '
                        'dense weights in float32.')
    _check_meta(meta or {}, path)
    return {**(content if way else {}), 'state_dict': weights, 'meta': meta or {}}


def _check_path(path: Path) -> None:
    if path.is_dir():
        inside = sorted(file.name for file in path.iterdir() if file.suffix in ENDINGS)
        raise UserError(f'{path} is a folder: name a file' + (f' in it: {", ".join(inside[-9:])}.' if inside else '.'))
    if not path.is_file():
        if path.exists():
            raise UserError(f'{path} is not a regular file.')
        known = '' if path.suffix or path.parent.name else ' `python tools/download.py --list` lists known names.'
        raise UserError(f'no file {path}.{known}')
    if shard := SHARD.search(path.name):
        raise UserError(f'{path} is one of {int(shard[1])} files (shards) that a model was saved in: {JOIN}')
    if not path.stat().st_size:
        raise UserError(f'{path} is empty. Fetch or copy it again.')


def _load(path: Path) -> Any:
    """Load a file by its content, not by its name."""
    try:
        if kind := other_kind(path, WEIGHTS):
            if path.name.endswith('.index.json'):
                raise UserError(f'{path} is the list of the files (shards) that a model was saved in: {JOIN}')
            config = '; a config comes before it, or after --config' if path.suffix == '.py' else ''
            raise UserError(f'{path} is not a checkpoint: it is {kind}. A .pth, .pt, .bin or .safetensors file of '
                            f'weights is needed here{config}.')
        with path.open('rb') as file:
            is_safetensors = file.read(9)[8:] == b'{'
        content = _load_safetensors(path) if is_safetensors else torch_files.load(path)
        check_plain(content, path.stat().st_size)
        return content
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}.') from error
    except Exception as error:  # a damaged file can raise any
        why = f' ({error})' if isinstance(error, EXPLAINED) else ''
        raise UserError(f'{path} is truncated or damaged, or not a checkpoint{why}. Fetch or copy it again.') from error


def _load_safetensors(path: Path) -> dict:
    """Load a CLIP file, or a slim checkpoint of tools/export.py, whose meta is JSON in the header."""
    with safetensors.safe_open(path, 'pt') as file:
        return {'state_dict': {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118  not a dict
                'meta': json.loads((file.metadata() or {}).get('meta', '{}'))}


def _check_meta(meta: Any, path: Path) -> None:
    """Check that the entries of a meta that are used have their types, and texts that a terminal can show."""
    used = {name: meta[name] for name in META if meta.get(name) is not None} if isinstance(meta, dict) else None
    if used is None or not all(isinstance(value, META[name]) for name, value in used.items()) or \
            not all(isinstance(name, str) and name.isprintable() for name in used.get('CLASSES', ())) or \
            not isinstance(used.get('hook_msgs', {}).get('best_score'), (Real, type(None))) or \
            any(isinstance(text, str) and CONTROL.search(text) for text in walk(used)):
        raise UserError(f'{path}: its metadata (meta) are damaged. Copy it again.')


def read_embeddings(path: str | Path) -> Tensor:
    """Read text embeddings (C, E) from a `.npy` file, as float32.

    Raises:
        UserError: the file is missing or not a table of numbers, or a row is zero or not finite.
    """
    if Path(path).is_dir():
        raise UserError(f'{path} is a folder, not a .npy file of text embeddings.')
    try:
        table = np.lib.format.open_memmap(path, mode='r')  # refuses pickles, and sizes larger than the file
    except FileNotFoundError:
        raise UserError(f'no embedding file {path}. Leave it out (load_text_embedding=None) to have the embeddings '
                        'computed from CLIP.') from None
    except Exception as error:  # numpy parses a header that may hold anything
        kind = other_kind(Path(path), TABLE) if Path(path).is_file() else ''
        instead = kind and f': it is {kind}'
        raise UserError(f'{path} is truncated or not a .npy table of text embeddings{instead}.') from error
    if table.ndim != 2 or table.dtype.kind != 'f' or table.size == 0:
        raise UserError(f'{path} is not a (classes, width) table of text embeddings.')
    rows = torch.from_numpy(table.astype(np.float32))
    wrong = ~(rows.isfinite().all(1) & rows.any(1))
    if wrong.any():
        raise UserError(f'{path}: row {int(wrong.nonzero()[0])} is not a text embedding: it is zero, or has values '
                        'that are not finite. Make the file again.')
    return rows
