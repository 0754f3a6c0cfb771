"""The benchmarks' classes and colours, the scores of label maps against a naive count, and the files of a dataset."""
import logging
import math

import numpy as np
import pytest
from mmcv import Config
from mmseg.datasets import build_dataset
from PIL import Image

from datasets import ADE20K150, COCOStuff164k, PascalContext59, PascalContext60, PascalVOC20, ZeroShotDataset
from datasets.metrics import harmonic_mean, zero_shot_scores

VOC = ('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable', 'dog',
       'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor')


@pytest.fixture
def dataset(tiny_configs):
    return build_dataset(Config.fromfile(str(tiny_configs['inductive'])).data.test, {'test_mode': True})


def test_benchmarks():
    for cls in (PascalVOC20, COCOStuff164k, PascalContext59, PascalContext60, ADE20K150):
        assert len(cls.PALETTE) == len(cls.CLASSES) and cls.describe().split.names == tuple(cls.CLASSES)
    assert PascalContext60.CLASSES == ('background', *PascalContext59.CLASSES)

    facts = PascalVOC20.describe()
    assert (facts.split.names, facts.split.seen, facts.split.unseen) == (VOC, list(range(15)), list(range(15, 20)))
    assert (facts.prompt_set, facts.templates) == ('single', ('a photo of a {}',))


def test_classes_may_be_renamed(tiny_configs):
    """Other names for the same masks: mmseg alone would refuse them, or, for VOC, read other labels."""
    config = Config.fromfile(str(tiny_configs['inductive'])).data.test
    before = build_dataset(config, {'test_mode': True})
    config.classes = ['airplane', *VOC[1:17], 'sofa, couch', *VOC[18:19], 'tv']
    after = build_dataset(config, {'test_mode': True})
    assert [after.CLASSES[index] for index in after.facts.split.unseen] == [*VOC[15:17], 'sofa, couch', 'train', 'tv']
    assert after.CLASSES == tuple(config.classes) and after.PALETTE == before.PALETTE
    assert np.array_equal(after.true_labels(1), before.true_labels(1))
    scores = after.evaluate([np.where(after.true_labels(index) == 255, 0, after.true_labels(index))
                             for index in range(len(after))])
    assert scores['mIoU'] == 1 and 'IoU.sofa, couch' in scores


def test_colours_of_a_dataset_without_a_palette(tmp_path):
    Image.new('RGB', (4, 4)).save(tmp_path / '1.jpg')
    first, again = (ZeroShotDataset(pipeline=[], img_dir=str(tmp_path), classes=['a', 'b'], test_mode=True)
                    for _ in range(2))
    assert first.PALETTE == again.PALETTE and len(set(map(tuple, first.PALETTE))) == 2


# ---- scores

def raw_mask(dataset: PascalVOC20, index: int) -> np.ndarray:
    return np.asarray(Image.open(f'{dataset.ann_dir}/{dataset.img_infos[index]["ann"]["seg_map"]}'))


def random_maps(dataset: PascalVOC20, *, right: float) -> list[np.ndarray]:
    """Random label maps in which a share of the pixels is right; classes 3 and 17 are never predicted."""
    random = np.random.default_rng(5)
    maps = []
    for index in range(len(dataset)):
        truth = raw_mask(dataset, index)
        guess = random.choice([label for label in range(20) if label not in (3, 17)], truth.shape)
        is_right = (random.random(truth.shape) < right) & (truth > 0) & (truth < 255) & ~np.isin(truth, (4, 18))
        maps.append(np.where(is_right, truth.astype(int) - 1, guess).astype(np.uint8))
    return maps


def naive_scores(dataset: PascalVOC20, maps: list[np.ndarray]) -> dict[str, float]:
    """Pixel by pixel, from the files: 0 is background and 255 void, neither counts."""
    confusion = [[0] * 20 for _ in range(20)]
    for index, labels in enumerate(maps):
        for truth, guess in zip(raw_mask(dataset, index).ravel().tolist(), labels.ravel().tolist()):
            if truth not in (0, 255):
                confusion[truth - 1][guess] += 1
    right = [confusion[c][c] for c in range(20)]
    true = [sum(confusion[c]) for c in range(20)]
    guessed = [sum(row[c] for row in confusion) for c in range(20)]

    def ratio(above: int, below: int) -> float:
        return above / below if below else math.nan

    iou = [ratio(right[c], true[c] + guessed[c] - right[c]) for c in range(20)]
    acc = [ratio(right[c], true[c]) for c in range(20)]
    seen, unseen = np.nanmean(iou[:15]), np.nanmean(iou[15:])
    return {'aAcc': sum(right) / sum(true), 'mIoU': np.nanmean(iou), 'mAcc': np.nanmean(acc), 'mIoU_seen': seen,
            'mIoU_unseen': unseen, 'hIoU': 2 * seen * unseen / (seen + unseen),
            **{f'IoU.{name}': value for name, value in zip(VOC, iou)},
            **{f'Acc.{name}': value for name, value in zip(VOC, acc)}}


def test_evaluate_against_a_naive_count(dataset):
    assert {int(label) for index in range(len(dataset)) for label in np.unique(raw_mask(dataset, index))} >= {0, 255}
    maps = random_maps(dataset, right=0.6)
    counts = [part for index, labels in enumerate(maps) for part in dataset.pre_eval(labels, index)]
    scores = dataset.evaluate(counts, logger='silent')
    np.testing.assert_equal(scores, dataset.evaluate(maps, logger='silent'))
    naive = naive_scores(dataset, maps)
    assert list(scores) == list(naive)
    assert any(math.isnan(value) for value in scores.values()), 'no class is absent: the case is too easy'
    for name, value in scores.items():
        assert type(value) is float, name
        assert value == pytest.approx(naive[name], abs=5.1e-5, nan_ok=True), name
        assert math.isnan(value) or value == round(value, 4), name
    assert 0 < scores['hIoU'] < 1


def test_counts_are_small_and_exact(dataset):
    """Tensors of mmseg's, kept over 3,000 images, kept 600 MB beside them from being used again."""
    counts = dataset.pre_eval(dataset.true_labels(0), 0)[0]
    assert [(type(area), area.dtype, area.base, area.shape) for area in counts] == \
        [(np.ndarray, np.int64, None, (len(VOC),))] * 4


def test_sums_are_exact(dataset):
    """2**24 + 1 is 2**24 in float32, in which mmseg adds up."""
    first, zero = np.eye(len(VOC), dtype=np.int64)[0], np.zeros(len(VOC), dtype=np.int64)
    counts = [(first * 2**24,) * 4] + [(zero, first, zero, first)] * 10_000
    scores = dataset.evaluate(counts, logger='silent')
    assert scores['IoU.aeroplane'] == round(2**24 / (2**24 + 10_000), 4) == 0.9994


def test_the_table_names_the_side_of_every_class(dataset, caplog):
    logger = logging.getLogger('test of the table')
    with caplog.at_level(logging.INFO):
        scores = dataset.evaluate(random_maps(dataset, right=0.5), logger=logger)
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in caplog.text.splitlines()
             if line.startswith('|')]
    assert [row[:2] for row in cells[1:21]] == [[name, 'seen' if index < 15 else 'unseen']
                                                for index, name in enumerate(VOC)]
    for name, value in ((name.replace('mIoU ', 'mIoU_'), row[1]) for name, *row in cells[21:]):
        assert float(value) == pytest.approx(scores[name], abs=1e-4)


@pytest.mark.parametrize(('seen', 'unseen', 'harmonic'), [
    (0.5, 0., 0.), (0., 0., 0.), (0.5, math.nan, math.nan), (math.nan, 0., math.nan), (0., math.nan, math.nan)])
def test_harmonic_mean(seen, unseen, harmonic):
    assert harmonic_mean(seen, unseen) == pytest.approx(harmonic, nan_ok=True)


def test_without_unseen_classes_there_is_no_unseen_score():
    scores = zero_shot_scores(np.array([0.5, 0.7]), [0, 1], [])
    assert scores == pytest.approx({'mIoU_seen': 0.6, 'mIoU_unseen': math.nan, 'hIoU': math.nan}, nan_ok=True)


def test_training_reads_train_and_aug(tiny_configs):
    train = build_dataset(Config.fromfile(str(tiny_configs['inductive'])).data.train)
    assert len(train) == 8
    labels = train[6]['gt_semantic_seg'].data.unique().tolist()
    assert set(labels) <= {*range(20), 255} and 255 in labels and len(labels) > 1
