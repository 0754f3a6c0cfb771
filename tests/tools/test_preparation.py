"""The label tables against the owners' lists of names, and masks against naive ways to read them."""
import io
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from datasets import COCOStuff164k, LoadImage, PascalContext60
from models.errors import UserError
from tests import data_archives
from tools.preparation import context, convert, unpack
from tools.preparation.sources import Archive, Folder

# Of COCO-Stuff's labels.txt, counted from 0.
COCO_STUFF = {0: 'person', 10: 'fire hydrant', 12: 'stop sign', 24: 'giraffe', 26: 'backpack', 27: 'umbrella',
              30: 'handbag', 43: 'bottle', 45: 'wine glass', 64: 'bed', 66: 'dining table', 69: 'toilet', 71: 'tv',
              81: 'refrigerator', 83: 'book', 89: 'toothbrush', 91: 'banner', 99: 'cardboard', 105: 'clouds',
              109: 'desk-stuff', 123: 'grass', 148: 'road', 168: 'tree', 171: 'wall-concrete', 181: 'wood'}
# Of PASCAL in Detail, where its own list of categories begins with VOC's 20 classes in VOC's order.
CONTEXT = dict(zip([2, 23, 25, 31, 34, 45, 59, 65, 72, 98, 397, 113, 207, 258, 284, 308, 347, 368, 416, 427],
                   ['aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'table',
                    'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor']))


def test_coco_stuff_ids_are_those_of_the_class_names():
    assert len(convert.COCO_STUFF_IDS) == len(COCOStuff164k.CLASSES) == 171
    assert sorted(data_archives.COCO_STUFF_UNUSED.values()) == list(convert.COCO_STUFF_UNUSED)
    named = {label: COCOStuff164k.CLASSES[convert.COCO_STUFF_IDS.index(label)] for label in COCO_STUFF}
    assert named == COCO_STUFF


def test_context_categories_are_those_of_the_class_names():
    names = PascalContext60.CLASSES
    assert len(context.CATEGORIES) == len(names) == 60 and names[0] == 'background'
    assert list(names[1:]) == sorted(names[1:]) and list(context.CATEGORIES) == sorted(
        context.CATEGORIES), 'both are in alphabetical order, as the file\'s categories are'
    assert {category: names[context.LABEL_OF[category]] for category in CONTEXT} == CONTEXT


@pytest.mark.parametrize('damage', [
    lambda content: content[:-30], lambda content: b'', lambda content: b'<html>',
    lambda content: content[:len(content) // 2] + b'xxxx' + content[len(content) // 2 + 4:]])
@pytest.mark.parametrize(('labels', 'content'), [
    ('coco_stuff', data_archives.encoded(data_archives.mask([0, 1], 0))),
    ('sbd', data_archives.mat(data_archives.mask([0, 1], 0))),
    ('ade_full', data_archives.ade_seg(data_archives.mask([2978, 1], 0, int))),
    ('context459', data_archives.matlab_file(LabelMap=data_archives.mask([1, 459], 0, np.uint16)))])
def test_damaged_masks(tmp_path, labels, content, damage):
    assert convert.CONVERTERS[labels](content).shape == data_archives.SIZE
    with pytest.raises(UserError, match='its name in it.zip is damaged'):
        unpack.write(unpack.Task('its name', tmp_path / 'it.png', labels, damage(content)), 'it.zip')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('orientation', [1, 6])
@pytest.mark.parametrize(('size', 'resized'), [((512, 900), (512, 900)), ((513, 513), (512, 512)),
                                               ((1001, 600), (854, 512)), ((600, 1001), (512, 854))])
def test_images_of_the_full_ade20k(tmp_path, orientation, size, resized):
    """They are loaded as the original is, upright, and then resized; a mask of the stored pixels gets the same size."""
    smooth = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image, exif, buffer = Image.fromarray(cv2.resize(smooth, size[::-1])), Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(buffer, 'JPEG', quality=100, exif=exif)
    result = convert.ade_full_image(buffer.getvalue())
    assert (result == buffer.getvalue()) == (size == resized)

    (tmp_path / 'it.jpg').write_bytes(result)
    (tmp_path / 'original.jpg').write_bytes(buffer.getvalue())
    loaded, original = [LoadImage()({'img_prefix': tmp_path, 'img_info': {'filename': name}})['img'].astype(int)
                        for name in ('it.jpg', 'original.jpg')]
    assert loaded.shape[:2] == (resized if orientation == 1 else resized[::-1])
    rows, columns = [np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
                     for new, old in zip(loaded.shape, original.shape[:2])]
    assert np.abs(loaded - original[rows][:, columns]).max() < 8
    assert convert.ade_full_labels(data_archives.ade_seg(np.zeros(size, int))).shape == resized


# ---- archives other than the published ones

def unpacked(path) -> list[str]:
    archive = Archive(path.name, (), {}, (Folder('a', 'out', ('.jpg', '.jpg')),))
    unpack.unpack(archive, path, path.parent, 1)
    return sorted(file.name for file in (path.parent / 'out').iterdir())


@pytest.mark.parametrize(('name', 'kind'), [
    ('a/it.jpg', tarfile.SYMTYPE), ('a/it.jpg', tarfile.LNKTYPE), ('a/it.jpg', tarfile.CHRTYPE),
    *[(name, tarfile.REGTYPE) for name in ('../it.jpg', 'a/../../it.jpg', '/tmp/it.jpg', '..\\it.jpg', 'a/._it.jpg')]])
def test_names_and_links_that_lead_out_of_the_folder(tmp_path, name, kind):
    (tmp_path / 'root').mkdir()
    with tarfile.open(tmp_path / 'root/it.tar', 'w') as archive:
        for inside, of_kind in ((name, kind), ('a/file.jpg', tarfile.REGTYPE)):
            info = tarfile.TarInfo(inside)
            info.type, info.linkname = of_kind, str(tmp_path / 'outside')
            archive.addfile(info)
    assert unpacked(tmp_path / 'root/it.tar') == ['file.jpg']
    assert len(list(tmp_path.rglob('*.jpg'))) == 1 and not Path('/tmp/it.jpg').exists()


def test_a_link_in_a_zip_archive_becomes_a_file(tmp_path):
    with zipfile.ZipFile(tmp_path / 'it.zip', 'w') as archive:
        info = zipfile.ZipInfo('a/it.jpg')
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, '/etc/passwd')
    assert unpacked(tmp_path / 'it.zip') == ['it.jpg']
    file = tmp_path / 'out/it.jpg'
    assert not file.is_symlink() and file.read_text() == '/etc/passwd'


@pytest.mark.parametrize(('claimed', 'words'), [(None, '200,000,000 bytes'), (100, 'Bad CRC-32')])
def test_a_zip_bomb(tmp_path, claimed, words):
    """Whether or not the archive states the true size, no more than that is unpacked."""
    with zipfile.ZipFile(tmp_path / 'it.zip', 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr('a/it.jpg', bytes(200_000_000))
    if claimed:
        data = bytearray((tmp_path / 'it.zip').read_bytes())
        place = data.rindex(b'PK\x01\x02') + 24
        data[place:place + 4] = claimed.to_bytes(4, 'little')
        (tmp_path / 'it.zip').write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf'a/it\.jpg in .*it\.zip is damaged, .*\(.*{words}'):
            unpacked(tmp_path / 'it.zip')
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert not list((tmp_path / 'out').iterdir())
