"""A dataset of anyone's, by config alone: masks of ids or of colours, any folders, any names."""
import shutil

import numpy as np
import pytest
from mmcv import Config
from mmseg.datasets import build_dataset
from PIL import ExifTags, Image

from datasets.loading import MaskColours
from tests.conftest import REPOSITORY

EXAMPLE = REPOSITORY / 'tests/data/custom'
PALETTE = [[230, 25, 25], [235, 225, 25], [25, 170, 25], [25, 75, 230], [145, 30, 180]]


@pytest.fixture
def root(tmp_path):
    """A copy of the example that tests may damage."""
    return shutil.copytree(EXAMPLE, tmp_path / 'custom')


def part(root, name: str = 'val', **changes):
    config = Config.fromfile(str(REPOSITORY / 'configs/custom/example.py')).data[name]
    config.update(data_root=str(root), **changes)
    return build_dataset(config, {'test_mode': name != 'train'})


def naive_labels(image: np.ndarray) -> np.ndarray:
    """Pixel by pixel."""
    meanings = {tuple(colour): index for index, colour in enumerate(PALETTE)} | {(0, 0, 0): 255}
    return np.array([[meanings[tuple(int(value) for value in pixel)] for pixel in row] for row in image])


def test_the_example(root):
    dataset = part(root, 'train')
    assert (len(dataset), len(part(root))) == (12, 6)
    assert dataset.facts.split.names == ('red', 'yellow', 'green', 'blue', 'purple')
    assert dataset.facts.split.unseen_names == ('green',)
    assert [list(colour) for colour in dataset.PALETTE] == PALETTE


def test_colours_become_classes(root):
    dataset = part(root)
    found = set()
    for index in range(len(dataset)):
        with Image.open(root / 'val/masks' / f'{index:02d}.png') as image:
            assert image.mode == 'RGB'
            expected = naive_labels(np.asarray(image))
        assert np.array_equal(dataset.true_labels(index), expected)
        assert np.array_equal(dataset.get_gt_seg_map_by_idx(index), expected)
        found |= set(np.unique(expected))
    assert found == {0, 1, 2, 3, 4, 255}


def test_training_and_scores_see_the_same_classes(root):
    dataset = part(root, 'train', pipeline=[dict(type='LoadImage'), dict(type='LoadLabels')])
    assert np.array_equal(dataset[3]['gt_semantic_seg'], dataset.true_labels(3))
    val = part(root)
    perfect = [np.where(val.true_labels(index) == 255, 0, val.true_labels(index)) for index in range(6)]
    scores = val.evaluate(perfect)
    assert scores['mIoU'] == scores['hIoU'] == 1


def test_masks_with_a_palette_of_their_own(root):
    """The kind that VOC's are: ids, whose colours are looked up."""
    before = part(root).true_labels(2)
    for path in (root / 'val/masks').glob('*.png'):
        mask = naive_labels(np.asarray(Image.open(path)))
        indexed = Image.fromarray(np.where(mask == 255, 0, mask + 1).astype(np.uint8), mode='P')
        indexed.putpalette([0, 0, 0, *np.ravel(PALETTE)])
        indexed.save(path)
    assert np.array_equal(part(root).true_labels(2), before)
    ids = part(root, colour_masks=False, ignored_colours=[], reduce_zero_label=True)
    assert np.array_equal(ids.true_labels(2), before)


def test_ids_that_count_from_nought(root):
    for path in (root / 'val/masks').glob('*.png'):
        Image.fromarray(naive_labels(np.asarray(Image.open(path))).astype(np.uint8)).save(path)
    dataset = part(root, colour_masks=False, ignored_colours=[])
    assert np.array_equal(dataset.true_labels(1), naive_labels(np.asarray(Image.open(EXAMPLE / 'val/masks/01.png'))))


def test_a_text_file_names_the_classes(root, tmp_path):
    names = tmp_path / 'names.txt'
    names.write_text('crimson\nlemon\nleaf\nsky\nplum\n')
    dataset = part(root, classes=str(names), unseen=['plum'])
    assert dataset.CLASSES == ('crimson', 'lemon', 'leaf', 'sky', 'plum')
    assert dataset.facts.split.unseen == [4]


@pytest.mark.parametrize(('changes', 'words'), [
    ({'palette': PALETTE[:4]}, 'palette has 4 colours for 5 classes'),
    ({'palette': None}, 'colour_masks=True needs palette='),
    ({'reduce_zero_label': True}, 'neither reduce_zero_label nor ignore_index: list background in ignored_colours'),
    ({'palette': PALETTE[:4] + [[1, 2, 300]]}, r'\[1, 2, 300\] is no colour'),
    ({'palette': PALETTE[:4] + [[1, 2]]}, r'\[1, 2\] is no colour'),
    ({'palette': PALETTE[:4] + ['#ff0000']}, r'#ff0000 is no colour; \[red, green, blue\]'),
    ({'img_suffix': 'jpg'}, r"img_suffix='jpg': the dot belongs to it, as in '\.jpg'"),
    ({'seg_map_suffix': '.PNG'}, r'mask missing: 00\.PNG, .* and 3 more\. There is 00\.png: .* in seg_map_suffix'),
    ({'img_suffix': '0.jpg'}, r'mask missing: 0\.png\. Put it there'),
    ({'ann_dir': 'train/images'}, r'mask missing: .*There is 00\.jpg'),
    ({'palette': PALETTE[:4] + [PALETTE[0]]}, r'\[230, 25, 25\] means two things'),
    ({'ignored_colours': [PALETTE[1]]}, r'\[235, 225, 25\] means two things'),
    ({'classes': ['red', 'yellow', 'red', 'blue', 'purple']}, 'class names occur twice: red'),
    ({'unseen': ['grue']}, 'unseen names classes that the dataset lacks: grue'),
    ({'classes': ['red', '', 'green', 'blue', 'purple']}, "class 1 is named ''"),
    ({'prompt_set': ['a photo']}, 'needs one {}'),
    ({'img_suffix': '.png'}, r"holds \.jpg files, and img_suffix is '\.png'"),
    ({'unseeen': ['green']}, 'ZeroShotDataset has no argument unseeen; there are .*unseen'),
    ({'img_dir': 'images'}, 'no folder .*images of images'),
])
def test_configs_that_do_not_fit(root, changes, words):
    with pytest.raises(ValueError, match=words):
        part(root, **changes)


def test_a_colour_that_is_not_in_the_palette(root):
    dataset = part(root, ignored_colours=[])
    with pytest.raises(ValueError, match=r'masks/00\.png: the palette has no colour \[0, 0, 0\]\. Add them to'):
        dataset.true_labels(0)


def test_masks_that_were_resized_smoothly_are_told_with_few_words(root):
    path = root / 'val/masks/00.png'
    with Image.open(path) as image:
        image.resize((64, 64), Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC).save(path)
    with pytest.raises(ValueError, match=r'00\.png: the palette has no colour .* and \d+ more.*smooth') as error:
        part(root).true_labels(0)
    assert len(str(error.value).split('masks/00.png')[1]) < 400


@pytest.mark.parametrize('colours', [True, False])
def test_masks_that_were_saved_as_jpeg(root, colours):
    with Image.open(root / 'val/masks/00.png') as image:
        image.convert('RGB' if colours else 'L').save(root / 'lossy.jpg')
    shutil.move(root / 'lossy.jpg', root / 'val/masks/00.png')
    dataset = part(root, colour_masks=colours, **({} if colours else {'ignored_colours': []}))
    with pytest.raises(ValueError, match=r'00\.png: this mask is a JPEG, .* as PNG'):
        dataset.true_labels(0)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_images_that_are_stored_turned(root, orientation):
    """As telephones do: the mask is that of the image as it is seen, in training, in scores and in images."""
    with Image.open(root / 'val/images/00.jpg') as image:
        upright = image.crop((0, 0, 128, 80))
    Image.fromarray(np.asarray(Image.open(root / 'val/masks/00.png'))[:80]).save(root / 'val/masks/00.png')
    undo = {2: 'FLIP_LEFT_RIGHT', 3: 'ROTATE_180', 4: 'FLIP_TOP_BOTTOM', 5: 'TRANSPOSE', 6: 'ROTATE_90',
            7: 'TRANSVERSE', 8: 'ROTATE_270'}  # of what a viewer does
    stored = upright.transpose(Image.Transpose[undo[orientation]]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(root / 'val/images/00.jpg', exif=exif, quality=95)
    dataset = part(root, pipeline=[dict(type='LoadImage'), dict(type='LoadLabels')])
    dataset.test_mode = False
    loaded = dataset[0]
    assert loaded['img'].shape == (80, 128, 3) and loaded['gt_semantic_seg'].shape == (80, 128)
    assert dataset.true_labels(0).shape == (80, 128)
    for seen in (loaded['img'][..., ::-1], dataset.image(0)):
        assert np.abs(seen.astype(int) - np.asarray(upright)).mean() < 5


def test_a_link_that_leads_back(root):
    (root / 'val/images/loop').symlink_to(root / 'val')
    with pytest.raises(ValueError, match='images/loop: this link leads back to a folder that it is in. Remove it'):
        part(root)


def test_links_to_nothing(root):
    (root / 'val/images/99.jpg').symlink_to(root / 'gone.jpg')
    with pytest.raises(ValueError, match=r'images: links to no image: 99\.jpg\. Mend'):
        part(root)


def test_folders_that_are_links(root):
    (root / 'val/images').rename(root / 'elsewhere')
    (root / 'val/images/more').mkdir(parents=True)
    (root / 'val/images/more/linked').symlink_to(root / 'elsewhere')
    assert [info['filename'] for info in part(root, ann_dir=None).img_infos][0] == 'more/linked/00.jpg'


def test_masks_with_another_ending(root):
    (root / 'val/masks/deep').mkdir()
    (root / 'val/images/deep').mkdir()
    for name in ('00', '01'):
        (root / f'val/masks/{name}.png').rename(root / f'val/masks/deep/{name}_mask.png')
        (root / f'val/images/{name}.jpg').rename(root / f'val/images/deep/{name}.jpg')
    with pytest.raises(ValueError, match=r'missing: deep/00\.png, deep/01\.png\. There is 00_mask\.png: .*seg_map_suf'):
        part(root)


def test_a_mask_that_lacks(root):
    (root / 'val/masks/03.png').unlink()
    with pytest.raises(ValueError, match=r'masks: mask missing: 03\.png\. Put it there, or list .*split=FILE'):
        part(root)


def test_masks_of_ids_with_more_classes_than_the_list(root):
    for path in (root / 'val/masks').glob('*.png'):
        Image.fromarray(np.full((128, 128), 9, np.uint8)).save(path)
    with pytest.raises(ValueError, match=r'00\.png: label ids \[9\] are out of range: the 5 classes have'):
        part(root, colour_masks=False, ignored_colours=[]).true_labels(0)


def test_colour_masks_that_the_config_takes_for_ids(root):
    dataset = part(root, colour_masks=False, ignored_colours=[])
    with pytest.raises(ValueError, match=r'00\.png: a mask has one label per pixel, .*colour_masks=True'):
        dataset.true_labels(0)


def test_a_folder_with_two_kinds_of_images(root):
    Image.new('RGB', (128, 128)).save(root / 'val/images/99.png')
    with pytest.raises(ValueError, match=r'holds \.png files, .*only those would be read'):
        part(root)


def test_mask_colours_against_a_loop():
    random = np.random.default_rng(0)
    palette = [tuple(map(int, colour)) for colour in random.choice(256, (40, 3))]
    palette = list(dict.fromkeys(palette))
    ids = random.integers(0, len(palette), (31, 17))
    image = np.array(palette, np.uint8)[ids]
    labels = MaskColours(palette[:-2], palette[-2:]).labels(image, 'mask')
    assert np.array_equal(labels, np.where(ids < len(palette) - 2, ids, 255))
