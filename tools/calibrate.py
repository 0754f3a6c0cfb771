#!/usr/bin/env python3
"""Score a checkpoint over a range of seen penalties: `python tools/calibrate.py CONFIG CHECKPOINT`.

A zero-shot model prefers the classes whose masks it was trained on; the published remedy subtracts 0.1 from their
scores (`model.decode_head.class_head.seen_penalty`). One test run scores all penalties. Ends with a table, and writes
seen_penalty.csv (fractions) and seen_penalty.png. Choose a penalty on images that you do not report scores on.
"""
import argparse
import math
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, before any installed one
from tools.engine.arguments import add_config_arguments, add_launch_arguments
from tools.engine.errors import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Score a checkpoint over a range of seen penalties.')
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint of ours, an official one, or a name of tools/download.py')
    parser.add_argument('--penalties', type=float, nargs='+', default=[round(0.02 * step, 2) for step in range(21)],
                        help='(default: 0 to 0.4 in steps of 0.02)')
    parser.add_argument('--out', metavar='FOLDER',
                        help='for seen_penalty.csv and seen_penalty.png (default: calibration/ beside the checkpoint)')
    add_launch_arguments(parser)
    args = parser.parse_args()
    if not all(map(math.isfinite, args.penalties)):
        parser.error('--penalties: finite numbers are needed.')
    if args.launcher != 'none':
        parser.error('--launcher: calibration runs in one process.')
    return args


def main() -> None:
    args = parse_arguments()
    from mmseg.utils import get_root_logger
    from prettytable import PrettyTable

    from datasets.metrics import OF_SPLITS, fraction, zero_shot_scores
    from models.errors import UserError
    from models.training_labels import Setting
    from models.weights import files
    from tools.calibrating.seen_penalty import draw, measure
    from tools.engine import process
    from tools.engine.build import trained_model
    from tools.engine.config import load_config
    from tools.engine.data import evaluation_dataset, evaluation_loader
    from tools.engine.files import make_folder
    config = load_config(args.config, args.cfg_options, args.data_root)
    place = process.start(args)
    checkpoint = files.read(args.checkpoint)
    folder = make_folder(args.out or Path(checkpoint.path).absolute().parent / 'calibration')
    logger = get_root_logger(log_level=config.get('log_level', 'INFO'))
    dataset = evaluation_dataset(config, 'test', scored=True)
    split = dataset.facts.scored
    model = trained_model(config, checkpoint)
    if not len(model.class_head.unseen):
        raise UserError('every class of this config counts as seen (fully supervised, or cross-dataset): there are no '
                        'unseen classes to balance against.')
    used = 0. if model.setting is Setting.TRANSDUCTIVE else model.class_head.seen_penalty
    penalties = sorted({*args.penalties, used})
    loader = evaluation_loader(config, dataset, place)
    rows = {penalty: zero_shot_scores(iou, split.seen, split.unseen) for penalty, iou in zip(
        penalties, measure(model.to(place.device), loader, penalties))}

    scored = [penalty for penalty in rows if not math.isnan(rows[penalty]['hIoU'])]
    best = max(scored, key=lambda penalty: rows[penalty]['hIoU'], default=None)
    if len(scored) < len(rows):
        logger.warning('these images hold too few classes: without a seen and an unseen class in truth or prediction '
                       'there is no hIoU')
    file, image = folder / 'seen_penalty.csv', folder / 'seen_penalty.png'
    table = PrettyTable(['seen_penalty', *OF_SPLITS], align='r')
    table.add_rows([[penalty, *(round(scores[name], 4) for name in OF_SPLITS)] for penalty, scores in rows.items()])
    file.write_text(table.get_csv_string(lineterminator='\n'))
    marks = {used: " (the config's)"}
    marks[best] = marks.get(best, '') + ' (best hIoU)'
    table.custom_format = {'seen_penalty': lambda _, penalty: f'{penalty:g}{marks.get(penalty, "")}',
                           **dict.fromkeys(OF_SPLITS, lambda _, score: fraction(score))}
    logger.info('\n%s', table)
    draw(rows, used, image)
    logger.info('table: %s; plot: %s', file, image)
    if best not in (None, used) and model.setting is not Setting.TRANSDUCTIVE:  # that setting has no penalty
        logger.info('to use the best: --cfg-options model.decode_head.class_head.seen_penalty=%g', best)


if __name__ == '__main__':
    run(main)
