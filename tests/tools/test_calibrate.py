"""tools/calibrate.py: one run gives the same scores at every seen penalty as a test at each."""
import csv
from types import SimpleNamespace

import numpy as np
import torch
from mmcv import Config
from mmseg.datasets import build_dataset
from PIL import Image

from tests.conftest import make_voc
from tools.calibrating.seen_penalty import measure
from tools.engine import process
from tools.engine.build import build_model
from tools.engine.data import evaluation_loader

PENALTIES = [0., 0.03, 0.1, 0.4, 1.5]


def test_scores_are_those_of_a_test_at_each_penalty(tiny_configs):
    """mmseg's own test of the whole image, again for every penalty. Scores are random, and smooth: each class wins."""
    config = Config.fromfile(str(tiny_configs['inductive']))
    model = build_model(config)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((1, 20, 6, 6), generator=generator)

    def decode(img):
        scores = torch.nn.functional.interpolate(coarse, size=img.shape[2:], mode='bilinear')
        scores = scores + img.mean(dim=1, keepdim=True) * torch.linspace(-0.1, 0.1, 20)[:, None, None]
        return SimpleNamespace(logits=scores.clamp(1e-3, 1 - 1e-3).logit())

    model.extract_feat, model.decode_head.forward = lambda img: img, decode
    dataset = build_dataset(config.data.test, {'test_mode': True})
    place = process.Place(torch.device('cpu'))
    loader = evaluation_loader(config, dataset, place)
    head, expected = model.decode_head.class_head, []
    for penalty in PENALTIES:
        head.penalty.zero_()
        head.penalty[head.seen] = penalty
        labels = []
        for batch in loader:
            with torch.no_grad():
                labels += process.wrap(model, place).eval()(return_loss=False, **batch)
        scores = dataset.evaluate(labels)
        expected.append([scores[f'IoU.{name}'] for name in dataset.CLASSES])
    found = measure(model, loader, PENALTIES)
    assert np.allclose(np.array(found), np.array(expected), atol=1e-3, equal_nan=True)
    assert np.nanmax(np.abs(np.array(expected[0]) - expected[2])) > 0.01, 'the penalty changes nothing: too easy'
    assert np.nanmax(np.array(expected[-1])[head.seen.tolist()]) == 0, 'a huge penalty leaves seen classes'


def test_the_command(output, trained, tiny_configs, tmp_path):
    said = output('tools/calibrate.py', tiny_configs['inductive'], trained / 'latest.pth', '--out', tmp_path / 'new',
               '--penalties', 0, 0.05, 0.4)
    assert "0.1 (the config's" in said and 'best hIoU' in said
    with Image.open(tmp_path / 'new/seen_penalty.png') as image:
        assert image.width > 400
    with (tmp_path / 'new/seen_penalty.csv').open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row['seen_penalty'] for row in rows] == ['0.0', '0.05', '0.1', '0.4']
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in ('mIoU_seen', 'mIoU_unseen', 'hIoU'))


def test_nothing_to_balance(fails, trained, tiny_configs):
    assert 'every class of this config counts as seen' in fails(
        'tools/calibrate.py', tiny_configs['fully'], trained / 'latest.pth')


def test_images_without_an_unseen_class(output, tiny_configs, trained, tmp_path):
    """No penalty is called the best where there is no hIoU."""
    root = make_voc(tmp_path / 'VOC2012')
    for path in (root / 'SegmentationClass').glob('val_*.png'):
        mask = np.array(Image.open(path))
        Image.fromarray(np.where((mask > 15) & (mask < 255), 255, mask).astype(np.uint8)).save(path)
    said = output('tools/calibrate.py', tiny_configs['inductive'], trained / 'latest.pth', '--data-root', root,
               '--penalties', '-2', '--out', tmp_path)
    row = next(line for line in said.splitlines() if line.startswith('|') and ' -2' in line)
    assert row.split('|')[3].strip() == row.split('|')[4].strip() == '-', 'at -2 only seen classes are predicted'
    assert 'too few classes' in said and '-2 (best' not in said and 'nan' not in said
