"""Damaged and missing files: a ValueError that names the file, in training and in evaluation."""
import numpy as np
import pytest
from mmseg.datasets.pipelines import LoadImageFromFile
from PIL import Image

from datasets.loading import LoadImage, LoadLabels
from datasets.masks import MaskColours, MaskIds
from models.inference import read_image
from tests.data_archives import encoded
from tests.datasets.custom_data import EXAMPLE, dataset_of, id_masks
from tests.models.test_image_io import png_bomb, save_kinds

IMAGE = np.zeros((128, 128, 3), np.uint8)
JPEG, MASK = 'images/00.jpg', 'masks/00.png'


def read_first(dataset, part: str) -> None:
    """What training and evaluation do with a sample."""
    dataset[0]
    if part == 'val':
        dataset.pre_eval(np.zeros((128, 128), dtype=np.uint8), 0)


def half(data: bytes) -> bytes:
    return data[:len(data) // 2]


def with_thumbnail(data: bytes) -> bytes:
    """A cut-off JPEG in whose head there is a whole smaller one, as in a camera's files."""
    thumbnail = encoded(IMAGE[:8, :8], 'JPEG')
    return data[:2] + b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail + half(data[2:])


def long_chunk(data: bytes) -> bytes:
    """A PNG whose pixels are said to be 4 GB long."""
    place = data.index(b'IDAT')
    return data[:place - 4] + b'\xff' * 4 + data[place:]


BROKEN = [
    (JPEG, 'cut in the middle', half, 'its end is missing'),
    (JPEG, 'cut behind its thumbnail', with_thumbnail, 'its end is missing'),
    (JPEG, 'removed after the start', lambda data: None, 'image is missing'),
    (JPEG, 'text', lambda data: b'404: Not Found', 'broken image'),
    (JPEG, 'a PNG, cut in the middle', lambda data: half(encoded(IMAGE)), 'its end is missing'),
    (JPEG, 'a PNG with a long chunk', lambda data: long_chunk(encoded(IMAGE)), 'its end is missing'),
    (MASK, 'cut in the middle', half, 'broken mask'),
    (MASK, 'removed after the start', lambda data: None, 'mask is missing'),
    (MASK, 'empty', lambda data: b'', 'broken mask'),
    (MASK, 'of another size', lambda data: encoded(np.zeros((96, 72), np.uint8)), '72x96 pixels, its image 128x128'),
    (MASK, 'with colours', lambda data: encoded(IMAGE), 'one label per pixel.* 3 channels'),
    (MASK, 'id out of range', lambda data: encoded(np.full((128, 128), 21, np.uint8)),
     r'label ids \[21\] .*range: the 5 classes have the ids 0 to 4, 255 is'),
]


@pytest.mark.parametrize('part', ['train', 'val'])
@pytest.mark.parametrize(('file', 'name', 'damage', 'words'), BROKEN, ids=[f'{row[0][0]}-{row[1]}' for row in BROKEN])
def test_a_damaged_file_is_named(tmp_path, part, file, name, damage, words):
    root = id_masks(tmp_path / 'data')
    dataset = dataset_of(root, part)
    read_first(dataset, part)  # whole, it is read
    path = root / part / file
    damaged = damage(path.read_bytes())
    path.unlink()
    if damaged is not None:
        path.write_bytes(damaged)
    with pytest.raises(ValueError, match=words) as caught:
        read_first(dataset, part)
    assert str(path) in str(caught.value)


def test_one_reading_of_an_image_everywhere(tmp_path):
    """Training and testing load the image that `read_image`, and thus demo.py, reads."""
    dataset = dataset_of(EXAMPLE, colours=True)
    (tmp_path / 'kinds').mkdir()
    dataset.img_dir = str(tmp_path / 'kinds')
    for path in save_kinds(tmp_path / 'kinds', np.asarray(Image.open(EXAMPLE / 'val/images/00.jpg'))):
        expected = read_image(path)
        loaded = LoadImage()({'img_prefix': dataset.img_dir, 'img_info': {'filename': path.name}})
        assert np.array_equal(loaded['img'][..., ::-1], expected), path.name
        dataset.img_infos[0]['filename'] = path.name
        assert np.array_equal(dataset.image(0), expected), path.name


@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize(('ending', 'options'), [
    ('png', {}), ('jpg', {}), ('jpg', {'subsampling': 0, 'quality': 100}), ('jpg', {'subsampling': 1, 'quality': 30}),
    ('jpg', {'progressive': True})])
def test_plain_images_are_loaded_as_by_mmseg(tmp_path, ending, options, mode):
    """The published pipeline, bit for bit, with all that it leaves for the next steps."""
    noise = np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((97, 73), Image.Resampling.BICUBIC).convert(mode).save(
        tmp_path / f'it.{ending}', **options)
    for settings in ({}, {'to_float32': True}):
        ours, theirs = (step(**settings)({'img_prefix': str(tmp_path), 'img_info': {'filename': f'it.{ending}'}})
                        for step in (LoadImage, LoadImageFromFile))
        for results in (ours, theirs):
            results['img_norm_cfg'] = repr(results['img_norm_cfg'])
        images = ours.pop('img'), theirs.pop('img')
        assert np.array_equal(*images) and images[0].dtype == images[1].dtype and ours == theirs
        assert images[0].flags.c_contiguous


def load(path, masks: MaskIds | MaskColours | None = None) -> np.ndarray:
    results = {'seg_prefix': str(path.parent), 'ann_info': {'seg_map': path.name},
               'masks': masks or MaskIds(['a', 'b']), 'seg_fields': []}
    return LoadLabels()(results)['gt_semantic_seg']


@pytest.mark.parametrize('read', [
    lambda path: LoadImage()({'img_prefix': str(path.parent), 'img_info': {'filename': path.name}}),
    load, lambda path: load(path, MaskColours([(0, 0, 0)]))], ids=['image', 'ids', 'colours'])
def test_bombs(tmp_path, read):
    (tmp_path / 'bomb.png').write_bytes(png_bomb(12_000, 11_000))
    with pytest.raises(ValueError, match=r'bomb\.png has more than 100,000,000 pixels'):
        read(tmp_path / 'bomb.png')


def test_programs_that_are_images(tmp_path):
    """Pillow would hand them to Ghostscript."""
    (tmp_path / 'it.png').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n')
    assert Image.open(tmp_path / 'it.png').format == 'EPS'
    with pytest.raises(ValueError, match=r'it\.png: broken mask'):
        load(tmp_path / 'it.png')
