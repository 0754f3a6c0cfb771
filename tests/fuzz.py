"""Damage files of every kind at random and read them: `python tests/fuzz.py --minutes 20`.

Every reader must accept an input or raise a ValueError, within a limit of memory. Inputs that end otherwise are kept;
after a crash of the process the last one is the file `input` in that folder.
"""
import argparse
import copy
import faulthandler
import io
import pickle
import random
import resource
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
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
from tools.inspect_checkpoint import lines  # noqa: E402
from tools.preparation import convert_masks, unpack  # noqa: E402
from tools.preparation.sources import Archive, Folder  # noqa: E402
from tools.results.inspection import inspect  # noqa: E402

MEMORY = 400_000_000  # bytes that reading one may take, of files of less than 1 MB
OF_IMAGES = 3_000_000_000  # 100 million pixels, in the numbers of bytes that libraries make of them
ADDRESSES = 6_000_000_000  # bytes of address space beside what the libraries have


# ---- whole files

def small_clip() -> dict[str, torch.Tensor]:
    return clip_weights(width=8, layers=1, embed=4, patch=4, resolution=8, text_width=8, text_layers=1, vocabulary=9)


def checkpoints(folder: Path) -> None:
    weights = small_clip()
    meta = {'CLASSES': ['cat', 'dog'], 'iter': 3, 'seed': 1, 'best': np.float64(0.5), 'note': b'bytes',
            'config': 'model = dict(type="CLIPRC", a=[1, -2.5], b=(None, True))\n', 'hook_msgs': {'best_score': 0.5}}
    optimizer = {'state': {0: {'step': torch.tensor(1.), 'sum': torch.ones(3)}}, 'param_groups': [{'lr': 0.1}]}
    full = {'state_dict': nn.Linear(2, 2).state_dict(), 'meta': meta, 'optimizer': optimizer}
    torch.save(full, folder / 'full.pth')
    torch.save(full, folder / 'legacy.pth', _use_new_zipfile_serialization=False)
    torch.save(weights, folder / 'clip.pth')
    torch.save({'w': nn.Parameter(torch.ones(2, 3)), 'h': torch.ones(2).bfloat16()}, folder / 'small.pth')
    torch.save({'w': torch.ones(2, 3)}, folder / 'small_legacy.pth', _use_new_zipfile_serialization=False)
    save_torchscript(weights, folder / 'clip.pt')
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
    checkpoint = files.read(path)
    list(lines(inspect(checkpoint)))
    for tensor in checkpoint.weights.values():
        tensor.sum()  # reads all of it


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
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / 'root'
        root.mkdir()
        archive = Archive(path.name, (), {}, (Folder('a', 'out', ('.jpg', '.jpg')),))
        try:
            unpack.unpack(archive, path, root, 1)
        finally:
            assert [file.name for file in Path(folder).iterdir()] == ['root']


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


# ---- running

def make_files(folder: Path) -> dict[Path, bytes]:
    """Write undamaged files of every kind."""
    folder.mkdir(parents=True)
    for make in (checkpoints, images, texts, archives, descriptions):
        make(folder)
    return {file: file.read_bytes() for file in sorted(folder.iterdir())}


def peak_memory() -> int:
    status = Path('/proc/self/status').read_text()
    return 1024 * int(status.split('VmHWM:')[1].split()[0])


def read_one(path: Path) -> str:
    """Read an input: 'accepted', 'refused', or a description of a wrong end."""
    Path('/proc/self/clear_refs').write_text('5')
    before, result = peak_memory(), 'accepted'
    try:
        READERS[path.suffix](path)
    except ValueError:
        result = 'refused'
    except BaseException as error:
        traceback.print_exc()
        return f'raised {type(error).__name__}: {error}'.splitlines()[0]
    taken = peak_memory() - before
    return result if taken < (OF_IMAGES if path.suffix in IMAGES else MEMORY) else f'took {taken / 1e6:.0f} MB'


def fuzz(*, seed: int, folder: Path, inputs: int | None = None, seconds: float = float('inf'),
         kinds: list[str] | None = None) -> tuple[Counter, list[str]]:
    """Read damaged files until there were `inputs` of them, or the time is over.

    Args:
        folder: for the files; inputs with a wrong end stay there.
        kinds: endings of files; all by default.

    Returns:
        the number of inputs by ending and result, and the wrong ends.
    """
    counts, wrong, until, number = Counter(), [], time.monotonic() + seconds, 0
    contents = {file: data for file, data in make_files(folder / 'whole').items() if file.suffix in (kinds or READERS)}
    while (inputs is None or number < inputs) and time.monotonic() < until:
        draws = random.Random(f'{seed} {number}')
        file = draws.choice(list(contents))
        alike = [data for other, data in contents.items() if other.suffix == file.suffix]
        path = folder / f'input{file.suffix}'
        path.write_bytes(change(file, contents[file], alike, draws))
        result = read_one(path)
        if result not in ('accepted', 'refused'):
            wrong.append(f'{number} {file.name}: {result}')
            path.rename(folder / f'{number}{file.suffix}')
        counts[file.suffix, result if result in ('accepted', 'refused') else 'wrong'] += 1
        number += 1
    return counts, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, default=20)
    parser.add_argument('--inputs', type=int, help='stop after so many')
    parser.add_argument('--seed', type=int, default=int(time.time()), help='(default: the time)')
    parser.add_argument('--kinds', nargs='+', choices=list(READERS), help='endings (default: all)')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='new folder for inputs')
    args = parser.parse_args()
    faulthandler.enable()
    torch.set_num_threads(1)
    addresses = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (addresses + ADDRESSES, resource.RLIM_INFINITY))
    counts, wrong = fuzz(seed=args.seed, folder=args.out, inputs=args.inputs, seconds=60 * args.minutes,
                         kinds=args.kinds)
    for ending in sorted({ending for ending, _ in counts}):
        print(f'{ending:14}' + ', '.join(f'{counts[ending, end]:,} {end}' for end in ('accepted', 'refused', 'wrong')))
    print(f'seed {args.seed}: {sum(counts.values()):,} inputs, {len(wrong)} with a wrong end', *wrong, sep='\n')
    sys.exit(bool(wrong))


if __name__ == '__main__':
    main()
