"""Scores of generalised zero-shot segmentation as pure functions, and their table."""
from collections.abc import Mapping, Sequence

import numpy as np
from prettytable import PrettyTable

from models.errors import UserError

from .class_split import ClassSplit

METRICS = ('mIoU', 'mDice', 'mFscore')
OF_SPLITS = ('mIoU_seen', 'mIoU_unseen', 'hIoU')


def check_metrics(metrics: str | Sequence[str]) -> list[str]:
    """Return the metrics as a list.

    Raises:
        UserError: one is unknown.
    """
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise UserError(f'unknown metric {", ".join(unknown)}; there are {", ".join(METRICS)}.')
    return metrics


def areas(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> tuple[np.ndarray, ...]:
    """Count the pixels of each class in two label maps (H, W): (C,) int64 of intersection, union, prediction, truth.

    Pixels whose truth is not a class index do not count.
    """
    labelled = truth < num_classes
    prediction, truth = prediction[labelled], truth[labelled]
    shared, predicted, true = (np.bincount(labels, minlength=num_classes)
                               for labels in (truth[prediction == truth], prediction, truth))
    return shared, predicted + true - shared, predicted, true


def mean_of(values: np.ndarray, indices: Sequence[int]) -> float:
    """Average the values at `indices`; classes in neither truth nor prediction (nan) do not count."""
    chosen = np.asarray(values, dtype=float)[list(indices)]
    chosen = chosen[~np.isnan(chosen)]
    return float(chosen.mean()) if len(chosen) else float('nan')


def harmonic_mean(seen: float, unseen: float) -> float:
    """Return 2 S U / (S + U), or 0 where both are 0 (Xian et al. 2017)."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.


def zero_shot_scores(iou: np.ndarray, seen: Sequence[int], unseen: Sequence[int]) -> dict[str, float]:
    """Average IoU per class (C,), fractions, over seen and over unseen classes, and take their harmonic mean.

    Without unseen classes the last two are nan.
    """
    on_seen, on_unseen = mean_of(iou, seen), mean_of(iou, unseen)
    return dict(zip(OF_SPLITS, (on_seen, on_unseen, harmonic_mean(on_seen, on_unseen)), strict=True))


def score_table(scores: Mapping[str, float], per_class: Mapping[str, np.ndarray], split: ClassSplit) -> str:
    """Lay out the values of each class, with its side of the split, then the summary: fractions, as in logs and JSON.

    Args:
        scores: summary by name, fractions.
        per_class: (C,) fractions by name.
    """
    unseen = split.unseen
    table = PrettyTable(['class', *(['side'] if unseen else []), *per_class])
    table.align = 'r'
    table.align['class'] = 'l'
    for index, label in enumerate(split.names):
        side = ['unseen' if index in unseen else 'seen'] if unseen else []
        table.add_row([label, *side, *(fraction(values[index]) for values in per_class.values())],
                      divider=index == len(split.names) - 1)
    blank = [''] * (len(per_class) - 1)
    for name, value in scores.items():
        if unseen or name not in OF_SPLITS:
            table.add_row([name.replace('_', ' '), *([''] if unseen else []), fraction(value), *blank])
    return table.get_string()


def fraction(value: float) -> str:
    """Format a score with four digits; '-' for nan."""
    return '-' if np.isnan(value) else f'{value:.4f}'
