"""Damages files of every kind that is read here, at random, and reads them: `python tests/fuzz.py --minutes 20`.

Every reader must take what it is given, or end in a ValueError; without a crash, within a time, within a memory. The
readers run in a process of their own; of an input that they do not end well with, a copy is kept.
"""
import argparse
import copy
import faulthandler
import io
import os
import pickle
import random
import resource
import select
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / 'tests')]
import numpy as np  # noqa: E402
import safetensors.torch  # noqa: E402
import torch  # noqa: E402
from clip_files import clip_weights, save_torchscript  # noqa: E402
from PIL import Image  # noqa: E402
from torch import nn  # noqa: E402

from datasets.class_split import ClassSplit, listed  # noqa: E402
from datasets.loading import LoadImage, MaskColours, MaskIds, load_mask  # noqa: E402
from models.class_names import clean_class_names, parse_class_names, templates_of  # noqa: E402
from models.inference import load_model, read_image  # noqa: E402
from models.weights import files, metadata  # noqa: E402
from models.weights.config_text import read_config_text  # noqa: E402
from tools.inspect_checkpoint import inspect, lines  # noqa: E402
from tools.preparation import convert_masks, unpack  # noqa: E402

SECONDS = 100  # for one input, beside whatever else the machine does
MEMORY = 400_000_000  # bytes that reading one may take, of files of less than 1 MB
OF_IMAGES = 3_000_000_000  # 100 million pixels, in the numbers of bytes that libraries make of them
ADDRESSES = 6_000_000_000  # bytes of address space beside what the libraries have


# ---- whole files

def small_clip() -> dict[str, torch.Tensor]:
    return clip_weights(width=8, layers=1, embed=4, patch=4, resolution=8, text_width=8, text_layers=1, vocabulary=9)


class Nested(nn.Module):
    """Parameters, buffers, shared ones, views, attributes that are none of these."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(2, 3), nn.Linear(2, 3).half()])
        self.tied = self.inner[0].weight
        self.register_buffer('view', torch.arange(12.).reshape(3, 4).t()[1:])
        self.attribute, self.names, self.table = torch.ones(2), ['a'], {'b': 1}


def checkpoints(folder: Path) -> None:
    weights = small_clip()
    meta = {'CLASSES': ['cat', 'dog'], 'iter': 3, 'seed': 1, 'best': np.float64(0.5), 'note': b'bytes',
            'config': 'model = dict(type="CLIPRC", a=[1, -2.5], b=(None, True))\n', 'hook_msgs': {'best_score': 0.5}}
    optimizer = {'state': {0: {'step': torch.tensor(1.), 'sum': torch.ones(3)}}, 'param_groups': [{'lr': 0.1}]}
    full = {'state_dict': nn.Linear(2, 2).state_dict(), 'meta': meta, 'optimizer': optimizer}
    torch.save(full, folder / 'full.pth')
    torch.save(full, folder / 'legacy.pth', _use_new_zipfile_serialization=False)
    torch.save({**full, 'args': argparse.Namespace(a=1), 'set': {1}, 'table': np.ones(2), 'b': b'b', ('a', 1): 'key'},
               folder / 'strange.pth', pickle_protocol=4)
    torch.save(weights, folder / 'clip.pth')
    torch.save({'w': nn.Parameter(torch.ones(2, 3)), 'h': torch.ones(2).bfloat16()}, folder / 'small.pth')
    torch.save({'w': torch.ones(2, 3)}, folder / 'small_legacy.pth', _use_new_zipfile_serialization=False)
    save_torchscript(weights, folder / 'clip.pt')
    torch.jit.script(Nested()).save(str(folder / 'nested.pt'))
    safetensors.torch.save_file(weights, folder / 'clip.safetensors')
    safetensors.torch.save_file({'w': torch.ones(2)}, folder / 'small.safetensors', {'meta': '{"iter": 3, "x": [{}]}'})
    for dtype in (np.float16, np.float64):
        np.save(folder / f'{np.dtype(dtype)}.npy', np.ones((3, 4), dtype))
    np.save(folder / 'objects.npy', np.array([[None]]), allow_pickle=True)
    np.savez(folder / 'archive.npy.npz', np.ones(3))
    (folder / 'archive.npy.npz').rename(folder / 'archive.npy')


def images(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    for ending in ('jpg', 'png', 'gif', 'webp', 'tiff', 'bmp'):
        image.save(folder / f'plain.{ending}', exif=exif)
    image.save(folder / 'progressive.jpg', progressive=True)
    image.convert('CMYK').save(folder / 'cmyk.jpg')
    image.convert('RGBA').save(folder / 'opacity.png')
    image.quantize(16).save(folder / 'palette.png', transparency=3, optimize=True)
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(folder / 'deep.png')
    Image.fromarray(noise[..., 0].astype(np.float32) / 255).save(folder / 'float.tiff')
    for name in ('tiff_lzw', 'jpeg', 'tiff_adobe_deflate', 'packbits'):
        image.save(folder / f'{name}.tiff', compression=name)
    image.save(folder / 'lossless.webp', lossless=True)
    for ending in ('gif', 'webp', 'png'):
        image.save(folder / f'moving.{ending}', save_all=True, append_images=[image.rotate(180)], duration=9)
    Image.fromarray(noise[..., 0] % 5).save(folder / 'mask.png')
    Image.fromarray(noise[..., 0] % 5).quantize(8).save(folder / 'mask_palette.png')
    Image.fromarray(noise[..., 0] > 9).save(folder / 'mask_bits.png')
    Image.fromarray(noise[..., 0] % 5).save(folder / 'mask.tiff', compression='tiff_lzw')


def texts(folder: Path) -> None:
    config = REPOSITORY / 'configs/_base_/models/clip_rc.py'
    (folder / 'base.config').write_text(config.read_text())
    (folder / 'small.config').write_text('a = -1\nb = [1e-6, None, (True, )]\nc = {"x.y": dict(z="w")}\n')
    (folder / 'classes.names').write_text('cat\nsofa, couch\n\npotted plant\n', encoding='utf-8')
    (folder / 'bom.names').write_text('\ufeffLöwe\n猫\r\ndog', encoding='utf-8')
    (folder / 'prompts.prompts').write_text('a photo of a {}\nthe {} there.\n')
    (folder / 'list.words').write_text('cat, sofa|couch; potted plant\nbus|bus, ,|')


def archives(folder: Path) -> None:
    with zipfile.ZipFile(folder / 'it.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a/b.jpg', bytes(300))
        archive.writestr('a/../b.jpg', b'x')
    for name, mode in (('it.tar', 'w'), ('it.tgz', 'w:gz')):
        with tarfile.open(folder / name, mode) as archive:
            for member, kind in (('a/b.jpg', tarfile.REGTYPE), ('a/link', tarfile.SYMTYPE), ('a/hard', tarfile.LNKTYPE),
                                 ('a/device', tarfile.CHRTYPE)):
                info = tarfile.TarInfo(member)
                info.type, info.linkname, info.size = kind, '/etc/passwd', 300 if kind == tarfile.REGTYPE else 0
                archive.addfile(info, io.BytesIO(bytes(info.size)))


def descriptions(folder: Path) -> None:
    """Checkpoints that say something of themselves; they are damaged value by value, not byte by byte."""
    file = files.read(REPOSITORY / 'tools/miniature/model.safetensors')
    (folder / 'ours.meta').write_bytes(pickle.dumps(file.meta))
    config = {part: file.meta['clip_rc']['config'][part] for part in ('model', 'data')}
    (folder / 'official.meta').write_bytes(pickle.dumps({
        'CLASSES': file.meta['CLASSES'], 'iter': 3, 'config': '\n'.join(f'{name} = {value!r}' for name, value in
                                                                        config.items())}))


# ---- readers

def read_checkpoint(path: Path) -> None:
    found = files.read(path)
    list(lines(inspect(found)))
    files.depth(found.weights, 'transformer.resblocks')
    for tensor in found.weights.values():
        tensor.sum()  # of all that it claims to hold


def read_data(path: Path) -> None:
    """As an image, as a mask of ids and as a mask of colours."""
    for step in (lambda: LoadImage()({'img_prefix': str(path.parent), 'img_info': {'filename': path.name}}),
                 lambda: load_mask(str(path), MaskIds('abcde')),
                 lambda: load_mask(str(path), MaskColours([(1, 2, 3), (4, 5, 6)])),
                 lambda: convert_masks.label_ids(convert_masks.decode(path))):
        _refusable(step)
    read_image(path, max_pixels=20_000_000)


def _refusable(step: Callable[[], object]) -> None:
    with suppress(ValueError):
        step()


def read_names(path: Path) -> None:
    ClassSplit(tuple(listed(str(path), 'class names')))


def read_words(path: Path) -> None:
    clean_class_names(parse_class_names(path.read_text(errors='replace')))


def read_archive(path: Path) -> None:
    with unpack.opened(path) as (members, _):
        for member in members:
            assert not member.path.is_absolute() and '..' not in member.path.parts
            if member.size < 10_000_000:
                member.read()


MODEL: list[files.Checkpoint] = []  # the miniature's, once it is read


def read_described(path: Path) -> None:
    MODEL[:] = MODEL or [files.read(REPOSITORY / 'tools/miniature/model.safetensors')]
    meta = pickle.loads(path.read_bytes())  # our own
    torch.save({'state_dict': MODEL[0].weights, 'meta': meta}, path.with_suffix('.pth'))
    checkpoint = files.read(path.with_suffix('.pth'))
    _refusable(lambda: list(lines(inspect(checkpoint))))
    _refusable(lambda: metadata.description(checkpoint))
    load_model(checkpoint, device='cpu')


READERS = {'.pth': read_checkpoint, '.pt': read_checkpoint, '.safetensors': read_checkpoint,
           '.npy': files.read_embeddings,
           **dict.fromkeys(('.jpg', '.png', '.gif', '.webp', '.tiff', '.bmp'), read_data),
           '.config': lambda path: read_config_text(path.read_text(errors='replace')), '.names': read_names,
           '.prompts': lambda path: templates_of(str(path)), '.words': read_words,
           **dict.fromkeys(('.zip', '.tar', '.tgz'), read_archive), '.meta': read_described}
IMAGES = ('.jpg', '.png', '.gif', '.webp', '.tiff', '.bmp')


# ---- damage

NUMBERS = [0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0xffffffff, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]


def damaged(data: bytes, others: list[bytes], draws: random.Random) -> bytes:
    """The bytes after one to five changes of any kind."""
    data = bytearray(data)
    for _ in range(draws.choice((1, 1, 1, 2, 3, 5))):
        place = draws.randrange(len(data) + 1)
        end = min(len(data), place + draws.choice((1, 2, 4, 8, 16, 64, 512)))
        match draws.randrange(9):
            case 0 | 1 if data:
                data[place % len(data)] ^= 1 << draws.randrange(8)
            case 2 if data:
                data[place % len(data)] = draws.randrange(256)
            case 3:
                width = draws.choice('BHIQ')
                number = draws.choice(NUMBERS) & ((1 << 8 * struct.calcsize(width)) - 1)
                written = struct.pack(draws.choice('<>') + width, number)
                data[place:place + len(written)] = written
            case 4:
                del data[place:end]
            case 5:
                data[place:place] = data[place:end] * draws.choice((1, 2, 50))
            case 6 if draws.random() < 0.3:
                del data[place:]
            case 7:
                other = draws.choice(others)
                start = draws.randrange(len(other) + 1)
                data[place:end] = other[start:start + draws.choice((1, 4, 16, 256))]
            case 8:
                digits = [index for index, byte in enumerate(data) if 48 <= byte <= 57]
                if digits:
                    index = draws.choice(digits)
                    data[index:index + 1] = draws.choice((b'-1', b'0', b'99999999999', b'1e999', b'9' * 5000))
    return bytes(data)


def damaged_zip(data: bytes, others: list[bytes], draws: random.Random) -> bytes:
    """A zip file whose members are damaged, renamed, left out or compressed, and whose checksums are right."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(written, 'w') as changed:
        chosen = draws.choice(archive.namelist())
        if draws.random() < 0.6:  # the pickle is what is of interest
            chosen = next((name for name in archive.namelist() if name.endswith('data.pkl')), chosen)
        for entry in archive.infolist():
            content, name, kind = archive.read(entry), entry.filename, zipfile.ZIP_STORED
            if name == chosen:
                match draws.randrange(8):
                    case 0:
                        continue
                    case 1:
                        kind = zipfile.ZIP_DEFLATED
                    case 2:
                        name = damaged(name.encode(), [b'../'], draws).decode(errors='replace')
                        name = name.replace('\0', '_') or 'x'
                    case _:
                        content = damaged(content, [content, *others], draws)
            changed.writestr(name, content, kind)
    return written.getvalue()


def damaged_png(data: bytes, others: list[bytes], draws: random.Random) -> bytes:
    """A PNG one of whose chunks is damaged, and whose checksums are right."""
    chunks, place = [], 8
    while place < len(data):
        length = struct.unpack('>I', data[place:place + 4])[0]
        chunks.append((data[place + 4:place + 8], data[place + 8:place + 8 + length]))
        place += 12 + length
    chosen = draws.randrange(len(chunks))
    kind, content = chunks[chosen]
    if kind == b'IDAT' and draws.random() < 0.5:
        content = zlib.compress(damaged(zlib.decompress(content), others, draws))
    else:
        content = damaged(content, others, draws)
    chunks[chosen] = (kind, content)
    if draws.random() < 0.2:
        draws.shuffle(chunks)
    return data[:8] + b''.join(struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(
        kind + content)) for kind, content in chunks)


VALUES = [None, True, -1, 0, 1, 3, 1 << 20, 1 << 62, 1e300, float('nan'), '', 'x', '\x1b[31m', 'CLIPRC', [], [1], {},
          {'type': 'ResNet', 'depth': 50}, ['a'] * 3, [[[]]], b'x', (1, 2), 'a' * 100_000]


def damaged_values(data: bytes, others: list[bytes], draws: random.Random) -> bytes:
    """A meta some of whose values are others."""
    meta = pickle.loads(data)
    for _ in range(draws.choice((1, 1, 2, 4))):
        inside = meta
        while True:
            keys = list(inside) if isinstance(inside, dict) else range(len(inside))
            key = draws.choice(list(keys) or [None])
            deeper = keys and inside[key]
            if not (isinstance(deeper, (dict, list)) and deeper) or draws.random() < 0.15:
                break
            inside = deeper
        if not keys:
            continue
        if isinstance(deeper, str) and draws.random() < 0.5:
            inside[key] = damaged(deeper.encode(), [b'()[]{},='], draws).decode(errors='replace')
        elif draws.random() < 0.2:
            del inside[key]
        else:
            inside[key] = copy.deepcopy(draws.choice(VALUES))
    return pickle.dumps(meta)


def change(file: Path, data: bytes, others: list[bytes], draws: random.Random) -> bytes:
    if file.suffix == '.meta':
        return damaged_values(data, others, draws)
    if file.suffix == '.png' and draws.random() < 0.6:
        return damaged_png(data, others, draws)
    if data.startswith(b'PK') and draws.random() < 0.75:
        return damaged_zip(data, others, draws)
    return damaged(data, others, draws)


# ---- the process that reads

def make_files(folder: Path) -> list[Path]:
    """Whole files of every kind, each of which is read without an error, or refused as it should be."""
    for make in (checkpoints, images, texts, archives, descriptions):
        make(folder)
    return sorted(folder.iterdir())


def peak_memory() -> int:
    status = Path('/proc/self/status').read_text()
    return 1024 * int(status.split('VmHWM:')[1].split()[0])


def read_damaged(folder: Path, kinds: list[str], seed: int, first: int, count: int) -> None:
    """Damages and reads, and says of each input, a line each, what became of it."""
    faulthandler.enable()
    torch.set_num_threads(1)
    files = [file for file in sorted((folder / 'whole').iterdir()) if file.suffix in kinds]
    contents = {file: file.read_bytes() for file in files}
    addresses = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (addresses + ADDRESSES, resource.RLIM_INFINITY))
    for number in range(first, first + count):
        draws = random.Random(f'{seed} {number}')
        file = draws.choice(files)
        alike = [content for other, content in contents.items() if other.suffix == file.suffix]
        path = folder / f'input{file.suffix}'
        path.write_bytes(contents[file] if number == 0 else change(file, contents[file], alike, draws))
        print('start', number, file.name, flush=True)
        Path('/proc/self/clear_refs').write_text('5')
        before = peak_memory()
        try:
            READERS[file.suffix](path)
            result = 'taken'
        except ValueError:
            result = 'refused'
        except BaseException as error:  # whatever it is, it is what is looked for
            result = f'raised {type(error).__name__}: {error}'.splitlines()[0]
            traceback.print_exc()
        taken = peak_memory() - before
        if taken > (OF_IMAGES if file.suffix in IMAGES else MEMORY):
            result = f'took {taken / 1e6:.0f} MB'
        print('end', result, flush=True)


# ---- the process that watches

def events(process: subprocess.Popen) -> Iterator[list[str] | None]:
    """Lines that the reading process writes; None when it is silent for too long."""
    buffer = b''
    while True:
        ready, _, _ = select.select([process.stdout], [], [], SECONDS)
        if not ready:
            yield None
            return
        data = os.read(process.stdout.fileno(), 1 << 16)
        if not data:
            return
        *whole, buffer = (buffer + data).split(b'\n')
        yield from (line.decode(errors='replace').split(' ', 1) for line in whole)


def fuzz(*, seed: int, inputs: int | None = None, seconds: float = float('inf'), kinds: list[str] | None = None,
         keep: Path | None = None) -> tuple[Counter, list[str]]:
    """Reads damaged files until there were `inputs` of them, or the time is over.

    Args:
        kinds: endings of files; all without it.
        keep: folder for copies of inputs that a reader does not end well with.

    Returns:
        how many inputs of each kind were taken and refused, and what was found, a text each.
    """
    counts, found, until, number = Counter(), [], time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / 'whole').mkdir()
        make_files(folder / 'whole')
        while (inputs is None or number < inputs) and time.monotonic() < until:
            count = 5000 if inputs is None else inputs - number
            with (folder / 'errors').open('wb') as errors:
                process = subprocess.Popen(
                    [sys.executable, __file__, '--read', str(folder), str(seed), str(number), str(count),
                     *(kinds or READERS)], stdout=subprocess.PIPE, stderr=errors)
                name, bad = None, None
                for event in events(process):
                    if event is None:
                        bad = f'silent for {SECONDS} s'
                    elif event[0] == 'start':
                        number, name = int(event[1].split()[0]), event[1].split()[1]
                    else:
                        number += 1
                        result, ending, name_read, name = event[1], Path(name).suffix, name, None
                        counts[ending, result if result in ('taken', 'refused') else 'bad'] += 1
                        if result not in ('taken', 'refused'):
                            found.append(f'{number - 1} {name_read}: {result}')
                            _keep(folder / f'input{ending}', keep, number - 1)
                    if bad or time.monotonic() > until:
                        process.kill()
                        break
                code = process.wait()
                if name is not None and (bad or code not in (0, -signal.SIGKILL)):
                    tail = (folder / 'errors').read_text(errors='replace')[-1500:]
                    found.append(f'{number} {name}: {bad or f"ended with {code}"}\n{tail}')
                    counts[Path(name).suffix, 'bad'] += 1
                    _keep(folder / f'input{Path(name).suffix}', keep, number)
                    number += 1
                elif code != 0 and not bad and time.monotonic() < until:
                    raise RuntimeError((folder / 'errors').read_text(errors='replace')[-3000:])
    return counts, found


def _keep(file: Path, folder: Path | None, number: int) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f'{number}{file.suffix}').write_bytes(file.read_bytes())


def main() -> None:
    if sys.argv[1:2] == ['--read']:
        folder, seed, first, count, *kinds = sys.argv[2:]
        read_damaged(Path(folder), kinds, int(seed), int(first), int(count))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, default=20)
    parser.add_argument('--seed', type=int, default=int(time.time()), help='(default: the time)')
    parser.add_argument('--kinds', nargs='+', choices=list(READERS), help='endings (default: all)')
    parser.add_argument('--keep', type=Path, default=Path('work_dirs/fuzz'), metavar='DIR',
                        help='where inputs go that were not read well (default: work_dirs/fuzz)')
    args = parser.parse_args()
    counts, found = fuzz(seed=args.seed, seconds=60 * args.minutes, kinds=args.kinds, keep=args.keep)
    for ending in sorted({ending for ending, _ in counts}):
        print(f'{ending:14}' + ', '.join(f'{counts[ending, what]:,} {what}' for what in ('taken', 'refused', 'bad')))
    print(f'seed {args.seed}: {sum(counts.values()):,} inputs, {len(found)} not read well')
    print('\n'.join(found))
    sys.exit(bool(found))


if __name__ == '__main__':
    main()
