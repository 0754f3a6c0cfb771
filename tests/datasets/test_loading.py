"""Damaged and missing files: a ValueError that names the file, in training and in evaluation."""
import io

import numpy as np
import pytest
from mmcv import Config
from mmseg.datasets import build_dataset
from mmseg.datasets.pipelines import LoadImageFromFile
from PIL import Image

import datasets  # noqa: F401  registers
from datasets.loading import LoadImage, LoadLabels
from datasets.masks import MaskColours, MaskIds
from models.inference import read_image
from tests.conftest import make_voc
from tests.models.test_image_io import png_bomb, save_kinds
from tools.preparation.convert_masks import decode

JPEG, MASK = 'JPEGImages/{}_000.jpg', 'SegmentationClass/{}_000.png'


@pytest.fixture
def root(tmp_path):
    return make_voc(tmp_path / 'VOC2012', train=2, aug=1, val=2)


def open_dataset(tiny_configs, root, part: str):
    config = Config.fromfile(str(tiny_configs['inductive'])).data['train' if part == 'train' else 'test']
    config.data_root = str(root)
    return build_dataset(config, {'test_mode': part != 'train'})


def read_first(dataset, part: str) -> None:
    """What training and evaluation do with a sample."""
    dataset[0]
    if part == 'val':
        dataset.pre_eval(np.zeros((72, 96), dtype=np.uint8), 0)


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, 'PNG')
    return stream.getvalue()


def half(data: bytes) -> bytes:
    return data[:len(data) // 2]


def with_thumbnail(data: bytes) -> bytes:
    """A cut-off JPEG in whose head there is a whole smaller one, as in a camera's files."""
    stream = io.BytesIO()
    Image.new('RGB', (8, 8)).save(stream, 'JPEG')
    thumbnail = stream.getvalue()
    return data[:2] + b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail + half(data[2:])


def long_chunk(data: bytes) -> bytes:
    """A PNG whose pixels are said to be 4 GB long."""
    place = data.index(b'IDAT')
    return data[:place - 4] + b'\xff' * 4 + data[place:]


IMAGE = np.zeros((72, 96, 3), np.uint8)
BROKEN = [
    (JPEG, 'cut in the middle', half, 'its end is missing'),
    (JPEG, 'cut behind its thumbnail', with_thumbnail, 'its end is missing'),
    (JPEG, 'cut in its head', lambda data: data[:100], 'broken image'),
    (JPEG, 'text', lambda data: b'404: Not Found', 'broken image'),
    (JPEG, 'a PNG, cut in the middle', lambda data: half(png(IMAGE)), 'its end is missing'),
    (JPEG, 'a PNG with a long chunk', lambda data: long_chunk(png(IMAGE)), 'its end is missing'),
    (MASK, 'cut in the middle', half, 'broken mask'),
    (MASK, 'empty', lambda data: b'', 'broken mask'),
    (MASK, 'of another size', lambda data: png(np.zeros((96, 72), np.uint8)), '72x96 pixels, its image 96x72'),
    (MASK, 'with colours', lambda data: png(np.zeros((72, 96, 3), np.uint8)), 'one label per pixel.* 3 channels'),
    (MASK, 'id out of range', lambda data: png(np.full((72, 96), 21, np.uint8)),
     r'label ids \[21\] .*range: the 20 classes have the ids 1 to 20, 255 is'),
    (MASK, '16 bit', lambda data: png(np.full((72, 96), 256 + 5, np.uint16)), r'label ids \[261\] are out of range'),
]


@pytest.mark.parametrize('part', ['train', 'val'])
@pytest.mark.parametrize(('file', 'what', 'damage', 'words'), BROKEN, ids=[f'{row[0][0]}-{row[1]}' for row in BROKEN])
def test_a_damaged_file_is_named(tiny_configs, root, part, file, what, damage, words):
    dataset = open_dataset(tiny_configs, root, part)
    read_first(dataset, part)  # whole, it is read
    path = root / file.format(part)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=words) as caught:
        read_first(dataset, part)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize('part', ['train', 'val'])
@pytest.mark.parametrize(('file', 'word'), [(JPEG, 'image'), (MASK, 'mask')])
def test_a_missing_file_is_named(tiny_configs, root, part, file, word):
    dataset = open_dataset(tiny_configs, root, part)
    path = root / file.format(part)
    path.unlink()
    with pytest.raises(ValueError, match=f'{word} is missing') as caught:  # gone since the start
        read_first(dataset, part)
    assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match=f'{word} missing: {path.name}') as caught:  # never there
        open_dataset(tiny_configs, root, part)
    assert str(path.parent) in str(caught.value)


def remove(path):
    path.rename(path.with_name('elsewhere'))


def empty_folder(path):
    remove(path)
    path.mkdir()


@pytest.mark.parametrize(('name', 'spoil', 'words'), [
    ('JPEGImages', remove, 'no folder'),
    ('SegmentationClass', empty_folder, 'mask missing: val_000.png'),
    ('ImageSets/Segmentation/val.txt', remove, 'no split file'),
    ('ImageSets/Segmentation/val.txt', lambda path: path.write_text('\n'), 'names no image'),
    ('ImageSets/Segmentation/val.txt', lambda path: path.write_text('val_000\nno_such\n'), 'no_such.jpg'),
])
def test_missing_and_empty_folders_and_split_files(tiny_configs, root, name, spoil, words):
    spoil(root / name)
    with pytest.raises(ValueError, match=words) as caught:
        open_dataset(tiny_configs, root, 'val')
    assert str(root) in str(caught.value)


def test_greyscale_images_and_palette_masks_are_read(tiny_configs, root):
    """VOC's masks are PNG files with a palette; some of its images could be grey."""
    Image.open(root / 'JPEGImages/val_000.jpg').convert('L').save(root / 'JPEGImages/val_000.jpg')
    mask = Image.open(root / 'SegmentationClass/val_000.png')
    labels = np.asarray(mask)
    mask = Image.fromarray(labels)
    mask.putpalette(list(range(256)) * 3)
    mask.save(root / 'SegmentationClass/val_000.png')
    assert Image.open(root / 'SegmentationClass/val_000.png').mode == 'P'
    dataset = open_dataset(tiny_configs, root, 'val')
    assert dataset[0]['img'][0].shape[0] == 3
    expected = np.where(np.isin(labels, (0, 255)), 255, labels - 1)
    np.testing.assert_array_equal(dataset.get_gt_seg_map_by_idx(0), expected)


def test_one_reading_of_an_image_everywhere(tiny_configs, root, tmp_path):
    """Training and testing load the image that `read_image`, and thus demo.py, reads."""
    dataset = open_dataset(tiny_configs, root, 'val')
    (tmp_path / 'kinds').mkdir()
    dataset.img_dir = str(tmp_path / 'kinds')
    for path in save_kinds(tmp_path / 'kinds', np.asarray(Image.open(root / 'JPEGImages/val_000.jpg'))):
        expected = read_image(path)
        loaded = LoadImage()({'img_prefix': dataset.img_dir, 'img_info': {'filename': path.name}})
        assert loaded['img'].flags.c_contiguous and np.array_equal(loaded['img'][..., ::-1], expected), path.name
        dataset.img_infos[0]['filename'] = path.name
        assert np.array_equal(dataset.image(0), expected), path.name


@pytest.mark.parametrize(('ending', 'options'), [('png', {}), ('jpg', {}), ('jpg', {'subsampling': 0, 'quality': 100}),
                                                 ('jpg', {'progressive': True})])
def test_plain_images_are_loaded_as_by_mmseg(tmp_path, ending, options):
    """The published pipeline, bit for bit, with all that it leaves for the next steps."""
    noise = np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((96, 72), Image.Resampling.BICUBIC).save(tmp_path / f'it.{ending}', **options)
    for settings in ({}, {'to_float32': True}):
        ours, theirs = (step(**settings)({'img_prefix': str(tmp_path), 'img_info': {'filename': f'it.{ending}'}})
                        for step in (LoadImage, LoadImageFromFile))
        for results in (ours, theirs):
            results['img_norm_cfg'] = repr(results['img_norm_cfg'])
        images = ours.pop('img'), theirs.pop('img')
        assert np.array_equal(*images) and images[0].dtype == images[1].dtype and ours == theirs


def load(path, masks: MaskIds | MaskColours | None = None) -> np.ndarray:
    results = {'seg_prefix': str(path.parent), 'ann_info': {'seg_map': path.name},
               'masks': masks or MaskIds(['a', 'b']), 'seg_fields': []}
    return LoadLabels()(results)['gt_semantic_seg']


@pytest.mark.parametrize('size', [(12_000, 11_000), (40_000, 20_000)])
@pytest.mark.parametrize('read', [
    lambda path: LoadImage()({'img_prefix': str(path.parent), 'img_info': {'filename': path.name}}),
    load, lambda path: load(path, MaskColours([(0, 0, 0)]))], ids=['image', 'ids', 'colours'])
def test_bombs(tmp_path, read, size):
    (tmp_path / 'bomb.png').write_bytes(png_bomb(*size))
    with pytest.raises(ValueError, match=r'bomb\.png has more than 100,000,000 pixels'):
        read(tmp_path / 'bomb.png')
    with pytest.raises(ValueError, match='more than 100,000,000 pixels'):
        decode(tmp_path / 'bomb.png')


def test_programs_that_are_images(tmp_path):
    """Pillow would hand them to Ghostscript."""
    (tmp_path / 'it.png').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n')
    assert Image.open(tmp_path / 'it.png').format == 'EPS'
    with pytest.raises(ValueError, match=r'it\.png: broken mask'):
        load(tmp_path / 'it.png')
