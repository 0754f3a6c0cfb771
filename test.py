#!/usr/bin/env python3
"""Tests a checkpoint: `python test.py CONFIG CHECKPOINT --eval mIoU`. Needs no CLIP file and no embedding file.

Ends with one table, and the scores as JSON in --work-dir or in eval_results/ beside the checkpoint.
"""
import argparse
import json
import math
import os
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent)  # this repository's `datasets`, whoever else has one
import mmcv
import numpy as np
import torch
from mmcv import DictAction
from mmseg.utils import get_root_logger

from datasets import SeveralDatasets, ZeroShotDataset
from datasets.metrics import METRICS, check_metrics
from models import plugins
from models.errors import UserError
from models.weights import files, metadata
from tools.engine import hang, process
from tools.engine.build import (
    build_model,
    check_classes,
    give_text_embeddings,
    load_weights,
    own_modules,
    warn_of_other_parts,
)
from tools.engine.config import add_config_arguments, dataset_configs, load_config
from tools.engine.data import evaluation_dataset, evaluation_loader
from tools.engine.evaluation import collect, predict
from tools.engine.panels import result_image
from tools.results.leaves import CROSS_DATASET


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test a CLIP-RC checkpoint.')
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint of ours or an official one')
    process.add_launch_arguments(parser)
    hang.add_argument(parser)
    parser.add_argument('--work-dir', help='folder for the JSON of the scores')
    parser.add_argument('--eval', nargs='+', metavar='METRIC', help=f'what to score: {", ".join(METRICS)}')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the label maps, a list of arrays, as a pickle')
    parser.add_argument('--format-only', action='store_true',
                        help='write label maps as PNG files with the dataset\'s own ids, for a test server')
    parser.add_argument('--eval-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE',
                        help='imgfile_prefix=DIR: where --format-only writes')
    parser.add_argument('--show', action='store_true', help='open each result in the image viewer')
    parser.add_argument('--show-dir', metavar='DIR', help='write an image of each result')
    parser.add_argument('--opacity', type=float, default=0.5,
                        help='of the class colours in images, in (0, 1] (default: 0.5)')
    parser.add_argument('--aug-test', action='store_true', help='average six scales and their mirror images')
    parser.add_argument('--gpu-id', type=int, help='without a launcher: the GPU to test on')
    parser.add_argument('--gpu-collect', action='store_true', help='several GPUs: collect the results on GPUs')
    parser.add_argument('--tmpdir', help='several processes: the folder through which results are collected')
    args = parser.parse_args()
    if not (args.eval or args.out or args.format_only or args.show or args.show_dir):
        raise UserError('nothing to do with the results: use --eval mIoU, --out, --format-only, --show or --show-dir.')
    if args.eval and args.format_only:
        raise UserError('--eval and --format-only exclude each other.')
    if unknown := {*args.eval_options} - {'imgfile_prefix'}:
        raise UserError(f'--eval-options {" ".join(sorted(unknown))}: there is imgfile_prefix alone.')
    check_metrics(args.eval or [])
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {args.out}: the name must end in .pkl or .pickle.')
    if not 0 < args.opacity <= 1:
        raise UserError(f'--opacity {args.opacity} is not in (0, 1].')
    return args


def draw(dataset: ZeroShotDataset | SeveralDatasets, index: int, labels: np.ndarray, args: argparse.Namespace) -> None:
    """Writes and shows the image of one result."""
    part, dataset, index = dataset.locate(index)
    drawn = result_image(dataset.image(index), dataset.true_labels(index), labels, split=dataset.facts.split,
                           palette=dataset.PALETTE, opacity=args.opacity)
    if args.show_dir:
        name = Path(dataset.img_infos[index]['filename']).with_suffix('.png')
        file = Path(args.show_dir) / part / name
        file.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(file)
    if args.show:
        drawn.show()


def write_scores(scores: dict[str, float], tested: dict, args: argparse.Namespace, folder: Path) -> Path:
    """JSON with what was tested and the scores; a score that does not exist is null."""
    stem = f'eval_{"multi" if args.aug_test else "single"}_scale_{time.strftime("%Y%m%d_%H%M%S")}'
    metric = {name: None if math.isnan(value) else value for name, value in scores.items()}
    for number in count(1):
        file = folder / f'{stem}{f"_{number}" if number > 1 else ""}.json'
        with suppress(FileExistsError), file.open('x') as stream:  # another test's, that ended in the same second
            stream.write(json.dumps({**tested, 'metric': metric}, indent=1) + '\n')
            return file


def main() -> None:
    args = parse_arguments()
    config = load_config(args)
    place = process.start(args, args.gpu_id)
    checkpoint = files.read(args.checkpoint)
    folder = process.make_folder(args.work_dir or Path(args.checkpoint).absolute().parent / 'eval_results')
    prefix = args.eval_options.get('imgfile_prefix', str(folder / 'format_results'))
    for place_for_results in [args.show_dir, args.out and Path(args.out).parent, args.format_only and prefix]:
        if place_for_results:
            process.make_folder(place_for_results)
    logger = get_root_logger(log_level=config.get('log_level', 'INFO'))
    torch.backends.cudnn.benchmark = config.get('cudnn_benchmark', False)
    if args.aug_test:
        for settings in dataset_configs(config.data.test):
            settings.pipeline[1].update(img_ratios=[0.5, 0.75, 1.0, 1.25, 1.5, 1.75], flip=True)
    dataset = evaluation_dataset(config, 'test', scored=bool(args.eval))

    model = build_model(config, checkpoint)
    check_classes(checkpoint, config)
    load_weights(model, checkpoint)
    give_text_embeddings(model, config, checkpoint)
    trained_in = checkpoint.meta.get('clip_rc', {}).get('setting', model.setting.value)
    if trained_in != model.setting.value and not config.get('cross_dataset'):
        logger.warning('the checkpoint was trained in the %s setting, the config is %s', trained_in,
                       model.setting.value)
    warn_of_other_parts(checkpoint, config)
    model.CLASSES, model.PALETTE = dataset.CLASSES, dataset.PALETTE
    logger.info('%s; %d images, %d classes, %d of them unseen', place, len(dataset), len(dataset.CLASSES),
                len(dataset.facts.split.unseen))

    hang.Watchdog(place, args.hang_timeout, ends=args.end_on_hang)
    parts, label_maps = [], []
    loader = evaluation_loader(config, dataset, place)
    for index, labels in predict(process.wrap(model, place), loader, place):
        if args.eval:
            parts += dataset.pre_eval(labels, index)
        if args.out:
            label_maps.append(labels)
        if args.format_only:
            dataset.format_results([labels], prefix, indices=[index])
        if args.show or args.show_dir:
            draw(dataset, index, labels, args)
    through = Path(args.tmpdir or folder)
    if args.eval:
        parts = collect(parts, len(dataset), place, through, on_gpu=args.gpu_collect)
    if args.out:
        label_maps = collect(label_maps, len(dataset), place, through, on_gpu=args.gpu_collect)
    if place.rank != 0:
        return
    if args.out:
        mmcv.dump(label_maps, args.out)
        logger.info('label maps: %s', args.out)
    if args.format_only:
        logger.info('label files: %s', prefix)
    if args.eval:
        scores = dataset.evaluate(parts, metric=args.eval, logger=logger)
        tested = {'config': args.config, 'checkpoint': os.path.realpath(args.checkpoint),  # latest.pth is a link
                  'iteration': metadata.iterations_done(checkpoint), 'data_root': dataset.data_root,
                  'images': len(dataset), 'protocol': config.get('protocol'),
                  'setting': CROSS_DATASET if config.get('cross_dataset') else trained_in,
                  'own_modules': sorted({*plugins.names(config), *own_modules(checkpoint)}),
                  'trained_parameters': sum(parameter.numel() for parameter in model.trainable_parameters())}
        logger.info('scores: %s', write_scores(scores, tested, args, folder))


if __name__ == '__main__':
    process.run(main)
