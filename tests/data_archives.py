"""Small invented archives laid out as the benchmarks' real ones, and the files that must result."""
import io
import json
import tarfile
import zipfile

import numpy as np
from PIL import Image
from pycocotools.mask import encode
from scipy.io import savemat

from tools.preparation.context import CATEGORIES

SIZE = (14, 16)  # of all images, height and width; room for every label of every benchmark
COCO_STUFF_UNUSED = {'street sign': 11, 'hat': 25, 'shoe': 28, 'eye glasses': 29, 'plate': 44, 'mirror': 65,
                     'window': 67, 'desk': 68, 'door': 70, 'blender': 82, 'hair brush': 90}


def jpeg(seed: int) -> bytes:
    """An image of noise."""
    return encoded(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8), 'JPEG')


def encoded(array: np.ndarray, format: str = 'PNG') -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format)
    return buffer.getvalue()


def mask(labels: list[int], seed: int) -> np.ndarray:
    """Label ids (H, W), each of `labels` at least once, in another order for each seed."""
    return np.random.default_rng(seed).permutation(np.resize(np.array(labels), SIZE).ravel()).reshape(SIZE)


def mat(labels: np.ndarray) -> bytes:
    """A mask as SBD keeps it."""
    fields = np.zeros(1, dtype=[('Boundaries', object), ('Segmentation', object), ('CategoriesPresent', object)])
    fields[0] = (np.zeros((20, 1)), labels.astype(np.uint8), np.unique(labels))
    buffer = io.BytesIO()
    savemat(buffer, {'GTcls': fields}, do_compression=True)
    return buffer.getvalue()


class Made:
    """A benchmark's archives and the files that must result.

    Attributes:
        files: name in the archive -> content, by the archive's name.
        counts: of images, by split.
        images, masks: path under the root -> content, and label ids (H, W).
        lists: path under the root -> names.
    """

    def __init__(self):
        self.files, self.counts, self.images, self.masks, self.lists = {}, {}, {}, {}, {}

    def archive(self, name: str) -> bytes:
        files, buffer = self.files[name], io.BytesIO()
        if name.endswith('.json'):
            return files['']
        if name.endswith('.zip'):
            with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
                for inside, content in files.items():
                    archive.writestr(inside, content)
        else:
            with tarfile.open(fileobj=buffer, mode='w:gz' if name.endswith('.tgz') else 'w') as archive:
                for inside, content in files.items():
                    info = tarfile.TarInfo(inside)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        return buffer.getvalue()


def voc12() -> Made:
    made, folder, sbd = Made(), 'VOCdevkit/VOC2012', 'benchmark_RELEASE/dataset'
    train, val, more = [['2007_000001', '2007_000002'], ['2007_000011', '2007_000012', '2007_000013'],
                        [f'2008_{number:06d}' for number in range(21, 31)]]
    tar_files, sbd_files = {f'{folder}/Annotations/2007_000001.xml': b'<xml/>'}, {}
    for seed, name in enumerate([*train, *val, *more, '2009_000099']):
        made.images[f'{folder}/JPEGImages/{name}.jpg'] = tar_files[f'{folder}/JPEGImages/{name}.jpg'] = jpeg(seed)
        labels = mask([*range(21), 255], seed)
        if name in (*train, *val):
            path = f'{folder}/SegmentationClass/{name}.png'
            tar_files[path], made.masks[path] = encoded(labels.astype(np.uint8)), labels
        if name not in (val[0], '2009_000099'):
            labels = mask(list(range(21)), seed + 100)
            sbd_files[f'{sbd}/cls/{name}.mat'] = mat(labels)
            made.masks[f'{folder}/SegmentationClassAug/{name}.png'] = labels
    for name, names in (('train', train), ('val', val), ('trainval', [*train, *val])):
        tar_files[f'{folder}/ImageSets/Segmentation/{name}.txt'] = '\n'.join(names).encode()
        made.lists[f'{folder}/ImageSets/Segmentation/{name}.txt'] = names
    # SBD divides the images of both, and more, in its own way.
    parts = {'train': [val[1], *more[5:], train[0]], 'val': [train[1], val[2], *more[:5]]}
    for name, names in parts.items():
        sbd_files[f'{sbd}/{name}.txt'] = '\n'.join(names).encode()
        made.lists[f'VOCdevkit/VOCaug/dataset/{name}.txt'] = names
    sbd_files[f'{sbd}/img/{train[0]}.jpg'] = b'not needed'
    made.lists[f'{folder}/ImageSets/Segmentation/aug.txt'] = more
    made.files = {'VOCtrainval_11-May-2012.tar': tar_files, 'benchmark.tgz': sbd_files}
    made.counts = {'train': len(train), 'aug': len(more), 'val': len(val)}
    return made


def coco() -> Made:
    made, root = Made(), 'coco_stuff164k'
    used = [label for label in range(182) if label not in COCO_STUFF_UNUSED.values()]
    maps = {}
    for part, count in (('train2017', 3), ('val2017', 2)):
        files = {f'{part}/': b''}
        for seed in range(count):
            name = f'{seed + 7 * len(part):012d}'
            made.images[f'{root}/images/{part}/{name}.jpg'] = files[f'{part}/{name}.jpg'] = jpeg(seed)
            labels = mask([*used, 255], seed)
            maps[f'{part}/{name}.png'] = encoded(labels.astype(np.uint8))
            made.masks[f'{root}/annotations/{part}/{name}_labelTrainIds.png'] = np.array(
                [[255 if label == 255 else label - sum(unused < label for unused in COCO_STUFF_UNUSED.values())
                  for label in row] for row in labels.tolist()])
        made.files[f'{part}.zip'] = files
        made.counts[part.removesuffix('2017')] = count
    made.files['stuffthingmaps_trainval2017.zip'] = maps
    return made


def context() -> Made:
    made, folder = Made(), 'VOCdevkit/VOC2010'
    phases = {'2008_000003': 'val', '2008_000001': 'train', '2008_000002': 'train', '2008_000004': 'val',
              '2008_000009': 'test', **{f'2008_{number:06d}': 'train' for number in range(10, 20)}}
    images, entries, segments = {}, [], []
    for seed, (name, phase) in enumerate(phases.items()):
        made.images[f'{folder}/JPEGImages/{name}.jpg'] = images[f'{folder}/JPEGImages/{name}.jpg'] = jpeg(seed)
        number = int(name.replace('_', ''))
        entries.append(dict(image_id=number, file_name=f'{name}.jpg', height=SIZE[0], width=SIZE[1], phase=phase,
                           date_captured='yesterday'))
        labels = mask(list(range(60)), seed)
        made.masks[f'{folder}/SegmentationClassContext/{name}.png'] = labels
        for label in [17, *range(1, 60)]:  # the first lies under the others and is painted over by the last of its own
            inside = labels == label if segments and label != 17 else (labels == label) | (labels == 59)
            code = encode(np.asfortranarray(inside.astype(np.uint8)))['counts']
            segments.append(dict(id=len(segments), image_id=number, category_id=CATEGORIES[label], area=1, iscrowd=0,
                                 segmentation=dict(size=list(SIZE), counts=code.decode()), parts=[]))
    made.masks.pop(f'{folder}/SegmentationClassContext/2008_000009.png')
    made.lists = {f'{folder}/ImageSets/SegmentationContext/{phase}.txt':
                  sorted(name for name in phases if phases[name] == phase) for phase in ('train', 'val')}
    annotations = dict(info=dict(year=2010), images=entries, annos_segmentation=segments, annos_occlusion=[dict(ne=1)],
                       categories=[dict(category_id=2, name='aeroplane')])
    made.files = {'VOCtrainval_03-May-2010.tar': images,
                  'trainval_merged.json': {'': json.dumps(annotations).encode()}}
    made.counts = {'train': 12, 'val': 2}
    return made


def ade20k() -> Made:
    made, root = Made(), 'ADEChallengeData2016'
    files = {f'{root}/objectInfo150.txt': b'not needed'}
    for part, short, count in (('training', 'train', 12), ('validation', 'val', 2)):
        for seed in range(count):
            name = f'ADE_{short}_{seed + 1:08d}'
            files[f'{root}/images/{part}/{name}.jpg'] = jpeg(seed)
            labels = mask(list(range(151)), seed)
            files[f'{root}/annotations/{part}/{name}.png'] = encoded(labels.astype(np.uint8))
            made.images[f'ade/{root}/images/{part}/{name}.jpg'] = files[f'{root}/images/{part}/{name}.jpg']
            made.masks[f'ade/{root}/annotations/{part}/{name}.png'] = labels
        made.counts[short] = count
    made.files = {'ADEChallengeData2016.zip': files}
    return made
