"""Classes that count as one background, in masks, scores and files; the benchmarks with background or many classes."""
import json
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from datasets import ADE20K847, BY_NAME, PascalContext59, PascalContext459, PascalVOC20, PascalVOC20b
from models.errors import UserError
from tests.conftest import REPOSITORY
from tests.datasets.custom_data import EXAMPLE, LOADING, NAMES, PALETTE, dataset_of, id_masks, labels_in

FILES = sorted((EXAMPLE / 'val/masks').glob('*.png'))
TRUTH = np.array([0, 3, 1, 2, 3])  # with yellow and purple as background: red, green, blue, background
BACKGROUND = ['yellow', 'purple']
SCORED = ['red', 'green', 'blue', 'background']


def counted(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == 255, 255, TRUTH[np.minimum(labels, 4)])


@pytest.fixture
def with_ids(tmp_path):
    """Background has the id 0 in these masks, and the other three classes 1 to 3."""
    ids = np.array([1, 0, 2, 3, 0])
    return id_masks(tmp_path / 'ids', lambda labels: np.where(
        labels == 255, 255, ids[np.minimum(labels, 4)]).astype(np.uint8))


@pytest.mark.parametrize('masks', ['ids', 'one id', 'colours', 'one colour'])
def test_masks_of_a_background(tmp_path, with_ids, masks):
    """Its classes have ids or colours of their own in the masks, or one."""
    if masks == 'ids':
        dataset = dataset_of(id_masks(tmp_path / 'all'), background=BACKGROUND)
    elif masks == 'one id':
        dataset = dataset_of(with_ids, background=BACKGROUND, background_id=0, reduce_zero_label=True)
    elif masks == 'colours':
        dataset = dataset_of(EXAMPLE, colours=True, background=BACKGROUND)
    else:
        root = shutil.copytree(EXAMPLE, tmp_path / 'colours')
        for path in (root / 'val/masks').glob('*.png'):
            colours = np.asarray(Image.open(path)).copy()
            colours[(colours == PALETTE[4]).all(axis=2)] = PALETTE[1]
            Image.fromarray(colours).save(path)
        dataset = dataset_of(root, colours=True, background=BACKGROUND, palette=[*PALETTE[:4], PALETTE[1]])
    assert dataset.CLASSES == tuple(SCORED) and dataset.facts.split.names == tuple(NAMES)
    for index, path in enumerate(FILES):
        assert np.array_equal(dataset.true_labels(index), counted(labels_in(path)))


def test_scores_and_files_count_background_as_one(call, tmp_path, with_ids):
    """From the command line; the scores are those that a loop over the classes gives."""
    config = tmp_path / 'background.py'
    config.write_text(f"""_base_ = '{REPOSITORY}/configs/custom/example.py'
cross_dataset = True
data = dict(workers_per_gpu=0, test=dict(
    data_root={str(with_ids)!r}, colour_masks=False, palette=None, ignored_colours=[], reduce_zero_label=True,
    background={BACKGROUND!r}, background_id=0))
model = dict(pretrained_text='{REPOSITORY}/tools/miniature/clip.pt')
""")
    model = REPOSITORY / 'tools/miniature/model.safetensors'
    call('test.py', config, model, '--eval', 'mIoU', '--out', tmp_path / 'maps.pkl', '--show-dir', tmp_path / 'shown',
        '--work-dir', tmp_path)
    call('test.py', config, model, '--format-only', '--eval-options', f'imgfile_prefix={tmp_path}/ids')
    maps = [labels.astype(int) for labels in pickle.loads((tmp_path / 'maps.pkl').read_bytes())]
    assert {*np.unique(maps)} > {1, 4}  # the model was asked for each name, and gave both of the background
    scores = json.loads(next(tmp_path.glob('eval_single_scale_*.json')).read_text())
    truth = np.stack([counted(labels_in(path)) for path in FILES])
    predicted = np.stack([TRUTH[labels] for labels in maps])
    predicted = np.where(truth == 255, 255, predicted)
    for index, name in enumerate(SCORED):
        union = ((predicted == index) | (truth == index)).sum()
        both = ((predicted == index) & (truth == index)).sum()
        assert scores['metric'][f'IoU.{name}'] == round(both / union, 4)
    assert [name for name in scores['metric'] if name.startswith('IoU.')] == [f'IoU.{name}' for name in SCORED]
    assert scores['metric']['mIoU_unseen'] == scores['metric']['IoU.green'] and scores['unseen_names'] == ['green']
    for path, labels in zip(FILES, maps, strict=True):
        ids = np.asarray(Image.open(tmp_path / 'ids' / path.name))
        assert np.array_equal(ids, np.array([1, 2, 3, 0])[TRUTH[labels]])
    assert len(list((tmp_path / 'shown').iterdir())) == len(FILES)


@pytest.mark.parametrize(('changes', 'words'), [
    ({'background': ['wall']}, 'background names unknown classes: wall. The classes of the dataset: red; yellow'),
    ({'background_id': 0}, 'background_id=0 needs background='),
    ({'background': BACKGROUND, 'background_id': 0}, "background_id=0 is the id of class 'red'"),
    ({'background': BACKGROUND, 'background_id': 9, 'ignore_index': 9}, 'ignore_index=9 is the id of background'),
    ({'background': BACKGROUND, 'background_id': -1}, 'background_id=-1: the id of background must be'),
    ({'background': BACKGROUND, 'background_id': 9, 'colours': True}, 'nor background_id'),
    ({'background': ['yellow'], 'colours': True, 'palette': [*PALETTE[:4], PALETTE[0]]}, 'stands for two things'),
    ({'background': BACKGROUND, 'part': 'train'}, 'background=.* is for data.val and data.test'),
])
def test_backgrounds_that_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        dataset_of(EXAMPLE, **changes)


def test_an_id_that_is_neither_a_class_nor_background(with_ids):
    Image.fromarray(np.full((128, 128), 4, np.uint8)).save(with_ids / 'val/masks/00.png')
    dataset = dataset_of(with_ids, background=BACKGROUND, background_id=0, reduce_zero_label=True)
    words = r'00\.png: label ids \[4\] are out of range: the 3 classes have the ids 1 to 3, background 0, 255 is void'
    with pytest.raises(UserError, match=words):
        dataset.true_labels(0)


# ---- the benchmarks

def test_class_lists():
    assert (len(ADE20K847.CLASSES), len(PascalContext459.CLASSES), len(PascalVOC20b.CLASSES)) == (847, 459, 59)
    assert ADE20K847.CLASSES[1] == 'building, edifice' and len({*ADE20K847.OBJECT_IDS}) == 847
    assert ADE20K847.OBJECT_IDS[:5] == (2978, 312, 2420, 2855, 2131)
    assert PascalContext459.CLASSES[0] == 'accordion' and PascalContext459.CLASSES[-1] == 'wool'
    assert PascalVOC20b.CLASSES[:20] == PascalVOC20.CLASSES
    assert {*PascalVOC20b.CLASSES} == {*PascalVOC20.CLASSES, *PascalContext59.CLASSES} - {'table'}
    for name, cls in BY_NAME.items():
        assert cls.describe().split.names == cls.CLASSES, name


@pytest.mark.parametrize(('cls', 'ids', 'labels'), [
    (ADE20K847, [0, 255, 846, 65535], [0, 255, 846, 65535]),
    (PascalContext459, [0, 1, 255, 459, 65535], [65535, 0, 254, 458, 65535]),
    (PascalVOC20b, [0, 1, 20, 255], [20, 0, 19, 255])])
def test_masks_of_the_benchmarks(cls, ids, labels):
    assert cls.usual_masks().labels(np.array([ids], np.uint16), 'it.png').tolist() == [labels]
    beyond = cls.usual_masks().ids.stop
    with pytest.raises(UserError, match=rf'it\.png: label ids \[{beyond}\] are out of range'):
        cls.usual_masks().labels(np.array([[1, beyond]], np.uint16), 'it.png')


@pytest.mark.parametrize('background', [None, [*PascalVOC20b.BACKGROUND]])
def test_the_background_of_voc(voc_root, background):
    dataset = PascalVOC20b(data_root=str(voc_root), img_dir='JPEGImages', ann_dir='SegmentationClass', test_mode=True,
                           background=background, split='ImageSets/Segmentation/val.txt', pipeline=LOADING)
    assert dataset.CLASSES == (*PascalVOC20.CLASSES, 'background') and dataset.PALETTE[-1] == [0, 0, 0]
    for index in range(len(dataset)):
        ids = np.asarray(Image.open(dataset.mask_path(index)))
        assert np.array_equal(dataset.true_labels(index), np.where(ids == 255, 255, (ids.astype(int) - 1) % 21))
    predictions = [np.arange(59, dtype=np.uint8).reshape(1, -1)] * len(dataset)
    assert dataset.as_scored(predictions[0]).tolist() == [[*range(20), *[20] * 39]]
