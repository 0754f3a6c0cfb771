"""Your own dataset, by a config alone."""
import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.datasets.custom_data import EXAMPLE, LOADING, NAMES, PALETTE, colour_masks, dataset_of


def test_the_example():
    dataset = dataset_of(EXAMPLE, 'train', colours=True)
    assert (len(dataset), len(dataset_of(EXAMPLE, colours=True))) == (12, 6)
    assert list(dataset.facts.split.names) == NAMES and dataset.facts.split.unseen_names == ('green',)
    assert [list(colour) for colour in dataset.PALETTE] == PALETTE


@pytest.mark.parametrize('orientation', range(1, 9))
def test_images_that_are_stored_turned(tmp_path, orientation):
    """As telephones do: the mask is that of the image as it is seen, in training, in scores and in images."""
    root = colour_masks(tmp_path / 'data')
    with Image.open(root / 'val/images/00.jpg') as image:
        upright = image.crop((0, 0, 128, 80))
    Image.fromarray(np.asarray(Image.open(root / 'val/masks/00.png'))[:80]).save(root / 'val/masks/00.png')
    undo = {2: 'FLIP_LEFT_RIGHT', 3: 'ROTATE_180', 4: 'FLIP_TOP_BOTTOM', 5: 'TRANSPOSE', 6: 'ROTATE_90',
            7: 'TRANSVERSE', 8: 'ROTATE_270'}  # what a viewer does
    stored = upright.transpose(Image.Transpose[undo[orientation]]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(root / 'val/images/00.jpg', exif=exif, quality=95)
    dataset = dataset_of(root, colours=True, pipeline=LOADING)
    dataset.test_mode = False
    loaded = dataset[0]
    assert loaded['img'].shape == (80, 128, 3) and loaded['gt_semantic_seg'].shape == (80, 128)
    assert dataset.true_labels(0).shape == (80, 128)
    for seen in (loaded['img'][..., ::-1], dataset.image(0)):
        assert np.abs(seen.astype(int) - np.asarray(upright)).mean() < 5
