"""Damage small files of every kind at random and read them: `python tests/fuzz.py --minutes 20 --out DIR`.

Every reader must accept an input or raise a ValueError, within a limit of memory. Inputs that end otherwise are kept;
after a crash of the process the last one is the file `input` in that folder.
"""
import argparse
import faulthandler
import io
import random
import re
import resource
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / 'tests')]
import numpy as np  # noqa: E402
import safetensors.torch  # noqa: E402
import torch  # noqa: E402
from clip_files import clip_weights, save_torchscript  # noqa: E402
from PIL import Image  # noqa: E402

from datasets.loading import LoadImage, MaskColours, MaskIds, load_mask  # noqa: E402
from models.class_names import clean_class_names, lines_of, parse_class_names, templates_of  # noqa: E402
from models.inference import read_image  # noqa: E402
from models.weights import files, metadata  # noqa: E402
from models.weights.config_text import read_config_text  # noqa: E402
from tools.preparation import convert_masks, unpack  # noqa: E402
from tools.preparation.sources import Archive, Folder  # noqa: E402
from tools.results.inspection import inspect, lines  # noqa: E402

MEMORY = 400_000_000  # bytes that reading one may take, of files of less than 1 MB
OF_IMAGES = 3_000_000_000  # 100 million pixels, in the numbers of bytes that libraries make of them
ADDRESSES = 6_000_000_000  # bytes of address space beside those of the libraries
PEAK = re.compile(r'VmHWM:\s*(\d+)')
IMAGES = ('.jpg', '.png', '.gif', '.webp', '.tiff', '.bmp')


def checkpoints(folder: Path) -> None:
    weights = clip_weights(width=8, layers=1, embed=4, patch=4, resolution=8, text_width=8, text_layers=1, vocabulary=9)
    meta = {'CLASSES': ['cat', 'dog'], 'iter': 3, 'seed': 1, 'best': np.float64(0.5), 'note': b'bytes',
            'config': 'model = dict(type="CLIPRC", a=[1, -2.5], b=(None, True))\n', 'hook_msgs': {'best_score': 0.5}}
    optimizer = {'state': {0: {'step': torch.tensor(1.), 'sum': torch.ones(3)}}, 'param_groups': [{'lr': 0.1}]}
    full = {'state_dict': {'w': torch.ones(2, 2)}, 'meta': meta, 'optimizer': optimizer}
    torch.save(full, folder / 'full.pth')
    torch.save(full, folder / 'legacy.pth', _use_new_zipfile_serialization=False)
    torch.save({'state_dict': weights, 'meta': files.read(REPOSITORY / 'tools/miniature/model.safetensors').meta},
               folder / 'ours.pth')
    save_torchscript(weights, folder / 'clip.pt')
    safetensors.torch.save_file({'w': torch.ones(2)}, folder / 'small.safetensors', {'meta': '{"iter": 3, "x": [{}]}'})
    np.save(folder / 'rows.npy', np.ones((3, 4), np.float16))
    np.save(folder / 'objects.npy', np.array([[None]]), allow_pickle=True)


def images(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    for ending in IMAGES:
        image.save(folder / f'plain{ending}', exif=exif)
    image.convert('CMYK').save(folder / 'cmyk.jpg', progressive=True)
    image.quantize(16).save(folder / 'palette.png', transparency=3)
    image.save(folder / 'lzw.tiff', compression='tiff_lzw')
    image.save(folder / 'moving.gif', save_all=True, append_images=[image.rotate(180)], duration=9)
    Image.fromarray(noise[..., 0] % 5).save(folder / 'mask.png')


def texts(folder: Path) -> None:
    (folder / 'base.config').write_text((REPOSITORY / 'configs/_base_/models/clip_rc.py').read_text())
    (folder / 'small.config').write_text('a = -1\nb = [1e-6, None, (True, )]\nc = {"x.y": dict(z="w")}\n')
    (folder / 'classes.names').write_text('\ufeffcat\nsofa, couch\n\n猫\r\npotted plant\n', encoding='utf-8')
    (folder / 'prompts.prompts').write_text('a photo of a {}\nthe {} there.\n')
    (folder / 'list.typed').write_text('cat, sofa|couch; potted plant\nbus|bus, ,|')


def archives(folder: Path) -> None:
    with zipfile.ZipFile(folder / 'it.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a/b.jpg', bytes(300))
        archive.writestr('a/../b.jpg', b'x')
    for name, mode in (('it.tar', 'w'), ('it.tgz', 'w:gz')):
        with tarfile.open(folder / name, mode) as archive:
            for kind in (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
                info = tarfile.TarInfo(f'a/{kind.decode()}.jpg')
                info.type, info.linkname = kind, '/etc/passwd'
                archive.addfile(info)


def read_checkpoint(path: Path) -> None:
    checkpoint = files.read(path)
    for step in (lambda: list(lines(inspect(checkpoint))), lambda: metadata.description(checkpoint)):
        with suppress(ValueError):
            step()
    for tensor in checkpoint.weights.values():
        tensor.sum()  # reads all of it


def read_data(path: Path) -> None:
    """Read as an image, as a mask of ids and as a mask of colours."""
    for step in (lambda: LoadImage()({'img_prefix': str(path.parent), 'img_info': {'filename': path.name}}),
                 lambda: load_mask(str(path), MaskIds('abcde')),
                 lambda: load_mask(str(path), MaskColours([(1, 2, 3), (4, 5, 6)])),
                 lambda: convert_masks.label_ids(convert_masks.decode(path))):
        with suppress(ValueError):
            step()
    read_image(path, max_pixels=20_000_000)


def read_archive(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / 'root'
        root.mkdir()
        archive = Archive(path.name, (), {}, (Folder('a', 'out', ('.jpg', '.jpg')),))
        try:
            unpack.unpack(archive, path, root, 1)
        finally:
            assert [file.name for file in Path(folder).iterdir()] == ['root']


READERS = {**dict.fromkeys(('.pth', '.pt', '.safetensors'), read_checkpoint), '.npy': files.read_embeddings,
           **dict.fromkeys(IMAGES, read_data), **dict.fromkeys(('.zip', '.tar', '.tgz'), read_archive),
           '.config': lambda path: read_config_text(path.read_text(errors='replace')),
           '.names': lambda path: lines_of(str(path), 'class names'), '.prompts': lambda path: templates_of(str(path)),
           '.typed': lambda path: clean_class_names(parse_class_names(path.read_text(errors='replace')))}


def damaged(data: bytes, draws: random.Random) -> bytes:
    """Return the bytes after one to five changes: bits, bytes, numbers, pieces removed or repeated, a cut end."""
    data = bytearray(data)
    for _ in range(draws.choice((1, 1, 1, 2, 3, 5))):
        place = draws.randrange(len(data) + 1)
        end = min(len(data), place + draws.choice((1, 2, 4, 16, 64, 512)))
        match draws.randrange(7):
            case 0 | 1 if place < len(data):
                data[place] ^= 1 << draws.randrange(8)
            case 2:
                data[place:place + 4] = draws.choice((0, 1, 0x7fffffff, 0xffffffff)).to_bytes(
                    4, draws.choice(('big', 'little')))
            case 3:
                del data[place:end]
            case 4:
                data[place:place] = data[place:end] * draws.choice((1, 2, 50))
            case 5 if draws.random() < 0.3:
                del data[place:]
            case 6 if digits := [index for index, byte in enumerate(data) if 48 <= byte <= 57]:
                index = draws.choice(digits)
                data[index:index + 1] = draws.choice((b'-1', b'0', b'99999999999', b'1e999', b'9' * 5000))
    return bytes(data)


def damaged_zip(data: bytes, draws: random.Random) -> bytes:
    """Return a zip file with one damaged, missing or compressed member, most often the pickle, and right checksums."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(written, 'w') as changed:
        pickles = [name for name in archive.namelist() if name.endswith('data.pkl')]
        chosen = draws.choice(pickles if pickles and draws.random() < 0.6 else archive.namelist())
        for entry in archive.infolist():
            content, kind = archive.read(entry), zipfile.ZIP_STORED
            if entry.filename == chosen:
                match draws.randrange(8):
                    case 0:
                        continue
                    case 1:
                        kind = zipfile.ZIP_DEFLATED
                    case _:
                        content = damaged(content, draws)
            changed.writestr(entry.filename, content, kind)
    return written.getvalue()


def read_one(path: Path) -> str:
    """Read an input: 'accepted', 'refused', or a description of a wrong end."""
    result, limit = 'accepted', OF_IMAGES if path.suffix in IMAGES else MEMORY
    Path('/proc/self/clear_refs').write_text('5')  # the peak is counted from here
    before = PEAK.search(Path('/proc/self/status').read_text())
    try:
        READERS[path.suffix](path)
    except ValueError:
        result = 'refused'
    except BaseException as error:
        traceback.print_exc()
        return f'raised {type(error).__name__}: {error}'.splitlines()[0]
    taken = 1024 * (int(PEAK.search(Path('/proc/self/status').read_text())[1]) - int(before[1]))
    return result if taken < limit else f'took {taken / 1e6:.0f} MB'


def fuzz(*, seed: int, folder: Path, inputs: float = float('inf'), seconds: float = float('inf')
         ) -> tuple[Counter, list[str]]:
    """Read damaged files until there were `inputs` of them, or the time is over.

    Returns:
        the number of inputs by ending and result, and the wrong ends; their inputs stay in the folder.
    """
    (folder / 'whole').mkdir(parents=True)
    for make in (checkpoints, images, texts, archives):
        make(folder / 'whole')
    contents = {file: file.read_bytes() for file in sorted((folder / 'whole').iterdir())}
    counts, wrong, until, number = Counter(), [], time.monotonic() + seconds, 0
    while number < inputs and time.monotonic() < until:
        draws = random.Random(f'{seed} {number}')
        file = draws.choice(list(contents))
        path, data = folder / f'input{file.suffix}', contents[file]
        in_zip = data.startswith(b'PK') and draws.random() < 0.75
        path.write_bytes(damaged_zip(data, draws) if in_zip else damaged(data, draws))
        if (result := read_one(path)) not in ('accepted', 'refused'):
            wrong.append(f'{number} {file.name}: {result}')
            path.rename(folder / f'{number}{file.suffix}')
        counts[file.suffix, result] += 1
        number += 1
    return counts, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, default=20)
    parser.add_argument('--seed', type=int, default=int(time.time()), help='(default: the time)')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='new folder for inputs')
    args = parser.parse_args()
    faulthandler.enable()
    torch.set_num_threads(1)
    addresses = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (addresses + ADDRESSES, resource.RLIM_INFINITY))
    counts, wrong = fuzz(seed=args.seed, folder=args.out, seconds=60 * args.minutes)
    print(f'seed {args.seed}: {sum(counts.values()):,} inputs, {len(wrong)} with a wrong end', *wrong, sep='\n')
    sys.exit(bool(wrong))


if __name__ == '__main__':
    main()
