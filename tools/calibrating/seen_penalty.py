"""Scores of a checkpoint at many seen penalties, from one test run."""
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.metrics import OF_SPLITS
from models import CLIPRC


class BestOfEachSide(nn.Module):
    """Finds each pixel's best seen and best unseen class, without penalty: any penalty decides between these two."""

    def __init__(self, model: CLIPRC):
        super().__init__()
        self.model = model
        model.class_head.penalty.zero_()

    def forward(self, img: list[Tensor], img_metas: list[list[dict]], return_loss: bool = False
                ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Image (1, 3, H, W) -> scores and classes of the best seen and of the best unseen class, each (H, W)."""
        scores = self.model.slide_inference(img[0], img_metas[0], True)[0]  # (C, H, W); windows or whole
        head = self.model.class_head
        seen, seen_class = scores[head.seen].max(dim=0)
        unseen, unseen_class = scores[head.unseen].max(dim=0)
        return seen, head.seen[seen_class], unseen, head.unseen[unseen_class]


@torch.no_grad()
def measure(model: nn.Module, loader: DataLoader, penalties: list[float]) -> list[np.ndarray]:
    """Compute the IoU of each class, (C,) as fractions, at each penalty."""
    model.eval()
    dataset = loader.dataset
    areas = np.zeros((len(penalties), 2, len(dataset.CLASSES)), dtype=np.int64)  # intersection, union of each class
    for index, batch in enumerate(tqdm(loader, unit='image', disable=None)):
        seen, seen_class, unseen, unseen_class = (part.cpu().numpy() for part in model(return_loss=False, **batch))
        for place, penalty in enumerate(penalties):
            labels = np.where(seen - penalty >= unseen, seen_class, unseen_class)
            areas[place] += dataset.pre_eval(labels, index)[0][:2]
    with np.errstate(invalid='ignore'):  # nan for a class that is neither in the truth nor predicted
        return list(areas[:, 0] / areas[:, 1])


def plot(rows: dict[float, dict[str, float]], configured: float, file: Path) -> None:
    """Plot the scores against the penalty."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout='constrained')
    for name, colour in zip(OF_SPLITS, ('tab:blue', 'tab:orange', 'black')):
        axes.plot(list(rows), [scores[name] for scores in rows.values()], marker='o', markersize=3, color=colour,
                  label=name.replace('_', ' '))
    axes.axvline(configured, color='grey', linestyle=':', label=f"the config's, {configured:g}")
    axes.set_xlabel('subtracted from the scores of seen classes')
    axes.set_ylabel('score')
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)
    plt.close(figure)
