"""Scores of generalised zero-shot segmentation, as pure functions."""
from collections.abc import Sequence

import numpy as np


def areas(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> tuple[np.ndarray, ...]:
    """Label maps (H, W) -> pixels (C,) int64 of intersection, union, prediction and truth of each class.

    Pixels whose truth is no class index do not count.
    """
    labelled = truth < num_classes
    prediction, truth = prediction[labelled], truth[labelled]
    shared, predicted, true = (np.bincount(labels, minlength=num_classes)
                               for labels in (truth[prediction == truth], prediction, truth))
    return shared, predicted + true - shared, predicted, true


def mean_of(values: np.ndarray, indices: Sequence[int]) -> float:
    """Mean of the values at `indices`; classes that neither truth nor prediction holds (nan) do not count."""
    chosen = np.asarray(values, dtype=float)[list(indices)]
    chosen = chosen[~np.isnan(chosen)]
    return float(chosen.mean()) if len(chosen) else float('nan')


def harmonic_mean(seen: float, unseen: float) -> float:
    """2 S U / (S + U), 0 where both are 0 (Xian et al. 2017)."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.


def zero_shot_scores(iou: np.ndarray, seen: Sequence[int], unseen: Sequence[int]) -> dict[str, float]:
    """Per-class IoU (C,) as fractions -> mIoU over the seen classes, over the unseen ones, their harmonic mean.

    Without unseen classes the last two are nan.
    """
    on_seen, on_unseen = mean_of(iou, seen), mean_of(iou, unseen)
    return {'mIoU_seen': on_seen, 'mIoU_unseen': on_unseen, 'hIoU': harmonic_mean(on_seen, on_unseen)}
