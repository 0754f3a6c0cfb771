"""One training run, from the command line's arguments to the last checkpoint."""
import argparse
import logging
import random
import time
from copy import deepcopy
from pathlib import Path

import mmseg
import torch
from mmcv import Config
from mmcv.runner import build_optimizer, set_random_seed
from mmseg.utils import get_root_logger
from torch import nn

from datasets.several import parts_of, warn_of_missing_classes
from models import CLIPRC, plugins
from models.errors import UserError, building
from models.precision import cpu_has, supported, use_deterministic_algorithms
from models.weights import metadata
from models.weights.files import Checkpoint
from tools.engine import checkpoints, hang, process, run_folder, scaled_optimizer  # noqa: F401  registers its hook
from tools.engine.build import common_facts, describe
from tools.engine.config import as_text, load_config
from tools.engine.config_values import require
from tools.engine.data import evaluation_dataset, evaluation_loader, training_loader
from tools.engine.errors import AT_END
from tools.engine.evaluation import Evaluation
from tools.engine.files import lock_folder, make_folder
from tools.engine.runner import TrainingRunner
from tools.training.excerpt import Excerpt
from tools.training.settings import set_batch, set_optimizer_hook
from tools.training.start import check_same_task, images_done, initial_model, starting_point


def training_config(args: argparse.Namespace) -> Config:
    """Load the config of a training.

    Raises:
        UserError: it is not one, or a setting is unknown or invalid.
    """
    config = load_config(args.config, args.cfg_options, args.data_root)
    if config.get('cross_dataset'):
        raise UserError(f'{args.config} tests a model on other classes than those it was trained on: train with a '
                        'config of configs/coco, and test with this one.')
    require(config, args.config, 'runner.max_iters', 'data.samples_per_gpu', 'data.workers_per_gpu', 'optimizer')
    return config


def work_folder(args: argparse.Namespace, config: Config) -> Path:
    return Path(args.work_dir or config.get('work_dir') or f'work_dirs/{Path(args.config).stem}')


def train(args: argparse.Namespace) -> None:
    """Train as the command line says."""
    config = training_config(args)
    place = process.start(args, timeout=hang.group_timeout(args))
    work_dir = make_folder(work_folder(args, config))
    if place.rank == 0:
        AT_END.callback(lock_folder(work_dir, '--work-dir', patience=120).close)
    run(args, config, place, work_dir)


def run(args: argparse.Namespace, config: Config, place: process.Place, work_dir: Path, excerpt: Excerpt | None = None
        ) -> None:
    """Train in a folder that this process has locked.

    Args:
        config: from `training_config`; it is changed.
        excerpt: ends the run early, for a smoke test.
    """
    timestamp = time.strftime('%Y%m%d_%H%M%S')
    logger = get_root_logger(log_file=str(work_dir / f'{timestamp}.log'), log_level=config.get('log_level', 'INFO'))
    for handler in logger.handlers:
        handler.stream.reconfigure(errors='backslashreplace')  # of paths that are not UTF-8
    checkpoint, resumes = starting_point(args, config, work_dir, place, logger)
    done = metadata.iterations_done(checkpoint) if resumes else 0
    config.seed = seed = choose_seed(args, config, checkpoint if resumes else None, place, logger)
    config.work_dir = str(work_dir)
    torch.backends.cudnn.benchmark = config.get('cudnn_benchmark', False)
    if args.deterministic:
        use_deterministic_algorithms()
    set_random_seed(seed)
    logger.info('%s; torch %s, mmseg %s; seed %d', place, torch.__version__, mmseg.__version__, seed)
    as_given = deepcopy(config)  # the config that this run writes down: with the same options it repeats this run
    batch = set_batch(config, place.world_size, args.total_batch_size, logger)
    images = images_done(checkpoint, batch, logger) if resumes else 0

    loader = training_loader(config, place, seed, images)
    evaluation = None if args.no_validate else evaluation_hook(config, place, excerpt)
    model = initial_model(config, checkpoint)
    model.CLASSES = common_facts(config).split.names
    if checkpoint is not None:
        logger.info('weights: %s', checkpoint.path)
    as_given.model = deepcopy(config.model)  # now with the sizes of its CLIP
    description = describe(model, as_given)
    if resumes:
        check_same_task(checkpoint, description)
    seen = model.decode_head.class_head.seen.tolist()
    logger.info('setting: %s; %d of %d classes seen; %.2fM trainable of %.2fM parameters', model.setting.value,
                len(seen), len(model.CLASSES), sum(each.numel() for each in model.trainable_parameters()) / 1e6,
                sum(each.numel() for each in model.parameters()) / 1e6)
    if place.rank == 0:
        warn_of_missing_classes(list(parts_of(loader.dataset.dataset)), seen, logger)
    set_precision(config, model, place, logger)

    meta = {'CLASSES': list(model.CLASSES), 'seed': seed, 'mmseg_version': mmseg.__version__,
            'hook_msgs': checkpoint.meta.get('hook_msgs', {}) if resumes else {}}  # the best score so far
    wrapped = process.wrap(model, place, find_unused_parameters=bool(config.get('find_unused_parameters')))
    set_random_seed(seed + place.rank + done)  # each process has its own dropout
    runner = build_runner(config, wrapped, place, batch, work_dir=str(work_dir), logger=logger, meta=meta)
    runner.timestamp = timestamp
    if evaluation is not None:
        runner.register_hook(evaluation, priority='LOW')
    if resumes:
        runner.resume(checkpoint.path, done, images)
    if excerpt is not None:
        excerpt.take(runner, evaluation)
    if done >= config.runner.max_iters:
        logger.info('nothing is left to do: %s is of the last of %d iterations', checkpoint.path,
                    config.runner.max_iters)
    runner.begin_hooks()  # loggers write down the rest of the metadata
    runner.meta['clip_rc'] = description
    if place.rank == 0:  # only now that nothing else can fail: the folder may hold an earlier run's files
        same_run = resumes and Path(checkpoint.path).resolve().parent == work_dir.resolve()
        if aside := run_folder.put_aside(work_dir, beyond=done if same_run else 0):
            logger.warning('checkpoints of %s are moved to %s', 'more iterations' if same_run else
                           'an earlier run (--auto-resume would resume it)', aside)
        (work_dir / Path(args.config).with_suffix('.py').name).write_text(as_text(as_given), encoding='utf-8')
        plugins.keep(Path(args.config), work_dir)
    hang.watch(args)
    runner.run([loader], [('train', 1)])


def choose_seed(args: argparse.Namespace, config: Config, resumed: Checkpoint | None, place: process.Place,
                logger: logging.Logger) -> int:
    """Take the seed of the command line, the config or the resumed run, in this order; else a random number."""
    then = resumed.meta.get('seed') if resumed else None
    if resumed and args.seed not in (None, then):
        logger.warning('the run began with seed %s and continues with %d: from here on its images differ', then,
                       args.seed)
    seeds = [seed for seed in (args.seed, config.get('seed'), then) if seed is not None]
    return process.of_first(seeds[0] if seeds else random.SystemRandom().getrandbits(31), place)


def set_precision(config: Config, model: CLIPRC, place: process.Place, logger: logging.Logger) -> None:
    """Log the type of matrix products; set the hook that scales losses for float16."""
    if config.get('tf32') and not (place.device.type == 'cuda' and torch.cuda.is_tf32_supported()):
        logger.warning('tf32=True has no effect on this device')
    dtype = supported(model.amp_dtype, place.device)
    if dtype is not None:
        name = str(dtype).removeprefix('torch.')
        logger.info('matrix products in %s; norms, scores and losses in float32', name)
        if place.device.type == 'cpu' and not cpu_has(dtype):
            logger.warning('this CPU has no instructions for %s: amp=None is faster here', name)
    if dtype is torch.float16:
        set_optimizer_hook(config, 'ScaledOptimizerHook')


def evaluation_hook(config: Config, place: process.Place, excerpt: Excerpt | None = None) -> Evaluation:
    """Build the hook that scores `data.val` while training; `save_best='hIoU'` keeps the best checkpoint."""
    dataset = evaluation_dataset(config, 'val', scored=True)
    loader = evaluation_loader(config, dataset if excerpt is None else excerpt.of(dataset), place)
    with building('evaluation'):
        return Evaluation(loader, place, **(config.get('evaluation') or {}))


def build_runner(config: Config, model: nn.Module, place: process.Place, batch: tuple[int, int], **options
                 ) -> TrainingRunner:
    """Build the runner with the config's optimizer and hooks; a wrong type or argument is a UserError."""
    saving = {key: value for key, value in (config.get('checkpoint_config') or {}).items() if key != 'type'}
    with building('checkpoint_config'):
        saver = checkpoints.Checkpoints(place, **saving)
    with building('optimizer'):
        optimizer = build_optimizer(model, config.optimizer)
    runner = TrainingRunner(
        model, optimizer=optimizer, max_iters=config.runner.max_iters, place=place, checkpoints=saver,
        images_per_iteration=batch[0], iterations_per_step=batch[1], **options)
    runner.register_hooks_of(config)
    return runner
