"""Your own dataset, by a config alone."""
import numpy as np
import pytest
from PIL import ExifTags, Image

from models.errors import UserError
from tests.datasets.custom_data import EXAMPLE, LOADING, NAMES, PALETTE, colour_masks, dataset_of


def part(root, name='val', **changes):
    return dataset_of(root, name, colours=True, **changes)


def test_the_example():
    dataset = part(EXAMPLE, 'train')
    assert (len(dataset), len(part(EXAMPLE))) == (12, 6)
    assert list(dataset.facts.split.names) == NAMES and dataset.facts.split.unseen_names == ('green',)
    assert [list(colour) for colour in dataset.PALETTE] == PALETTE


@pytest.mark.parametrize(('changes', 'words'), [
    ({'palette': PALETTE[:4]}, 'palette has 4 colours for 5 classes'),
    ({'palette': None}, 'colour_masks=True needs palette='),
    ({'reduce_zero_label': True}, 'neither reduce_zero_label nor ignore_index: list background in ignored_colours'),
    ({'palette': PALETTE[:4] + [[1, 2, 300]]}, r'\[1, 2, 300\] is not a colour'),
    ({'palette': PALETTE[:4] + ['#ff0000']}, r'#ff0000 is not a colour: \[red, green, blue\]'),
    ({'palette': PALETTE[:4] + [PALETTE[0]]}, r'\(230, 25, 25\) stands for two things'),
    ({'ignored_colours': [PALETTE[1]]}, r'\(235, 225, 25\) stands for two things'),
    ({'unseeen': ['green']}, 'ZeroShotDataset has no argument unseeen; there are .*unseen'),
])
def test_configs_that_do_not_fit(changes, words):
    with pytest.raises(UserError, match=words):
        part(EXAMPLE, **changes)


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
    dataset = part(root, pipeline=LOADING)
    dataset.test_mode = False
    loaded = dataset[0]
    assert loaded['img'].shape == (80, 128, 3) and loaded['gt_semantic_seg'].shape == (80, 128)
    assert dataset.true_labels(0).shape == (80, 128)
    for seen in (loaded['img'][..., ::-1], dataset.image(0)):
        assert np.abs(seen.astype(int) - np.asarray(upright)).mean() < 5
