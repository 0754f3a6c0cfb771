"""Images of every kind are read as viewers show them; anything else is refused with a remedy."""
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from models.inference import read_image


@pytest.fixture
def colours() -> np.ndarray:
    """(8, 12, 3): red above left, green above right, blue below left, grey below right."""
    image = np.zeros((8, 12, 3), np.uint8)
    image[:4, :6], image[:4, 6:], image[4:, :6], image[4:, 6:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 99
    return image


def save_kinds(folder: Path, image: np.ndarray) -> list[Path]:
    """Save an image as files of kinds that readers see otherwise: more bits, transparency, CMYK, stored turned."""
    def save(name: str, image: Image.Image, **options) -> None:
        files.append(folder / name)
        image.save(files[-1], **options)
    files, image, turned = [], Image.fromarray(image), Image.Exif()
    opacity = Image.linear_gradient('L').resize(image.size)
    deep = image.convert('L').point(lambda value: 257 * value, 'I')
    turned[ExifTags.Base.Orientation] = 6
    clear, grey, palette = image.copy(), image.convert('L'), image.quantize(16)
    clear.putalpha(opacity)
    grey.putalpha(opacity)
    save('grey.jpg', image.convert('L'))
    save('deep.png', deep.convert('I;16'))
    save('deep.tif', deep.convert('I;16'))
    save('long.tif', deep)
    save('float.tif', Image.fromarray(np.asarray(image.convert('L'), np.float32) / 255))
    save('rgba.png', clear)
    save('rgba.tif', clear)
    save('rgba.webp', clear, lossless=True)
    save('la.png', grey)
    save('palette.png', palette)
    save('palette_clear.png', palette, transparency=palette.getpixel((0, 0)))
    save('palette_clear.gif', palette, transparency=palette.getpixel((0, 0)))
    save('rgb_clear.png', image, transparency=image.getpixel((0, 0)))
    save('cmyk.jpg', image.convert('CMYK'), quality=95)
    save('turned.jpg', image, exif=turned, quality=95)
    save('turned.png', image, exif=turned)
    save('turned_clear.png', clear, exif=turned)
    return files


@pytest.mark.parametrize('ending', ['png', 'bmp', 'tiff', 'webp', 'gif'])
def test_files(tmp_path, colours, ending):
    Image.fromarray(colours).save(tmp_path / f'it.{ending}', **({'lossless': True} if ending == 'webp' else {}))
    assert np.array_equal(read_image(str(tmp_path / f'it.{ending}')), colours)


def test_an_image_is_turned_as_exif_says(tmp_path, colours):
    files = {path.name: path for path in save_kinds(tmp_path, colours)}
    assert np.array_equal(read_image(files['turned.png']), np.rot90(colours, -1))


def test_grey_and_bits(tmp_path):
    grey = np.arange(0, 256, 2, dtype=np.uint8).reshape(8, 16)
    deep = grey.astype(np.uint16) * 257
    files = {'grey.png': grey, 'deep.png': deep, 'deep.tiff': deep, 'long.tiff': deep.astype(np.int32),
             'float.tiff': grey.astype(np.float32) / 255, 'bits.png': grey > 100}
    for name, stored in files.items():
        Image.fromarray(stored).save(tmp_path / name)
        wanted = np.where(grey > 100, 255, 0) if name == 'bits.png' else grey
        assert np.array_equal(read_image(tmp_path / name), np.repeat(wanted[..., None], 3, axis=2)), name
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / 'other.tiff')
    with pytest.raises(ValueError, match='other.tiff: an image of floats must have values from 0 to 1'):
        read_image(tmp_path / 'other.tiff')


def test_transparent_parts_are_white(tmp_path, colours):
    rgba = np.dstack([colours, np.full((8, 12), 255, np.uint8)])
    rgba[:4, :6, 3] = 0
    wanted = colours.copy()
    wanted[:4, :6] = 255
    palette = Image.fromarray(colours).quantize(8)
    palette.save(tmp_path / 'palette.png', transparency=palette.getpixel((0, 0)))
    for source in (tmp_path / 'palette.png', Image.fromarray(rgba), rgba):
        assert np.abs(read_image(source).astype(int) - wanted).max() < 4


def test_damaged_files(tmp_path, colours):
    """`test_fuzz.py` has many more."""
    Image.fromarray(colours).save(tmp_path / 'cut.png')
    for name, data, message in (('empty.jpg', b'', 'is empty'), ('page.png', b'<html></html>', 'not an image of a'),
                                ('cut.png', (tmp_path / 'cut.png').read_bytes()[:60], 'is damaged')):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f'{name}.*{message}'):
            read_image(tmp_path / name)


def test_arrays(colours):
    assert np.array_equal(read_image(colours), colours)
    assert np.array_equal(read_image(colours[..., 0]), np.repeat(colours[..., :1], 3, axis=2))
    assert np.array_equal(read_image(colours[..., :1]), np.repeat(colours[..., :1], 3, axis=2))
    assert np.array_equal(read_image(colours / 255), colours)
    assert np.array_equal(read_image(colours.astype(np.uint16) * 257), colours)
    assert np.array_equal(read_image(colours > 100), np.where(colours > 100, 255, 0))
    assert np.array_equal(read_image(colours[:, ::-1]), colours[:, ::-1])


@pytest.mark.parametrize(('source', 'message'), [
    (np.zeros((4, 5, 2), np.uint8), r'shape \(4, 5, 2\).*\(H, W, 3\)'), (np.zeros(7, np.uint8), r'shape \(7,\)'),
    (np.zeros((0, 5, 3), np.uint8), 'shape'), (np.full((4, 5, 3), 7.), 'from 0 to 1'),
    (np.full((4, 5, 3), np.nan), 'from 0 to 1'), (np.zeros((4, 5), np.int64), 'int64'), (3, 'not int'),
    (np.zeros((2, 100, 3), np.uint8), '100x2 pixels.*more than 20 times'),
    ('missing.jpg', 'no file missing.jpg'), ('.', 'is a folder')])
def test_invalid_images(source, message):
    with pytest.raises(ValueError, match=message):
        read_image(source)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'it.jpg')
    with pytest.raises(ValueError, match=r'it\.jpg is not a regular file'):
        read_image(tmp_path / 'it.jpg')


def png_bomb(width: int, height: int) -> bytes:
    """A small file of a large black image."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    packer = zlib.compressobj(9)
    rows = b''.join(packer.compress(bytes(1 + -(-width // 8))) for _ in range(height)) + packer.flush()
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0))
            + chunk(b'IDAT', rows) + chunk(b'IEND', b''))


@pytest.mark.parametrize('size', [(12_000, 11_000), (40_000, 20_000)])
def test_bombs(tmp_path, size):
    (tmp_path / 'bomb.png').write_bytes(png_bomb(*size))
    assert (tmp_path / 'bomb.png').stat().st_size < 200_000
    with pytest.raises(ValueError, match=r'bomb.png has more than 100,000,000 pixels.*smaller'):
        read_image(tmp_path / 'bomb.png')
    with pytest.raises(ValueError, match='more than 50 pixels'):
        read_image(np.zeros((8, 12, 3), np.uint8), max_pixels=50)
