"""The label tables against the owners' lists of names, and masks against naive ways to read them."""
import gzip
import os
import stat
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest

from datasets import COCOStuff164k, PascalContext60
from models.errors import UserError
from tests import data_archives
from tools.preparation import convert_masks, detail_annotations, unpack
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
    assert len(convert_masks.COCO_STUFF_IDS) == len(COCOStuff164k.CLASSES) == 171
    assert sorted(data_archives.COCO_STUFF_UNUSED.values()) == list(convert_masks.COCO_STUFF_UNUSED)
    named = {label: COCOStuff164k.CLASSES[convert_masks.COCO_STUFF_IDS.index(label)] for label in COCO_STUFF}
    assert named == COCO_STUFF


def test_context_categories_are_those_of_the_class_names():
    names = PascalContext60.CLASSES
    assert len(detail_annotations.CATEGORIES) == len(names) == 60 and names[0] == 'background'
    assert list(names[1:]) == sorted(names[1:]) and list(detail_annotations.CATEGORIES) == sorted(
        detail_annotations.CATEGORIES), 'both are in alphabetical order, as the file\'s categories are'
    assert {category: names[detail_annotations.LABEL_OF[category]] for category in CONTEXT} == CONTEXT


def test_coco_stuff_labels_that_are_not_used_are_named():
    content = data_archives.encoded(np.array([[0, 11, 255], [181, 200, 11]], dtype=np.uint8))
    with pytest.raises(ValueError, match=r'\[11, 200\]'):
        convert_masks.coco_stuff_labels(content)


@pytest.mark.parametrize('damage', [
    lambda content: content[:-30], lambda content: b'', lambda content: b'<html>',
    lambda content: content[:len(content) // 2] + b'xxxx' + content[len(content) // 2 + 4:]])
@pytest.mark.parametrize(('labels', 'content'), [
    (convert_masks.coco_stuff_labels, data_archives.encoded(data_archives.mask([0, 1], 0).astype(np.uint8))),
    (convert_masks.sbd_labels, data_archives.mat(data_archives.mask([0, 1], 0)))])
def test_damaged_files(labels, content, damage):
    assert labels(content).shape == data_archives.SIZE
    with pytest.raises(ValueError):
        labels(damage(content))


def test_a_mask_in_colours_is_none():
    with pytest.raises(ValueError, match='RGB'):
        convert_masks.coco_stuff_labels(data_archives.encoded(np.zeros((2, 2, 3), dtype=np.uint8)))


@pytest.mark.parametrize('seed', range(40))
def test_run_length_codes(seed):
    random = np.random.default_rng(seed)
    inside = random.random(tuple(random.integers(1, 70, 2))) < random.choice([0, 0.02, 0.5, 0.98, 1])
    code = data_archives.run_length_code(inside)
    np.testing.assert_array_equal(detail_annotations.decode_runs(code, inside.shape), inside)


def test_a_known_run_length_code():
    """The example in COCO's own description of the format: runs of 2, 3, 1, 1."""
    np.testing.assert_array_equal(detail_annotations.decode_runs('231N', (7, 1)).ravel(), [0, 0, 1, 1, 1, 0, 1])


@pytest.mark.parametrize('code', ['', '2', '23', '231M', '23Q', '2 1N', '231é', '23\x001N', 'o' * 30 + '1', '2N1N'])
def test_damaged_run_length_codes(code):
    with pytest.raises(ValueError, match='run-length'):
        detail_annotations.decode_runs(code, (7, 1))


def test_later_segments_lie_on_top():
    square = np.zeros((3, 4), dtype=bool)
    square[:2, :2] = True
    left = np.zeros((3, 4), dtype=bool)
    left[:, 0] = True
    drawing = detail_annotations.Drawing('a', (3, 4), [(7, data_archives.run_length_code(square)),
                                                       (9, data_archives.run_length_code(left))])
    np.testing.assert_array_equal(detail_annotations.paint(drawing), [[9, 7, 0, 0], [9, 7, 0, 0], [9, 0, 0, 0]])


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_of_an_archive_only_files_are_unpacked(tmp_path, kind):
    """Links could lead out of the folder, and what is written through them."""
    with tarfile.open(tmp_path / 'it.tar', 'w') as archive:
        for name, of_kind in (('a/it.jpg', kind), ('a/it.jpg/inside.jpg', tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = of_kind, str(tmp_path / 'outside')
            archive.addfile(info)
    with unpack.opened(tmp_path / 'it.tar') as (members, _):
        assert [str(member.path) for member in members] == ['a/it.jpg/inside.jpg']


def test_a_file_without_a_name_in_a_zip_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / 'it.zip', 'w') as archive:
        archive.writestr('a', b'')
    data = bytearray((tmp_path / 'it.zip').read_bytes())
    entry = data.index(b'PK\x01\x02')
    data[entry + 28], data[entry + 30] = 0, 1  # the letter is no name, but further information
    (tmp_path / 'it.zip').write_bytes(data)
    with unpack.opened(tmp_path / 'it.zip') as (members, _), pytest.raises(ValueError, match='a file without a name'):
        next(members)


def test_a_mask_whose_header_points_to_nowhere(tmp_path):
    """Pillow goes there, and the system says no, in an error like that of a broken disk."""
    (tmp_path / 'it.tiff').write_bytes(b'II+\x00\x08\x00\x00\x00' + (2**63 - 1).to_bytes(8, 'little') + bytes(20))
    with pytest.raises(ValueError, match='it does not decode'):
        convert_masks.decode(tmp_path / 'it.tiff')


def test_a_link_in_a_zip_archive_is_a_file(tmp_path):
    with zipfile.ZipFile(tmp_path / 'it.zip', 'w') as archive:
        info = zipfile.ZipInfo('a/it.jpg')
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, '/etc/passwd')
    with unpack.opened(tmp_path / 'it.zip') as (members, _):
        unpack.write_file(tmp_path / 'it.jpg', next(members).read(), None, 'it')
    assert not (tmp_path / 'it.jpg').is_symlink() and (tmp_path / 'it.jpg').read_text() == '/etc/passwd'


# ---- archives that nobody published

def voc_archive(kind: str) -> Archive:
    return Archive(f'it.{kind}', (), {}, (Folder('a', 'out', ('.jpg', '.jpg')),))


def refused(tmp_path, kind: str) -> str:
    """The one line that `it.KIND` is refused with."""
    with pytest.raises(UserError, match=rf'it\.{kind}') as caught:
        unpack.unpack(voc_archive(kind), tmp_path / f'it.{kind}', tmp_path, 1)
    assert not list((tmp_path / 'out').glob('*')) and str(caught.value).isprintable()
    return str(caught.value)


def headers(size: int, *, name: str = 'a/it.jpg', kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def test_a_member_of_a_gigabyte(tmp_path):
    with zipfile.ZipFile(tmp_path / 'it.zip', 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive, \
            archive.open('a/it.jpg', 'w') as member:
        for _ in range(1024):
            member.write(bytes(2**20))
    assert '1,073,741,824 bytes' in refused(tmp_path, 'zip')


def test_a_member_that_is_larger_than_it_says(tmp_path):
    """Of the 200 MB no more are unpacked than the few bytes that the list of the archive names."""
    with zipfile.ZipFile(tmp_path / 'it.zip', 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr('a/it.jpg', bytes(200_000_000))
    data = bytearray((tmp_path / 'it.zip').read_bytes())
    place = data.rindex(b'PK\x01\x02') + 24
    data[place:place + 4] = (100).to_bytes(4, 'little')
    (tmp_path / 'it.zip').write_bytes(data)
    tracemalloc.start()
    try:
        assert 'a/it.jpg' in refused(tmp_path, 'zip')
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('kind', [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_ways_to_pack(tmp_path, kind):
    """None is published so, and zipfile can't unpack them piece by piece; damage in LZMA is an error of its own."""
    with zipfile.ZipFile(tmp_path / 'it.zip', 'w', kind) as archive:
        archive.writestr('a/it.jpg', bytes(1000))
    assert 'packed in another way' in refused(tmp_path, 'zip')


@pytest.mark.parametrize('open_file', [open, gzip.open])
@pytest.mark.parametrize(('header', 'words'), [
    (headers(64 * 2**30), '68,719,476,736 bytes'), (headers(64 * 2**30, kind=tarfile.GNUTYPE_LONGNAME), 'a header of'),
    (headers(64 * 2**30, kind=tarfile.XHDTYPE), 'a header of')], ids=['member', 'name', 'pax'])
def test_a_sparse_tar_of_64_gb(tmp_path, header, words, open_file):
    kind = 'tar' if open_file is open else 'tgz'
    with open_file(tmp_path / f'it.{kind}', 'wb') as file:
        file.write(header + bytes(4096))
    if kind == 'tar':
        os.truncate(tmp_path / 'it.tar', 64 * 2**30 + 4096)  # holes, which take no space
    assert words in refused(tmp_path, kind)


@pytest.mark.parametrize('kind', ['zip', 'tar', 'tgz'])
@pytest.mark.parametrize('name', ['a/\x1b[2Jit.jpg', 'a/i\nt.jpg', 'a/it\x9b.jpg', f'a/{"a" * 300}.jpg'])
def test_names_that_are_none_of_a_file(tmp_path, kind, name):
    made = data_archives.zipped({name: b'x'}) if kind == 'zip' else data_archives.tar(
        {name: b'x'}, 'w:gz' if kind == 'tgz' else 'w')
    (tmp_path / f'it.{kind}').write_bytes(made)
    assert 'a name that is none of a file' in refused(tmp_path, kind)


def test_what_else_these_libraries_raise(tmp_path, monkeypatch):
    (tmp_path / 'it.tar').write_bytes(data_archives.tar({'a/it.jpg': b'x'}))
    for error in (MemoryError('no more'), ValueError('invalid literal'), OverflowError('too large')):
        monkeypatch.setattr(tarfile.TarFile, 'next', lambda self, error=error: (_ for _ in ()).throw(error))
        assert 'damaged or cut off' in refused(tmp_path, 'tar')


def test_a_matlab_file_that_is_too_large():
    with pytest.raises(UserError, match='1,048,577 bytes'):
        convert_masks.sbd_labels(bytes(2**20 + 1))
