"""Masks of ids and of colours, for any number of classes and any void id, become the right class indices."""
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from datasets.loading import load_mask
from datasets.masks import MaskIds
from models.errors import UserError
from tests.datasets.custom_data import EXAMPLE, LOADING, NAMES, PALETTE, colour_masks, dataset_of, id_masks, labels_in

MANY = [f'thing number {index}' for index in range(256)] + NAMES
FIRST = labels_in(EXAMPLE / 'val/masks/00.png')  # class indices, 255 for no class


def sixteen_bits(labels):
    return np.where(labels == 255, 65535, labels + np.uint16(256)).astype(np.uint16)


# ---- colours

def test_colours_become_classes():
    dataset = dataset_of(EXAMPLE, colours=True)
    for index in range(len(dataset)):
        assert np.array_equal(dataset.true_labels(index), labels_in(EXAMPLE / f'val/masks/{index:02d}.png'))


def test_palette_masks_as_colours_and_as_ids(tmp_path):
    """As VOC's masks: ids with a palette."""
    root = colour_masks(tmp_path / 'colours')
    for path in (root / 'val/masks').glob('*.png'):
        mask = labels_in(path)
        indexed = Image.fromarray(np.where(mask == 255, 0, mask + 1).astype(np.uint8), mode='P')
        indexed.putpalette([0, 0, 0, *np.ravel(PALETTE)])
        indexed.save(path)
    assert np.array_equal(dataset_of(root, colours=True).true_labels(0), FIRST)
    assert np.array_equal(dataset_of(root, reduce_zero_label=True).true_labels(0), FIRST)


def test_a_colour_that_is_not_in_the_palette():
    dataset = dataset_of(EXAMPLE, colours=True, ignored_colours=[])
    with pytest.raises(UserError, match=r'masks/00\.png: not in the palette: \[0, 0, 0\]\. Add them to'):
        dataset.true_labels(0)


@pytest.mark.parametrize('colours', [True, False])
def test_masks_that_were_saved_as_jpeg(tmp_path, colours):
    root = colour_masks(tmp_path / 'colours')
    with Image.open(root / 'val/masks/00.png') as image:
        image.convert('RGB' if colours else 'L').save(root / 'lossy.jpg')
    shutil.move(root / 'lossy.jpg', root / 'val/masks/00.png')
    with pytest.raises(UserError, match=r'00\.png: this mask is a JPEG, .* as PNG'):
        dataset_of(root, colours=colours).true_labels(0)


# ---- more than 255 classes

@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_more_than_255_classes(tmp_path, suffix):
    root = id_masks(tmp_path / 'many', sixteen_bits, suffix)
    dataset = dataset_of(root, classes=MANY, seg_map_suffix=suffix)
    truth = dataset.true_labels(0)
    assert truth.dtype == np.uint16 and dataset.ignore_index == 65535
    assert np.array_equal(truth, sixteen_bits(FIRST))
    perfect = [np.where(dataset.true_labels(index) == 65535, 256, dataset.true_labels(index)) for index in range(6)]
    scores = dataset.evaluate(perfect)
    assert scores['mIoU'] == scores['IoU.red'] == 1 and np.isnan(scores['IoU.thing number 0'])
    file, = dataset.format_results(perfect[:1], str(tmp_path / 'out'), indices=[0])
    with Image.open(file) as image:
        assert np.array_equal(np.asarray(image), perfect[0])


@pytest.mark.parametrize(('classes', 'reduce', 'kind', 'ignore'), [
    (255, False, np.uint8, 255), (256, False, np.uint16, 65535), (254, True, np.uint8, 255),
    (255, True, np.uint8, 255)])
def test_the_number_type_at_its_limits(classes, reduce, kind, ignore):
    masks = MaskIds([f'class {index}' for index in range(classes)], reduce_zero_label=reduce)
    ids = np.array([[*masks.ids, masks.void]], np.uint16)
    labels = masks.labels(ids, 'mask.png')
    assert labels.dtype == kind and labels.tolist() == [[*range(classes), ignore]]
    assert masks.void == (65535 if masks.ids.stop > 255 else 255)


def test_too_many_classes():
    with pytest.raises(UserError, match='65,536 classes: 65,535 at most'):
        MaskIds([str(index) for index in range(65_536)])


@pytest.mark.parametrize(('names', 'mask', 'words'), [
    (MANY, np.full((1, 2), 255, np.uint8), 'mask.png: 255 in an 8-bit mask .* 261 classes or void.*65535'),
    (NAMES, np.zeros((2, 2), np.float32), 'mask.png: .*type float32: save it with whole ids'),
    (NAMES, np.array([[0, 70_000]], np.int32), 'mask.png: .*values from 0 to 70000, .*whole ids'),
])
def test_masks_that_are_refused(names, mask, words):
    with pytest.raises(UserError, match=words):
        MaskIds(names).labels(mask, 'mask.png')


# ---- the id of no class

def test_another_id_of_no_class(tmp_path):
    root = id_masks(tmp_path / 'void', lambda labels: np.where(labels == 255, np.uint8(254), labels))
    dataset = dataset_of(root, ignore_index=254)
    assert np.array_equal(dataset.true_labels(0), FIRST) and dataset.ignore_index == 255
    pipeline = [*LOADING, dict(type='RandomCrop', crop_size=(64, 64), ignore_index=254),
                dict(type='Pad', size=(80, 80), seg_pad_val=254)]
    labels = dataset_of(root, 'train', ignore_index=254, pipeline=pipeline)[0]['gt_semantic_seg']
    assert set(np.unique(labels)) <= {*range(5), 255}
    with pytest.raises(UserError, match=r'label ids \[254\] are out of range: .* 255 is void \(ignore_index\)'):
        dataset_of(root).true_labels(0)


@pytest.mark.parametrize(('changes', 'words'), [
    ({'ignore_index': 0}, "ignore_index=0 is the id of class 'red'.*reduce_zero_label=True"),
    ({'ignore_index': 0, 'reduce_zero_label': True}, 'ignore_index=0 is ignored already'),
    ({'ignore_index': -1}, 'ignore_index=-1: the id of pixels without a class must be .* from 0 to 65535'),
    ({'reduce_zero_label': 'False'}, "reduce_zero_label='False': True or False is needed"),
    ({'palette': [[1., .2, .3]] * 5}, 'is not a colour'),
    ({'colours': True, 'palette': PALETTE[:4]}, 'palette has 4 colours for 5 classes'),
    ({'colours': True, 'palette': None}, 'colour_masks=True needs palette='),
    ({'colours': True, 'reduce_zero_label': True},
     'neither reduce_zero_label nor ignore_index nor background_id: list colours of no class in ignored_colours'),
    ({'colours': True, 'palette': PALETTE[:4] + [[1, 2, 300]]}, r'\[1, 2, 300\] is not a colour'),
    ({'colours': True, 'palette': PALETTE[:4] + ['#ff0000']}, r'#ff0000 is not a colour: \[red, green, blue\]'),
    ({'colours': True, 'palette': PALETTE[:4] + [PALETTE[0]]}, r'\(230, 25, 25\) stands for two things'),
    ({'colours': True, 'ignored_colours': [PALETTE[1]]}, r'\(235, 225, 25\) stands for two things'),
    ({'unseeen': ['green']}, 'ZeroShotDataset has no argument unseeen; there are .*unseen'),
])
def test_arguments_that_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        dataset_of(EXAMPLE, **changes)


# ---- kinds of files

@pytest.mark.parametrize('bits', [2, 4])
def test_greys_of_few_bits_are_the_ids_of_the_file(tmp_path, bits):
    """Pillow spreads them to 255."""
    ids = np.arange(2**bits, dtype=np.uint8).reshape(2, -1)
    file = tmp_path / 'mask.png'
    rows = b''.join(b'\0' + np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:].ravel()).tobytes()
                    for row in ids)
    head = struct.pack('>2I5B', ids.shape[1], 2, bits, 0, 0, 0, 0)
    file.write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        for kind, data in ((b'IHDR', head), (b'IDAT', zlib.compress(rows)), (b'IEND', b''))))
    masks = MaskIds([str(index) for index in range(2**bits)])
    assert np.array_equal(load_mask(str(file), masks), ids)
