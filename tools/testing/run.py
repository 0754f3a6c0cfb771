"""One test of a checkpoint, from the command line's arguments to the scores."""
import argparse
import json
import math
import os
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmseg.utils import get_root_logger

from datasets import BY_NAME, DatasetFacts, SeveralDatasets, ZeroShotDataset
from datasets.class_split import BACKGROUND
from datasets.files import first
from datasets.metrics import check_metrics
from datasets.overlap import known_classes
from models import plugins
from models.errors import UserError
from models.weights import files, metadata
from tools.engine import hang, process
from tools.engine.build import embedding_file, trained_model, warn_of_other_parts
from tools.engine.config import load_config
from tools.engine.data import evaluation_dataset, evaluation_loader, few, use_several_scales
from tools.engine.downloads import hash_of
from tools.engine.evaluation import collect, predict
from tools.engine.files import make_folder
from tools.engine.panels import side_by_side
from tools.engine.same_test import identity

GROUPS = 'known', 'new'  # of the classes of a test on another dataset: names that the training had or had not


def test(args: argparse.Namespace, place: process.Place | None = None, most: int | None = None) -> None:
    """Test a checkpoint as the command line says.

    Args:
        place: of a process that has joined the others already.
        most: images to test; by default all.
    """
    check_options(args)
    config = load_config(args.config, args.cfg_options, args.data_root)
    place = place or process.start(args, timeout=hang.group_timeout(args))
    checkpoint = files.read(args.checkpoint)
    folder = make_folder(args.work_dir or Path(checkpoint.path).absolute().parent / 'eval_results')
    prefix = dict(option.split('=', 1) for option in args.eval_options).get(
        'imgfile_prefix', str(folder / 'format_results'))
    for output in [args.show_dir, args.out and Path(args.out).parent, args.format_only and prefix]:
        if output:
            make_folder(output)
    logger = get_root_logger(log_level=config.get('log_level', 'INFO'))
    torch.backends.cudnn.benchmark = config.get('cudnn_benchmark', False)
    if args.aug_test:
        use_several_scales(config)
    dataset = evaluation_dataset(config, 'test', scored=bool(args.eval))
    dataset = dataset if most is None else few(dataset, most)
    overlap = overlap_with(metadata.training(checkpoint), dataset.facts) if config.get('cross_dataset') else None
    tested = {'config': args.config, 'checkpoint': os.path.realpath(checkpoint.path)}  # latest.pth is a link
    if args.eval and place.rank == 0:
        tested['identity'] = {'checkpoint': hash_of(Path(tested['checkpoint'])), **identity(config, dataset)}

    model = trained_model(config, checkpoint)
    trained_in = checkpoint.meta.get('clip_rc', {}).get('setting', model.setting.value)
    if trained_in != model.setting.value and not config.get('cross_dataset'):
        logger.warning('the checkpoint was trained in the %s setting, the config is %s', trained_in,
                       model.setting.value)
    warn_of_other_parts(checkpoint, config)
    facts = dataset.facts
    model.CLASSES = facts.split.names
    logger.info('%s; %d images, %d classes, %d of them unseen%s', place, len(dataset), len(model.CLASSES),
                len(facts.split.unseen), f', {len(facts.background)} background' if facts.background else '')
    if config.get('cross_dataset'):
        logger.info('%s', in_words(overlap))

    hang.watch(args)
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
    parts = collect(parts, len(dataset), place) if args.eval else []
    label_maps = collect(label_maps, len(dataset), place) if args.out else []
    if place.rank != 0:
        return
    if args.out:
        mmcv.dump(label_maps, args.out)
        logger.info('label maps: %s', args.out)
    if args.format_only:
        logger.info('label files: %s', prefix)
    if args.eval:
        groups = overlap and {name: [facts.scored.names.index(known) for known in overlap[name]] for name in GROUPS}
        scores = dataset.evaluate(parts, metric=args.eval, logger=logger, groups=groups)
        tested |= {'iteration': metadata.iterations_done(checkpoint), 'data_root': dataset.data_root,
                   'images': len(dataset), 'protocol': config.get('protocol'),
                   'prompt_set': None if embedding_file(config) else dataset.facts.prompt_set,
                   'text_embeddings': embedding_file(config), 'background': facts.background,
                   'setting': 'cross_dataset' if config.get('cross_dataset') else trained_in,
                   'unseen_names': facts.scored.unseen_names,
                   'own_modules': sorted({*plugins.names(config), *metadata.own_modules(checkpoint)}),
                   'trained_parameters': sum(parameter.numel() for parameter in model.trainable_parameters()),
                   **({'overlap': overlap} if config.get('cross_dataset') else {})}
        logger.info('scores: %s', write_scores(scores, tested, args, folder))


def overlap_with(training: metadata.Training, facts: DatasetFacts) -> dict | None:
    """Return which scored classes have names that a training used (`known`, with its class), and which do not (`new`).

    Background is neither. Return None if the checkpoint does not say which classes it was trained on.
    """
    used = training.names_used
    if used is None:
        return None
    known = known_classes(facts.scored.names, used)
    dataset = next((cls.__name__ for cls in BY_NAME.values() if [*cls.CLASSES] == [*training.class_names]), None)
    return {'training': {'setting': training.setting, 'dataset': dataset, 'classes': len(training.class_names),
                         'classes_used': len(used)},
            'known': known, 'new': [name for name in facts.scored.names if name not in (*known, BACKGROUND)]}


def in_words(overlap: dict | None) -> str:
    """Write the overlap of a test with the training as a line for the log."""
    if overlap is None:
        return 'the checkpoint does not say which class names it was trained with: which ones are new is unknown'
    known, new = (overlap[name] for name in GROUPS)
    return (f'the training had names of {len(known)} of {len(known) + len(new)} classes; new are '
            f'{first(new) or "none"}')


def check_options(args: argparse.Namespace) -> None:
    """Raise a UserError for options that contradict each other or are unknown."""
    if not (args.eval or args.out or args.format_only or args.show or args.show_dir):
        raise UserError('nothing to do with the results: use --eval mIoU, --out, --format-only, --show or --show-dir.')
    if args.eval and args.format_only:
        raise UserError('--eval and --format-only exclude each other.')
    if unknown := {option.split('=')[0] for option in args.eval_options} - {'imgfile_prefix'}:
        raise UserError(f'--eval-options {" ".join(sorted(unknown))}: only imgfile_prefix is supported.')
    check_metrics(args.eval or [])
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {args.out}: the name must end in .pkl or .pickle.')
    if not 0 < args.opacity <= 1:
        raise UserError(f'--opacity {args.opacity} is not in (0, 1].')


def draw(dataset: ZeroShotDataset | SeveralDatasets, index: int, labels: np.ndarray, args: argparse.Namespace) -> None:
    """Write and show the image of one result."""
    part, dataset, index = dataset.locate(index)
    image, truth = dataset.image(index), dataset.true_labels(index)
    drawn = side_by_side({'image': (image, None), **({} if truth is None else {'truth': (image, truth)}),
                          'prediction': (image, dataset.as_scored(labels))}, dataset, args.opacity)
    if args.show_dir:
        file = Path(args.show_dir) / part / Path(dataset.img_infos[index]['filename']).with_suffix('.png')
        file.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(file)
    if args.show:
        drawn.show()


def write_scores(scores: dict[str, float], tested: dict, args: argparse.Namespace, folder: Path) -> Path:
    """Write the scores and the facts of the test as JSON; a score that does not exist is null."""
    stem = f'eval_{"multi" if args.aug_test else "single"}_scale_{time.strftime("%Y%m%d_%H%M%S")}'
    metric = {name: None if math.isnan(value) else value for name, value in scores.items()}
    for number in count(1):
        file = folder / f'{stem}{f"_{number}" if number > 1 else ""}.json'
        with suppress(FileExistsError), file.open('x') as stream:  # another test may have ended in the same second
            stream.write(json.dumps({**tested, 'metric': metric}, indent=1) + '\n')
            return file
