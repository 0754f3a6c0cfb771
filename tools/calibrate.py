#!/usr/bin/env python3
"""What the seen penalty does to a checkpoint's scores: `python tools/calibrate.py CONFIG CHECKPOINT`.

A model that never saw the masks of some classes prefers the others; the published remedy subtracts 0.1 from the scores
of seen classes (`model.decode_head.class_head.seen_penalty`). Here one test run scores a whole range of penalties. Ends
with a table, and writes it as CSV and as a plot. To choose a penalty, use images that you do not report scores on.
"""
import argparse
import csv
import math
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, whoever else has one
import matplotlib

matplotlib.use('Agg')
import numpy as np
import torch
from matplotlib import pyplot as plt
from mmseg.utils import get_root_logger
from prettytable import PrettyTable
from torch import Tensor, nn

from datasets.metrics import fraction, zero_shot_scores
from models import CLIPRC
from models.errors import UserError
from models.training_labels import Setting
from models.weights import files
from tools.engine import process
from tools.engine.build import build_model, check_classes, give_text_embeddings, load_weights
from tools.engine.config import add_config_arguments, load_config
from tools.engine.data import evaluation_dataset, evaluation_loader
from tools.engine.progress import Progress

SCORES = ('mIoU_seen', 'mIoU_unseen', 'hIoU')


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Score a checkpoint over a range of seen penalties.')
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint of ours or an official one')
    parser.add_argument('--penalties', type=float, nargs='+', default=[round(0.02 * step, 2) for step in range(21)],
                        help='(default: 0 to 0.4 in steps of 0.02)')
    parser.add_argument('--out', metavar='PREFIX', help='PREFIX.csv and PREFIX.png are written (default: '
                                                        'seen_penalty in calibration/ beside the checkpoint)')
    process.add_launch_arguments(parser)
    args = parser.parse_args()
    if not all(map(math.isfinite, args.penalties)):
        raise UserError('--penalties: numbers are needed.')
    if args.launcher != 'none':
        raise UserError('one process is enough: no --launcher.')
    return args


class BestOfEachSide(nn.Module):
    """A model's scores without penalty, of which the best seen and the best unseen class of a pixel is all that counts:
    the penalty decides between them."""

    def __init__(self, model: CLIPRC):
        super().__init__()
        self.model = model
        model.decode_head.class_head.penalty.zero_()

    def forward(self, img: list[Tensor], img_metas: list[list[dict]], return_loss: bool = False
                ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """An image (1, 3, H, W) -> scores and classes of the best seen and of the best unseen ones, each (H, W)."""
        infer = self.model.slide_inference if self.model.test_cfg.mode == 'slide' else self.model.whole_inference
        scores = infer(img[0], img_metas[0], True)[0]  # (C, H, W)
        head = self.model.decode_head.class_head
        seen, seen_class = scores[head.seen].max(dim=0)
        unseen, unseen_class = scores[head.unseen].max(dim=0)
        return seen, head.seen[seen_class], unseen, head.unseen[unseen_class]


def measure(model: nn.Module, loader, penalties: list[float]) -> list[np.ndarray]:
    """IoU (C,) of each class, as fractions, at each penalty."""
    model.eval()
    dataset = loader.dataset
    totals = [None] * len(penalties)
    with Progress(0, len(dataset), 'images') as progress:
        for index, batch in enumerate(loader):
            with torch.no_grad():
                seen, seen_class, unseen, unseen_class = (part.cpu().numpy()
                                                          for part in model(return_loss=False, **batch))
            for place, penalty in enumerate(penalties):
                labels = np.where(seen - penalty >= unseen, seen_class, unseen_class)
                areas = dataset.pre_eval(labels, index)[0][:2]  # intersection and union of each class
                totals[place] = areas if totals[place] is None else [
                    old + new for old, new in zip(totals[place], areas)]
            progress.update(index + 1)
    with np.errstate(invalid='ignore'):  # a class that neither has is nan
        return [intersection / union for intersection, union in totals]


def plot(rows: dict[float, dict[str, float]], published: float, file: Path) -> None:
    """The scores against the penalty, in fraction."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout='constrained')
    for name, colour in zip(SCORES, ('tab:blue', 'tab:orange', 'black')):
        axes.plot(list(rows), [100 * scores[name] for scores in rows.values()], marker='o', markersize=3, color=colour,
                  label=name.replace('_', ' '))
    axes.axvline(published, color='grey', linestyle=':', label=f"the config's, {published:g}")
    axes.set_xlabel('subtracted from the scores of seen classes')
    axes.set_ylabel('fraction')
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    args = parse_arguments()
    config = load_config(args)
    place = process.start(args)
    checkpoint = files.read(args.checkpoint)
    prefix = Path(args.out or Path(args.checkpoint).absolute().parent / 'calibration/seen_penalty')
    process.make_folder(prefix.absolute().parent)
    logger = get_root_logger(log_level=config.get('log_level', 'INFO'))
    dataset = evaluation_dataset(config, 'test', scored=True)
    split = dataset.facts.split
    model = build_model(config, checkpoint)
    if not len(model.decode_head.class_head.unseen):
        raise UserError('every class of this config counts as seen (fully supervised, or cross-dataset): there is '
                        'nothing to weigh against each other.')
    check_classes(checkpoint, config)
    load_weights(model, checkpoint)
    give_text_embeddings(model, config, checkpoint)
    used = 0. if model.setting is Setting.TRANSDUCTIVE else model.decode_head.class_head.seen_penalty
    penalties = sorted({*args.penalties, used})
    loader = evaluation_loader(config, dataset, place)
    rows = {penalty: zero_shot_scores(iou, split.seen, split.unseen) for penalty, iou in zip(
        penalties, measure(process.wrap(BestOfEachSide(model), place), loader, penalties))}

    table = PrettyTable(['seen penalty', *(name.replace('_', ' ') for name in SCORES)])
    table.align = 'r'
    scored = [penalty for penalty in rows if not math.isnan(rows[penalty]['hIoU'])]
    best = max(scored, key=lambda penalty: rows[penalty]['hIoU']) if scored else None
    if len(scored) < len(rows):
        logger.warning('these images hold too few classes: where no seen or no unseen class is in truth or '
                       'prediction, there is no hIoU')
    for penalty, scores in rows.items():
        marks = {"the config's": used, 'best hIoU': best}
        said = ', '.join(word for word, marked in marks.items() if marked == penalty)
        table.add_row([f'{penalty:g}{f" ({said})" if said else ""}', *(fraction(scores[name]) for name in SCORES)])
    logger.info('\n%s', table)
    with prefix.with_name(f'{prefix.name}.csv').open('w', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow(['seen_penalty', *SCORES])
        writer.writerows([penalty, *(round(scores[name], 4) for name in SCORES)] for penalty, scores in rows.items())
    image = prefix.with_name(f'{prefix.name}.png')
    plot(rows, used, image)
    logger.info('table: %s.csv; plot: %s', prefix, image)
    if best not in (None, used) and model.setting is not Setting.TRANSDUCTIVE:  # which has no penalty to set
        logger.info('to use the best: --cfg-options model.decode_head.class_head.seen_penalty=%g', best)


if __name__ == '__main__':
    process.run(main)
