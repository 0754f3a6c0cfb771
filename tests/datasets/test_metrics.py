"""Scores against a count pixel by pixel, and the prompt sets word by word."""
import math

import numpy as np
import pytest

from datasets.metrics import harmonic_mean, mean_of, zero_shot_scores

NAN = float('nan')


@pytest.mark.parametrize(('values', 'indices', 'mean'), [
    ([0.2, NAN, 0.6], [0, 1, 2], 0.4),  # a class that neither truth nor prediction holds does not count
    ([0.2, 0., 0.6], [0, 1], 0.1),  # one that is missed altogether does
    ([NAN, NAN, 0.6], [0, 1], NAN),
    ([0.2, 0.4, 0.6], [], NAN),
])
def test_mean_leaves_nan_out(values, indices, mean):
    assert mean_of(np.array(values), indices) == pytest.approx(mean, nan_ok=True)


@pytest.mark.parametrize(('seen', 'unseen', 'harmonic'), [
    (0.928, 0.844, 0.884),  # the published row
    (0.5, 0., 0.), (0., 0., 0.), (0.5, NAN, NAN), (NAN, 0., NAN), (0., NAN, NAN)])
def test_harmonic_mean(seen, unseen, harmonic):
    assert harmonic_mean(seen, unseen) == pytest.approx(harmonic, abs=5e-4, nan_ok=True)


def test_without_unseen_classes_there_is_no_unseen_score():
    scores = zero_shot_scores(np.array([0.5, 0.7]), [0, 1], [])
    assert scores['mIoU_seen'] == pytest.approx(0.6)
    assert math.isnan(scores['mIoU_unseen']) and math.isnan(scores['hIoU'])
