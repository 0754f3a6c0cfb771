"""Small invented archives laid out as the benchmarks' real ones, and the files that must result."""
import io
import json
import tarfile
import zipfile
from collections.abc import Sequence

import numpy as np
from PIL import Image
from pycocotools.mask import encode
from scipy.io import savemat

from tools.preparation.context import CATEGORIES

SIZE = (14, 16)  # of all images, height and width; room for every label of every benchmark
COCO_STUFF_UNUSED = {'street sign': 11, 'hat': 25, 'shoe': 28, 'eye glasses': 29, 'plate': 44, 'mirror': 65,
                     'window': 67, 'desk': 68, 'door': 70, 'blender': 82, 'hair brush': 90}


def jpeg(seed: int, scale: int = 1) -> bytes:
    """An image of noise."""
    return encoded(enlarged(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8), scale), 'JPEG')


def enlarged(array: np.ndarray, scale: int) -> np.ndarray:
    return array.repeat(scale, 0).repeat(scale, 1)


def encoded(array: np.ndarray, format: str = 'PNG') -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format)
    return buffer.getvalue()


def mask(labels: Sequence[int], seed: int, dtype: type = np.uint8) -> np.ndarray:
    """Label ids (H, W), each of `labels` at least once if there is room, in another order for each seed."""
    ids = np.resize(np.array(labels, dtype), SIZE).ravel()
    return np.random.default_rng(seed).permutation(ids).reshape(SIZE)


def mat(labels: np.ndarray) -> bytes:
    """A mask as SBD keeps it."""
    fields = np.zeros(1, dtype=[('Boundaries', object), ('Segmentation', object), ('CategoriesPresent', object)])
    fields[0] = (np.zeros((20, 1)), labels, np.unique(labels))
    return matlab_file(GTcls=fields)


def matlab_file(**variables: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=True)
    return buffer.getvalue()


class Made:
    """A benchmark's archives and the files that must result.

    Attributes:
        files: name in the archive -> content, by the archive's name.
        counts: of images, by split.
        expected: path under the root -> content, label ids (H, W), a list of names, or width and height of an image.
    """

    def __init__(self, **counts: int):
        self.files, self.counts, self.expected = {}, counts, {}

    def add(self, archive: str, inside: str, content: bytes, path: str = '', expected=None) -> None:
        """Adds a file to an archive, and to `path` under the root as it is, or as `expected`."""
        self.files.setdefault(archive, {})[inside] = content
        if path:
            self.expected[path] = content if expected is None else expected

    def archive(self, name: str) -> bytes:
        files, buffer = self.files[name], io.BytesIO()
        if name.endswith('.json'):
            return files['']
        if name.endswith('.zip'):
            with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
                for inside, content in files.items():
                    archive.writestr(inside, content)
        else:
            with tarfile.open(fileobj=buffer, mode='w:gz' if name.endswith('gz') else 'w') as archive:
                for inside, content in files.items():
                    info = tarfile.TarInfo(inside)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        return buffer.getvalue()


def voc12() -> Made:
    made, voc, sbd = Made(train=2, aug=10, val=3), 'VOCtrainval_11-May-2012.tar', 'benchmark.tgz'
    folder, inside = 'VOCdevkit/VOC2012', 'benchmark_RELEASE/dataset'
    train, val, more = [['2007_000001', '2007_000002'], ['2007_000011', '2007_000012', '2007_000013'],
                        [f'2008_{number:06d}' for number in range(21, 31)]]
    made.add(voc, f'{folder}/Annotations/2007_000001.xml', b'<xml/>')
    for seed, name in enumerate([*train, *val, *more, '2009_000099']):
        path = f'{folder}/JPEGImages/{name}.jpg'
        made.add(voc, path, jpeg(seed), path)
        if name in (*train, *val):
            labels, path = mask([*range(21), 255], seed), f'{folder}/SegmentationClass/{name}.png'
            made.add(voc, path, encoded(labels), path, labels)
        if name not in (val[0], '2009_000099'):
            labels = mask(range(21), seed + 100)
            made.add(sbd, f'{inside}/cls/{name}.mat', mat(labels), f'{folder}/SegmentationClassAug/{name}.png', labels)
    for name, names in (('train', train), ('val', val), ('trainval', [*train, *val])):
        path = f'{folder}/ImageSets/Segmentation/{name}.txt'
        made.add(voc, path, '\n'.join(names).encode(), path, names)
    # SBD divides the images of both, and more, in its own way.
    for name, names in {'train': [val[1], *more[5:], train[0]], 'val': [train[1], val[2], *more[:5]]}.items():
        made.add(sbd, f'{inside}/{name}.txt', '\n'.join(names).encode(), f'VOCdevkit/VOCaug/dataset/{name}.txt', names)
    made.add(sbd, f'{inside}/img/{train[0]}.jpg', b'not needed')
    made.expected[f'{folder}/ImageSets/Segmentation/aug.txt'] = more
    return made


def coco() -> Made:
    made, root = Made(train=3, val=2), 'coco_stuff164k'
    used = [label for label in range(182) if label not in COCO_STUFF_UNUSED.values()]
    for part in ('train2017', 'val2017'):
        made.add(f'{part}.zip', f'{part}/', b'')
        for seed in range(made.counts[part.removesuffix('2017')]):
            name, labels = f'{seed + 7 * len(part):012d}', mask([*used, 255], seed)
            classes = [[255 if label == 255 else label - sum(unused < label for unused in COCO_STUFF_UNUSED.values())
                        for label in row] for row in labels.tolist()]
            made.add(f'{part}.zip', f'{part}/{name}.jpg', jpeg(seed), f'{root}/images/{part}/{name}.jpg')
            made.add('stuffthingmaps_trainval2017.zip', f'{part}/{name}.png', encoded(labels),
                     f'{root}/annotations/{part}/{name}_labelTrainIds.png', np.array(classes))
    return made


def context() -> Made:
    made, folder = Made(train=12, val=2), 'VOCdevkit/VOC2010'
    phases = {'2008_000003': 'val', '2008_000001': 'train', '2008_000002': 'train', '2008_000004': 'val',
              '2008_000009': 'test', **{f'2008_{number:06d}': 'train' for number in range(10, 20)}}
    entries, segments = [], []
    for seed, (name, phase) in enumerate(phases.items()):
        path, number, labels = f'{folder}/JPEGImages/{name}.jpg', int(name.replace('_', '')), mask(range(60), seed)
        made.add('VOCtrainval_03-May-2010.tar', path, jpeg(seed), path)
        entries.append(dict(image_id=number, file_name=f'{name}.jpg', height=SIZE[0], width=SIZE[1], phase=phase,
                           date_captured='yesterday'))
        if phase != 'test':
            made.expected[f'{folder}/SegmentationClassContext/{name}.png'] = labels
        for label in [17, *range(1, 60)]:  # the first lies under the others and is painted over by the last of its own
            inside = labels == label if segments and label != 17 else (labels == label) | (labels == 59)
            code = encode(np.asfortranarray(inside.astype(np.uint8)))['counts']
            segments.append(dict(id=len(segments), image_id=number, category_id=CATEGORIES[label], area=1, iscrowd=0,
                                 segmentation=dict(size=list(SIZE), counts=code.decode()), parts=[]))
    for phase in ('train', 'val'):
        made.expected[f'{folder}/ImageSets/SegmentationContext/{phase}.txt'] = sorted(
            name for name in phases if phases[name] == phase)
    annotations = dict(info=dict(year=2010), images=entries, annos_segmentation=segments, annos_occlusion=[dict(ne=1)],
                       categories=[dict(category_id=2, name='aeroplane')])
    made.add('trainval_merged.json', '', json.dumps(annotations).encode())
    return made


def ade20k() -> Made:
    made, archive, root = Made(train=12, val=2), 'ADEChallengeData2016.zip', 'ADEChallengeData2016'
    made.add(archive, f'{root}/objectInfo150.txt', b'not needed')
    for part, short in (('training', 'train'), ('validation', 'val')):
        for seed in range(made.counts[short]):
            image, labels = f'{root}/images/{part}/ADE_{short}_{seed + 1:08d}.jpg', mask(range(151), seed)
            path = image.replace('images', 'annotations').replace('.jpg', '.png')
            made.add(archive, image, jpeg(seed), f'ade/{image}')
            made.add(archive, path, encoded(labels), f'ade/{path}', labels)
    return made


ADE_CLASSES = {2978: 0, 312: 1, 2420: 2, 2855: 3, 3148: 846, 0: 65535, 1: 65535, 6655: 65535}  # by the object's id


def ade_seg(ids: np.ndarray) -> bytes:
    """A `_seg.png` of object ids; the last digit of red and all of blue mean something else."""
    return encoded(np.stack([(ids // 256 * 10 + ids % 10).clip(max=255), ids % 256, ids % 199], -1).astype(np.uint8))


def ade20k_full() -> Made:
    """Two images of the usual size, and one that is made smaller."""
    made, archive, top = Made(val=3), 'ADE20K_2021_17_01.zip', 'ADE20K_2021_17_01'
    made.add(archive, f'{top}/index_ade20k.pkl', b'never read')
    made.add(archive, f'{top}/images/ADE/training/urban/street/ADE_train_00000001.jpg', b'not needed')
    for seed, (scene, scale) in enumerate({'urban/park': 1, 'urban/street': 37, 'urban/alley': 1}.items()):
        name = f'ADE_val_{seed + 1:08d}'
        inside, ids = f'{top}/images/ADE/validation/{scene}/{name}', mask([*ADE_CLASSES], seed, int)
        labels = enlarged(np.vectorize(ADE_CLASSES.get)(ids).astype(np.uint16), scale)
        if scale > 1:  # from 592x518
            labels = labels[np.arange(512) * 518 // 512][:, np.arange(585) * 592 // 585]
        made.add(archive, f'{inside}.jpg', jpeg(seed, scale), f'ade/ADE20K847/images/validation/{name}.jpg',
                 (585, 512) if scale > 1 else None)
        made.add(archive, f'{inside}_seg.png', ade_seg(enlarged(ids, scale)),
                 f'ade/ADE20K847/annotations/validation/{name}.png', labels)
        for other in ('.json', '_parts_1.png', f'/instance_000_{name}.png'):
            made.add(archive, f'{inside}{other}', b'not needed')
    return made


def context459() -> Made:
    made, folder = context(), 'VOCdevkit/VOC2010'
    made.expected = {path: content for path, content in made.expected.items() if not path.endswith('.png')}
    for path in [*made.expected]:
        if path.endswith('.jpg'):
            name, labels = path[-15:-4], mask(range(1, 460), int(path[-5]), np.uint16)
            made.add('trainval.tar.gz', f'trainval/{name}.mat', matlab_file(LabelMap=labels),
                     f'{folder}/SegmentationClassContext459/{name}.png', labels)
    return made


def voc20b() -> Made:
    made = voc12()
    del made.files['benchmark.tgz']
    made.expected = {path: content for path, content in made.expected.items()
                     if 'aug' not in path and 'Aug' not in path}
    return made
