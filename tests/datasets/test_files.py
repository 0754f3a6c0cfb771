"""Which files of a folder belong to a dataset, and the message when one is missing."""
import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from datasets import Miniature
from models.errors import UserError
from tests.datasets.custom_data import EXAMPLE, colour_masks, dataset_of, labels_in

FIRST = labels_in(EXAMPLE / 'val/masks/00.png')


@pytest.fixture
def root(tmp_path):
    return colour_masks(tmp_path / 'data')


def part(root, **changes):
    return dataset_of(root, colours=True, **changes)


def images_of(dataset) -> list[str]:
    return [sample['filename'] for sample in dataset.img_infos]


def add_copies(root, *names):
    """Copies of the first sample under other names, which may have a folder."""
    for kind, ending in (('images', '.jpg'), ('masks', '.png')):
        for name in names:
            file = root / f'val/{kind}/{name}{ending}'
            file.parent.mkdir(exist_ok=True)
            shutil.copy(root / f'val/{kind}/00{ending}', file)


def test_hidden_files_and_folders_are_skipped(root):
    add_copies(root, '.ipynb_checkpoints/00-checkpoint', '._00')
    assert images_of(part(root)) == [f'{index:02d}.jpg' for index in range(6)]


def test_an_image_that_a_split_names_twice_counts_once(root, caplog):
    (root / 'split.txt').write_text('00\n01\n00\n\n02\n01\n')
    logging.getLogger('mmseg').propagate = True
    with caplog.at_level(logging.WARNING):
        assert images_of(part(root, split='split.txt')) == ['00.jpg', '01.jpg', '02.jpg']
    assert 'names 3 different images on 5 lines; each counts once' in caplog.text


def test_a_split_file_of_windows(root):
    add_copies(root, 'a/b')
    (root / 'split.txt').write_bytes('00\r\na\\b\r\n\x1a'.encode('utf-16'))
    assert images_of(part(root, split='split.txt')) == ['00.jpg', 'a/b.jpg']


@pytest.mark.parametrize(('image', 'mask'), [('.jpg', '.png'), ('.png', '_mask.png'), ('_image.png', '.png')])
def test_images_and_masks_in_one_folder(root, image, mask):
    (root / 'together').mkdir()
    for file in (root / 'val/images').glob('*.jpg'):
        with Image.open(file) as opened:
            opened.save(root / f'together/{file.stem}{image}')
        shutil.copy(root / f'val/masks/{file.stem}.png', root / f'together/{file.stem}{mask}')
    dataset = part(root, img_dir='together', ann_dir='together', img_suffix=image, seg_map_suffix=mask)
    assert len(dataset) == 6 and np.array_equal(dataset.true_labels(0), FIRST)


def test_masks_in_a_folder_inside_that_of_the_images(root):
    shutil.move(root / 'val/masks', root / 'val/images/masks')
    dataset = part(root, ann_dir='val/images/masks')
    assert len(dataset) == 6 and np.array_equal(dataset.true_labels(0), FIRST)


def test_folders_that_are_links(root):
    (root / 'val/images').rename(root / 'elsewhere')
    (root / 'val/images/more').mkdir(parents=True)
    (root / 'val/images/more/linked').symlink_to(root / 'elsewhere')
    assert images_of(part(root, ann_dir=None))[0] == 'more/linked/00.jpg'


def other_endings(root):
    add_copies(root, 'deep/00', 'deep/01')
    for name in ('00', '01'):
        (root / f'val/masks/deep/{name}.png').rename(root / f'val/masks/deep/{name}_mask.png')


@pytest.mark.parametrize(('damage', 'words'), [
    (other_endings, r'missing: deep/00\.png, deep/01\.png\. There is 00_mask\.png: set seg_map_suffix'),
    (lambda root: [file.unlink() for file in (root / 'val/images').iterdir()], 'folder .*images names no image'),
    (lambda root: (root / 'val/split.txt').write_text('00\n9\n'), r'images: image missing: 9\.jpg\. Put it there'),
    (lambda root: (root / 'val/masks/03.png').unlink(),
     r'masks: mask missing: 03\.png\. Put it there, or list .*split=FILE'),
    (lambda root: Image.new('RGB', (128, 128)).save(root / 'val/images/99.png'),
     r'holds \.png files, .*only those would be read'),
])
def test_folders_that_are_refused(root, damage, words):
    damage(root)
    with pytest.raises(UserError, match=words):
        part(root, split='val/split.txt' if (root / 'val/split.txt').exists() else None)


@pytest.mark.parametrize(('changes', 'words'), [
    ({'img_suffix': 'jpg'}, r"img_suffix='jpg': write the dot, too: '\.jpg'"),
    ({'seg_map_suffix': '.PNG'}, r'mask missing: 00\.PNG, .* and 3 more\. There is 00\.png: set seg_map_suffix'),
    ({'img_suffix': '0.jpg'}, r'mask missing: 0\.png\. Put it there'),
    ({'ann_dir': 'train/images'}, r'mask missing: .*There is 00\.jpg'),
    ({'img_suffix': '.png'}, r"holds \.jpg files, and img_suffix is '\.png'"),
    ({'img_dir': 'images'}, 'no folder .*images of images'),
    ({'ann_dir': 'masks'}, 'no folder .*masks of masks'),
    ({'split': 'nowhere.txt'}, 'no split file .*nowhere.txt'),
    ({'img_dir': 'val/masks', 'img_suffix': '.png'}, r'holds both images and masks, and both end in \.png'),
])
def test_arguments_that_do_not_fit_the_folders(changes, words):
    with pytest.raises(UserError, match=words):
        part(EXAMPLE, **changes)


def test_the_miniature_says_how_to_draw_its_world(tmp_path):
    with pytest.raises(UserError, match=r'no folder .*JPEGImages of images\. `bash tools/quickstart\.sh` draws'):
        Miniature(data_root=str(tmp_path), img_dir='JPEGImages', ann_dir='SegmentationClass', pipeline=[])


def test_results_of_nested_folders_have_files_of_their_own(root, tmp_path):
    add_copies(root, 'a/b', 'a_b')
    files = part(root).format_results([np.zeros((2, 2), np.uint8)] * 8, str(tmp_path / 'out'))
    assert len({*files}) == 8
