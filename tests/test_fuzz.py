"""Small weights and images, damaged at random: their readers accept them or raise a ValueError, within some memory.

The same 400 inputs each time; `FUZZ_MINUTES=20` tries others, as many as there is time for.
"""
import io
import os
import random
import time
import traceback
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from scipy.io import savemat

from datasets.loading import LoadImage, MaskColours, MaskIds, load_mask
from models.inference import read_image
from models.weights import files, metadata
from tests.clip_files import clip_weights, save_torchscript
from tests.conftest import REPOSITORY
from tools.preparation.unpack import Task, write
from tools.results.inspection import inspect, lines

MEMORY = 400_000_000  # bytes that reading one may take, of files of less than 1 MB
OF_IMAGES = 3_000_000_000  # 100 million pixels, in the numbers of bytes that libraries make of them
MINUTES = float(os.environ.get('FUZZ_MINUTES', 0))
SEED = time.time() if MINUTES else 0
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
    for compressed in (True, False):
        savemat(folder / f'mask{compressed}.mat', {'LabelMap': noise[..., 0] % 5}, do_compression=compressed)


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
                 lambda: write(Task('it', path.with_name('labels.png'), 'coco_stuff', path.read_bytes()), path)):
        with suppress(ValueError):
            step()
    read_image(path, max_pixels=20_000_000)


READERS = {**dict.fromkeys(('.pth', '.pt', '.safetensors'), read_checkpoint), '.npy': files.read_embeddings,
           '.mat': lambda path: load_mask(str(path), MaskIds('abcde')), **dict.fromkeys(IMAGES, read_data)}


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


def peak(*, anew: bool = False) -> int:
    """Return the largest memory in bytes of this process, since the last call with `anew`."""
    if anew:
        Path('/proc/self/clear_refs').write_text('5')
    return 1024 * int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])


def read_one(path: Path) -> str:
    """Read an input: 'accepted', 'refused', or a description of a wrong end."""
    result, limit = 'accepted', OF_IMAGES if path.suffix in IMAGES else MEMORY
    before = peak(anew=True)
    try:
        READERS[path.suffix](path)
    except ValueError:
        result = 'refused'
    except BaseException as error:
        traceback.print_exc()
        return f'raised {type(error).__name__}: {error}'.splitlines()[0]
    taken = peak() - before
    return result if taken < limit else f'took {taken / 1e6:.0f} MB'


def test_damaged_files_end_in_errors_of_ours(tmp_path):
    """Inputs with a wrong end stay in the folder; after a crash of the process the last one does."""
    (tmp_path / 'whole').mkdir()
    checkpoints(tmp_path / 'whole')
    images(tmp_path / 'whole')
    contents = {file: file.read_bytes() for file in sorted((tmp_path / 'whole').iterdir())}
    counts, until, number = Counter(), time.monotonic() + 60 * MINUTES, 0
    while number < 400 or time.monotonic() < until:
        draws = random.Random(f'{SEED} {number}')
        file = draws.choice(list(contents))
        path, data = tmp_path / f'input{file.suffix}', contents[file]
        in_zip = data.startswith(b'PK') and draws.random() < 0.75
        path.write_bytes(damaged_zip(data, draws) if in_zip else damaged(data, draws))
        counts[file.suffix, result := read_one(path)] += 1
        if result not in ('accepted', 'refused'):
            path.rename(tmp_path / f'{number}{file.suffix}')
        number += 1
    wrong = [f'{kind}: {result}' for kind, result in counts if result not in ('accepted', 'refused')]
    assert not wrong, f'seed {SEED}: {wrong}'
    assert counts['.pth', 'refused'] and counts['.png', 'accepted']
