"""Scores of a checkpoint at many seen penalties, from one test run."""
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.metrics import OF_SPLITS
from models import CLIPRC
from models.colours import BOTH, SEEN, UNSEEN
from tools.engine.plots import plot


@torch.no_grad()
def measure(model: CLIPRC, loader: DataLoader, penalties: list[float]) -> list[np.ndarray]:
    """Compute the IoU of each class, (C,) as fractions, at each penalty; sets the model's own penalty to 0.

    Any penalty decides between the best seen and the best unseen class of a pixel.
    """
    dataset, head = loader.dataset, model.eval().class_head
    head.penalty.zero_()
    areas = np.zeros((len(penalties), 2, len(dataset.CLASSES)), dtype=np.int64)  # intersection, union of each class
    for index, batch in enumerate(tqdm(loader, unit='image', disable=None)):
        image = batch['img'][0].to(head.penalty.device)  # (1, 3, H, W)
        scores = model.slide_inference(image, batch['img_metas'][0].data[0], True)[0]  # (C, H, W); windows or whole
        seen, unseen = scores[head.seen].max(dim=0), scores[head.unseen].max(dim=0)
        for place, penalty in enumerate(penalties):
            labels = torch.where(seen.values - penalty >= unseen.values, head.seen[seen.indices],
                                 head.unseen[unseen.indices]).cpu().numpy()
            areas[place] += dataset.pre_eval(labels, index)[0][:2]
    with np.errstate(invalid='ignore'):  # nan for a class that is neither in the truth nor predicted
        return list(areas[:, 0] / areas[:, 1])


def draw(rows: dict[float, dict[str, float]], configured: float, file: Path) -> None:
    """Plot the scores against the penalty."""
    with plot(file, (7, 4.5)) as figure:
        axes = figure.subplots()
        for name, colour in zip(OF_SPLITS, (SEEN, UNSEEN, BOTH)):
            axes.plot(list(rows), [scores[name] for scores in rows.values()], marker='o', color=colour,
                      label=name.replace('_', ' '))
        axes.axvline(configured, color='grey', linestyle=':', label=f"the config's, {configured:g}")
        axes.set(xlabel='subtracted from the scores of seen classes', ylabel='score')
        axes.legend()
