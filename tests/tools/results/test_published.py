"""Published rows: each once, under a known protocol, and their hIoU follows from their mIoUs."""
from collections import Counter

import pytest

from datasets.metrics import harmonic_mean
from models.training_labels import Setting
from tools.results import published
from tools.results.leaves import CROSS_DATASET, leaves

OWN = {name: leaf.config.published for name, leaf in leaves().items() if 'published' in leaf.config}


@pytest.mark.parametrize('row', published.ROWS, ids=lambda row: f'{row.method} {row.protocols[0]} {row.setting}')
def test_a_row(row):
    assert set(row.protocols) <= set(published.PROTOCOLS)
    assert row.setting in {*(setting.value for setting in Setting), CROSS_DATASET}
    scores = [getattr(row, name) for name in published.SCORES]
    bounds = [float(bound) for score in scores if score is not None for bound in str(score).split(' to ')]
    assert bounds and bounds == [round(bound, 1) for bound in bounds] and 1 < min(bounds) <= max(bounds) < 100
    if row.mIoU_seen is not None and row.mIoU_unseen is not None:
        agrees = abs(harmonic_mean(row.mIoU_seen, row.mIoU_unseen) - row.hIoU) <= 0.1
        assert agrees != (row.note == published.DISAGREES), 'the note is there exactly where it is needed'


def test_rows_checkpoints_and_protocols():
    counts = Counter((row.method, row.setting, protocol) for row in published.ROWS for protocol in row.protocols)
    assert max(counts.values()) == 1
    assert set(published.OFFICIAL) == {name for name, row in OWN.items() if len(row) == 4}
    assert {leaf.protocol for leaf in leaves().values()} - {None} == set(published.PROTOCOLS)


@pytest.mark.parametrize('name', OWN)
def test_own_rows_in_the_configs(name):
    row = OWN[name]
    assert set(row) <= {*published.SCORES, 'note'}
    if len(row) == 4:
        assert harmonic_mean(row.mIoU_seen, row.mIoU_unseen) == pytest.approx(row.hIoU, abs=0.1)
