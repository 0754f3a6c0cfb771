"""Masks in MATLAB files: the variable LabelMap, as PASCAL Context's owners publish it."""
import numpy as np
import pytest
from scipy.io import savemat

from datasets import PascalContext459
from datasets.loading import load_mask
from datasets.masks import MaskColours, MaskIds
from models.errors import UserError
from tests.datasets.custom_data import EXAMPLE, dataset_of, id_masks, labels_in

IDS = np.array([[0, 1, 256], [459, 300, 2]], np.uint16)
LABELS = [[65535, 0, 255], [458, 299, 1]]


@pytest.mark.parametrize('compressed', [True, False])
@pytest.mark.parametrize('kind', [np.uint16, np.int32, np.float64])
def test_ids_beyond_8_bits(tmp_path, compressed, kind):
    file = tmp_path / 'it.mat'
    savemat(file, {'LabelMap': IDS.astype(kind), 'other': 'text'}, do_compression=compressed)
    assert load_mask(str(file), PascalContext459.usual_masks()).tolist() == LABELS


def test_a_dataset_of_matlab_files(tmp_path):
    root = id_masks(tmp_path / 'mat')
    for path in (root / 'val/masks').iterdir():
        savemat(path.with_suffix('.mat'), {'LabelMap': labels_in(EXAMPLE / 'val/masks' / path.name)})
    dataset = dataset_of(root, seg_map_suffix='.mat')
    assert np.array_equal(dataset.true_labels(0), labels_in(EXAMPLE / 'val/masks/00.png'))


@pytest.mark.parametrize(('content', 'words'), [
    ({'Labels': IDS}, 'a variable LabelMap of ids, height x width, is needed; the file holds Labels 2x3 uint16'),
    ({}, 'the file holds none'),
    ({'LabelMap': IDS[None]}, 'the file holds LabelMap 1x2x3 uint16'),
    ({'LabelMap': {'cls': IDS}}, 'the file holds LabelMap 1x1 struct'),
    ({'LabelMap': 'text'}, r'the file holds LabelMap \S+ char'),
    ({'LabelMap': IDS * 1.5}, r'values from 0.0 to 688.5, type float64: save it with whole ids'),
    ({'LabelMap': IDS + 1j}, r'type complex128: save it with whole ids'),
    ({'LabelMap': IDS + np.uint16(1)}, r'label ids \[460\] are out of range: the 459 classes have the ids 1 to 459'),
    (b'', 'broken mask, it is no MATLAB file or damaged'),
    (b'\x89PNG\r\n\x1a\n' * 30, 'broken mask, it is no MATLAB file or damaged'),
    (b'MATLAB 7.3 MAT-file'.ljust(124) + b'\0\2IM' + b'\x89HDF' * 9, r'is of version 7\.3\. Save it with -v7'),
    (None, 'this mask is missing'),
])
def test_files_that_are_refused(tmp_path, content, words):
    file = tmp_path / 'it.mat'
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        savemat(file, content)
    with pytest.raises(UserError, match=rf'it\.mat: .*{words}'):
        load_mask(str(file), PascalContext459.usual_masks())


@pytest.mark.parametrize('kind', [0, 8, 10, 19, 20, 999_999])
def test_an_unknown_type_of_numbers(tmp_path, kind):
    """SciPy looks it up without a check, and the process ends."""
    file = tmp_path / 'it.mat'
    savemat(file, {'LabelMap': IDS})
    data = bytearray(file.read_bytes())
    place = data.index(b'LabelMap') + 8
    assert data[place:place + 8] == np.array([4, 12], '<u4').tobytes()  # 12 bytes of uint16
    data[place:place + 4] = np.array(kind, '<u4').tobytes()
    file.write_bytes(data)
    with pytest.raises(UserError, match=r'it\.mat: broken mask'):
        load_mask(str(file), PascalContext459.usual_masks())


def test_a_size_that_is_a_lie(tmp_path):
    """Neither is memory for it allocated."""
    file = tmp_path / 'it.mat'
    savemat(file, {'LabelMap': IDS})
    data = bytearray(file.read_bytes())
    place = data.index(np.array([2, 3], '<i4').tobytes())
    data[place:place + 8] = np.array([2**20, 2**20], '<i4').tobytes()
    file.write_bytes(data)
    with pytest.raises(UserError, match='the file holds LabelMap 1048576x1048576 uint16'):
        load_mask(str(file), MaskIds('ab'))


def test_colours_are_not_read_from_matlab_files(tmp_path):
    savemat(tmp_path / 'it.mat', {'LabelMap': IDS})
    with pytest.raises(UserError, match=r'it\.mat: MATLAB files hold ids\. Leave out colour_masks=True'):
        load_mask(str(tmp_path / 'it.mat'), MaskColours([(0, 0, 0)]))
