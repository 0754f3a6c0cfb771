#!/usr/bin/env python3
"""Trains a config: `python tools/train.py CONFIG`, or on several processes `bash dist_train.sh CONFIG WORK_DIR N`.

mmcv's runner trains, mmcv's wrapper distributes. Checkpoints carry what testing needs.
"""
import argparse
import re
import sys
import time
from copy import deepcopy
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, whoever else has one
import mmseg
import torch
from mmcv import Config
from mmcv.runner import Hook, build_optimizer
from mmseg.utils import get_root_logger
from torch import nn

from datasets.metrics import check_metrics
from datasets.missing_classes import warn_of_missing_classes
from datasets.several import parts_of
from models import CLIPRC, plugins
from models.errors import UserError, building
from models.precision import cpu_has, supported
from models.training_labels import Setting
from models.weights import files, metadata
from models.weights.files import Checkpoint
from tools.engine import checkpoints, hang, process, scaled_optimizer  # noqa: F401  scaled_optimizer registers its hook
from tools.engine.build import build_model, common_facts, describe, give_text_embeddings, load_weights
from tools.engine.clip_sizes import require_clip
from tools.engine.config import add_config_arguments, as_text, load_config
from tools.engine.data import evaluation_dataset, evaluation_loader, training_loader
from tools.engine.evaluation import Evaluation
from tools.engine.runner import TrainingRunner


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a CLIP-RC model.')
    add_config_arguments(parser)
    process.add_launch_arguments(parser)
    hang.add_argument(parser)
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument('--load-from', metavar='CKPT', help='start from these weights; schedule and warm-up start anew')
    parser.add_argument('--resume-from', metavar='CKPT', help='go on with a run of ours from this checkpoint')
    parser.add_argument('--auto-resume', action='store_true',
                        help='go on from the newest checkpoint in the work folder, if there is one')
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate while training')
    parser.add_argument('--total-batch-size', type=int, metavar='N',
                        help='images per step over all processes, kept by accumulating gradients')
    parser.add_argument('--seed', type=int, help='the same seed gives the same images (default: a random one)')
    parser.add_argument('--deterministic', action='store_true', help="only deterministic algorithms of CUDA's cuDNN")
    gpu = parser.add_mutually_exclusive_group()
    gpu.add_argument('--gpus', type=int, help='older option without a launcher: only 1 is possible')
    gpu.add_argument('--gpu-ids', type=int, nargs='+', help='older option without a launcher: the GPU to train on')
    gpu.add_argument('--gpu-id', type=int, help='without a launcher: the GPU to train on')
    return parser.parse_args()


def asked_gpu(args: argparse.Namespace) -> int | None:
    """The GPU that the options name, None if they name none."""
    if (args.gpus or 1) > 1 or len(args.gpu_ids or []) > 1:
        raise UserError('one process trains on one GPU; for several: bash dist_train.sh CONFIG WORK_DIR NUM_GPUS')
    if args.gpu_ids:
        return args.gpu_ids[0]
    return 0 if args.gpus else args.gpu_id


def set_batch(config: Config, world_size: int, total: int | None, logger) -> tuple[int, int]:
    """Says the total batch beside the published one; accumulates gradients to reach `total`, when that is asked for.

    Returns the images of an iteration and the iterations of a step. mmcv's hook steps every k-th
    iteration, so all lengths that are counted in iterations are multiplied by k.

    Raises:
        UserError: `total` is not a multiple of what the processes do at once.
    """
    at_once = config.data.samples_per_gpu * world_size
    total = total or at_once
    steps, rest = divmod(total, at_once)
    if rest or steps < 1:
        raise UserError(f'a total batch of {total} is not a multiple of {at_once}, which {world_size} process(es) of '
                        f'{config.data.samples_per_gpu} images do at once: change data.samples_per_gpu '
                        '(--cfg-options data.samples_per_gpu=N).')
    logger.info('total batch: %d images a step (processes: %d, images each: %d, accumulated: %d); the config\'s: '
                '%s (%s)', total, world_size, config.data.samples_per_gpu, steps,
                config.get('total_batch_size', 'not known'), config.get('total_batch_size_source', 'yours'))
    if steps == 1:
        return at_once, 1
    logger.info('one step of the optimizer takes %d iterations: every length in iterations is multiplied by it', steps)
    set_optimizer_hook(config, 'GradientCumulativeOptimizerHook', cumulative_iters=steps)
    config.runner.max_iters *= steps
    config.lr_config.warmup_iters = config.lr_config.get('warmup_iters', 0) * steps
    config.evaluation = {'interval': 1, **config.get('evaluation', {})}
    for part, name in (('checkpoint_config', 'interval'), ('evaluation', 'interval'), ('evaluation', 'start')):
        if config.get(part, {}).get(name) is not None:
            config[part][name] *= steps
    return at_once, steps


def set_optimizer_hook(config: Config, hook: str, **options) -> None:
    """Makes `hook` take the optimizer's steps.

    Raises:
        UserError: the config names a hook that it can't stand in for.
    """
    named = (config.get('optimizer_config') or {}).get('type', 'OptimizerHook')
    if named not in ('OptimizerHook', 'GradientCumulativeOptimizerHook', 'ScaledOptimizerHook'):
        raise UserError(f'optimizer_config.type={named!r}: float16 and accumulated gradients need {hook} in its place: '
                        'leave one of them out.')
    config.optimizer_config = dict(config.get('optimizer_config') or {}, type=hook, **options)


def images_done(checkpoint: Checkpoint, iterations: int, batch: tuple[int, int], logger) -> int:
    """The images that a run has seen before it goes on, whatever its batch was then.

    Raises:
        UserError: a step of the optimizer took another number of iterations, so that these count something else.
    """
    now = dict(zip(('images_per_iteration', 'iterations_per_step'), batch))
    then = checkpoint.meta.get('progress') or {**now, 'images': iterations * batch[0]}
    if then['iterations_per_step'] != now['iterations_per_step']:
        raise UserError(
            f'in {checkpoint.path} a step of the optimizer is {then["iterations_per_step"]} iteration(s) of '
            f'{then["images_per_iteration"]} images, here it is {now["iterations_per_step"]} of '
            f'{now["images_per_iteration"]}: a run goes on with as many iterations a step as it began with (data.'
            'samples_per_gpu, processes, --total-batch-size).')
    if then['images_per_iteration'] != now['images_per_iteration']:
        logger.warning('the run had %d images an iteration and goes on with %d', then['images_per_iteration'],
                       now['images_per_iteration'])
    return then['images']


def check_same_task(checkpoint: Checkpoint, description: dict) -> None:
    """Raises a UserError where a run would go on in another setting, or with other classes seen."""
    then = checkpoint.meta['clip_rc']
    anew = 'start a new run from its weights with --load-from.'
    if then['setting'] != description['setting']:
        raise UserError(f'{checkpoint.path} is of a run in the {then["setting"]} setting, the config is '
                        f'{description["setting"]}: {anew}')
    if then['class_names'] != description['class_names']:
        raise UserError(f'{checkpoint.path} is of a run with other classes than the config has: {anew}')
    if then['split'] != description['split']:
        raise UserError(f'in the run of {checkpoint.path} the unseen classes were '
                        f'{", ".join(then["split"]["unseen"]) or "none"}; in the config they are '
                        f'{", ".join(description["split"]["unseen"]) or "none"}: {anew}')


class DescribeCheckpoints(Hook):
    """Puts our entry into the meta of every checkpoint, after the loggers have written the rest into their logs."""

    def __init__(self, description: dict):
        self.description = description

    def before_run(self, runner) -> None:
        runner.meta['clip_rc'] = self.description


def starting_point(args: argparse.Namespace, config: Config, work_dir: Path, place: process.Place, logger
                   ) -> tuple[Checkpoint | None, bool]:
    """The checkpoint to start from, if any, and whether its run is to be resumed; the first process decides.

    A job that torchrun restarted goes on from what it has saved since it was launched, whatever its options say.

    Raises:
        UserError: it can't be read, or has no run of ours to resume.
    """
    launched = process.restarted_job(place)
    path = resume = args.resume_from or config.get('resume_from')
    load_from = args.load_from or config.get('load_from')
    if launched is not None and load_from and not Path(load_from).exists():  # the first try has put it aside
        moved = sorted(work_dir.glob(f'earlier_*/{Path(load_from).name}'), key=lambda file: file.stat().st_ctime)
        load_from = str(moved[-1]) if moved else load_from
    if place.rank == 0 and (launched is not None or (args.auto_resume and resume is None)):
        found = checkpoints.newest(work_dir, logger, since=0 if args.auto_resume else launched)
        path = resume = resume if found is None else found.path
    path, resume = process.of_first((path or load_from, resume), place)
    checkpoint = files.read(path) if path else None
    if resume and not metadata.is_ours(checkpoint):
        raise UserError(f'{resume} is not a checkpoint of this code: its optimizer state cannot be resumed. '
                        f'Use its weights alone: --load-from {resume}')
    if resume and metadata.is_slim(checkpoint):
        raise UserError(f'{resume} is a slim checkpoint, which has no optimizer state to resume. Use its weights '
                        f'alone: --load-from {resume}')
    return checkpoint, bool(resume)


def initial_model(config: Config, checkpoint: Checkpoint | None) -> CLIPRC:
    """The config's model with the checkpoint's weights, or with CLIP's and initial ones, and with text embeddings."""
    model = build_model(config, checkpoint)
    if checkpoint is not None:
        load_weights(model, checkpoint)
    else:
        if model.pretrained is not None:
            require_clip(model.pretrained)
        model.init_weights()
        if model.setting is Setting.TRANSDUCTIVE:
            get_root_logger().warning('self-training without --load-from: its first pseudo-labels are random guesses')
    give_text_embeddings(model, config, checkpoint)
    return model


# What a config may say of a run's length and of what happens in it; of the rest the parts themselves know.
OPTIONS = {
    'runner': {'type', 'max_iters'},
    'evaluation': Evaluation.OPTIONS,
    'checkpoint_config': {'type', 'interval', 'save_last', 'max_keep_ckpts', 'filename_tmpl', 'create_symlink',
                          'by_epoch'},
    'log_config': {'interval', 'hooks'},
}
COUNTS = {'runner.max_iters': 1, 'checkpoint_config.interval': 1, 'evaluation.interval': 1, 'log_config.interval': 1,
          'data.samples_per_gpu': 1, 'data.workers_per_gpu': 0, 'lr_config.warmup_iters': 0}
NEEDED = ('runner.max_iters', 'data.samples_per_gpu', 'data.workers_per_gpu')


def check_settings(config: Config) -> None:
    """Raises a UserError now for what would fail, or be passed over, after hours of training."""
    for part in (*OPTIONS, 'optimizer', 'lr_config', 'optimizer_config'):
        if not isinstance(config.get(part) or {}, dict):
            raise UserError(f'{part}={config[part]!r}: a dict is needed.')
    for part, known in OPTIONS.items():
        unknown = [name for name in config.get(part) or {} if name not in known]
        if unknown:
            raise UserError(f'{part} has no {", ".join(unknown)}; there are {", ".join(sorted(known))}.')
    for part, only in (('runner', 'IterBasedRunner'), ('checkpoint_config', 'CheckpointHook')):
        if (found := (config.get(part) or {}).get('type', only)) != only:
            raise UserError(f'{part}.type={found!r}: only {only} is known here.')
    saving = config.get('checkpoint_config') or {}
    for name in ('checkpoint_config.by_epoch', 'lr_config.by_epoch', 'lr_config.warmup_by_epoch'):
        part, key = name.split('.')
        if (config.get(part) or {}).get(key):
            raise UserError(f'{name}=True: there are no epochs here, lengths are iterations.')
    if not re.fullmatch(r'[^{}/]*_\{\}\.pth', template := saving.get('filename_tmpl', 'iter_{}.pth')):
        raise UserError(f'checkpoint_config.filename_tmpl={template!r}: it must end in _{{}}.pth, as a run that goes '
                        'on finds its checkpoints by their numbers.')
    for name, least in COUNTS.items():
        part, key = name.split('.')
        value = (config.get(part) or {}).get(key, None if name in NEEDED else least)
        if not isinstance(value, int) or value < least:
            raise UserError(f'{name}={value!r}: a whole number from {least} up is needed.')
    seed = config.get('seed')
    if seed is not None and (type(seed) is not int or seed < 0):
        raise UserError(f'seed={seed!r}: a whole number from 0 up is needed.')
    evaluation = config.get('evaluation') or {}
    metrics, best = check_metrics(evaluation.get('metric', 'mIoU')), evaluation.get('save_best')
    known = ('auto', 'aAcc', 'mAcc', *metrics, *(('mIoU_seen', 'mIoU_unseen', 'hIoU') if 'mIoU' in metrics else ()))
    if best is not None and best not in known:
        raise UserError(f'evaluation.save_best={best!r} is no score; there are {", ".join(known)}.')


def evaluation_hook(config: Config, place: process.Place) -> Evaluation:
    """Tests on `data.val` while training; `save_best='hIoU'` keeps the best checkpoint."""
    loader = evaluation_loader(config, evaluation_dataset(config, 'val', scored=True), place)
    with building('evaluation'):
        return Evaluation(loader, place, **(config.get('evaluation') or {}))


def build_run(config: Config, model: nn.Module, place: process.Place, batch: tuple[int, int], **options
              ) -> TrainingRunner:
    """The runner with the config's optimizer and hooks.

    Raises:
        UserError: one of them is of no known type, has no such argument, or lacks a package.
    """
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


def main() -> None:
    args = parse_arguments()
    config = load_config(args)
    if config.get('cross_dataset'):
        raise UserError(f'{args.config} tests a model on other classes than those it was trained on: train with a '
                        'config of configs/coco, and test with this one.')
    check_settings(config)
    place = process.start(args, asked_gpu(args))
    work_dir = process.make_folder(args.work_dir or config.get('work_dir') or f'work_dirs/{Path(args.config).stem}')
    if place.rank == 0:
        process.hold(work_dir)
    timestamp = time.strftime('%Y%m%d_%H%M%S')
    logger = get_root_logger(log_file=str(work_dir / f'{timestamp}.log'), log_level=config.get('log_level', 'INFO'))
    for handler in logger.handlers:
        handler.stream.reconfigure(errors='backslashreplace')  # of paths that are not UTF-8
    checkpoint, resumes = starting_point(args, config, work_dir, place, logger)
    iterations_done = metadata.iterations_done(checkpoint) if resumes else 0
    seeds = [args.seed, config.get('seed'), checkpoint.meta.get('seed') if resumes else None, None]
    if resumes and args.seed not in (None, checkpoint.meta.get('seed')):
        logger.warning('the run began with seed %s and goes on with %d: from here on other images come',
                       checkpoint.meta.get('seed'), args.seed)
    config.seed = seed = process.common_seed(next((known for known in seeds if known is not None), None), place)
    config.work_dir = str(work_dir)
    torch.backends.cudnn.benchmark = config.get('cudnn_benchmark', False)
    process.set_seed(seed, deterministic=args.deterministic)
    logger.info('%s; torch %s, mmseg %s; seed %d', place, torch.__version__, mmseg.__version__, seed)
    as_given = deepcopy(config)  # what this run writes down: with the same options it is this run again
    batch = set_batch(config, place.world_size, args.total_batch_size, logger)
    images = images_done(checkpoint, iterations_done, batch, logger) if resumes else 0

    facts = common_facts(config)
    loader = training_loader(config, place, seed, images)
    evaluation = None if args.no_validate else evaluation_hook(config, place)
    model = initial_model(config, checkpoint)
    model.CLASSES = facts.split.names
    if checkpoint is not None:
        logger.info('weights: %s', checkpoint.path)
    as_given.model = deepcopy(config.model)  # which knows the sizes of its CLIP by now
    description = describe(model, as_given)
    if resumes:
        check_same_task(checkpoint, description)
    trainable = sum(parameter.numel() for parameter in model.trainable_parameters())
    logger.info('setting: %s; %d of %d classes seen; %.2fM trainable of %.2fM parameters', model.setting.value,
                len(model.decode_head.class_head.seen), len(facts.split.names), trainable / 1e6,
                sum(parameter.numel() for parameter in model.parameters()) / 1e6)

    if place.rank == 0:
        seen = model.decode_head.class_head.seen.tolist()
        warn_of_missing_classes(list(parts_of(loader.dataset.dataset)), seen, logger)

    amp_dtype = supported(model.amp_dtype, place.device)
    if amp_dtype is not None:
        short = str(amp_dtype).removeprefix('torch.')
        logger.info('products in %s; norms, scores and losses in float32', short)
        if place.device.type == 'cpu' and not cpu_has(amp_dtype):
            logger.warning('this CPU has no instructions for %s: amp=None is faster here', short)
    if amp_dtype is torch.float16:
        set_optimizer_hook(config, 'ScaledOptimizerHook')

    meta = {'CLASSES': list(facts.split.names), 'seed': seed, 'mmseg_version': mmseg.__version__,
            'hook_msgs': checkpoint.meta.get('hook_msgs', {}) if resumes else {}}  # the best score so far
    wrapped = process.wrap(model, place, find_unused_parameters=bool(config.get('find_unused_parameters')))
    process.set_seed(seed + place.rank + iterations_done, deterministic=args.deterministic)  # dropout's own draws
    runner = build_run(config, wrapped, place, batch, work_dir=str(work_dir), logger=logger, meta=meta)
    runner.timestamp = timestamp
    if evaluation is not None:
        runner.register_hook(evaluation, priority='LOW')
    runner.register_hook(DescribeCheckpoints(description), priority='VERY_LOW')
    runner.register_hook(hang.Watchdog(place, args.hang_timeout, ends=args.end_on_hang), priority='LOWEST')
    if resumes:
        runner.resume(checkpoint.path, iterations_done, images)
    if iterations_done >= config.runner.max_iters:
        logger.info('nothing is left to do: %s is of the last of %d iterations', checkpoint.path,
                    config.runner.max_iters)
    runner.begin_hooks()
    if place.rank == 0:  # not before all else is known to be right: the folder may hold an earlier run's
        same_run = resumes and Path(checkpoint.path).resolve().parent == work_dir.resolve()
        if aside := checkpoints.put_aside(work_dir, beyond=iterations_done if same_run else 0):
            logger.warning('checkpoints of %s are moved to %s', 'more iterations' if same_run else
                           'an earlier run (--auto-resume would go on with it)', aside)
        (work_dir / Path(args.config).with_suffix('.py').name).write_text(as_text(as_given), encoding='utf-8')
        plugins.keep(Path(args.config), work_dir)
    runner.run([loader], [('train', 1)])


if __name__ == '__main__':
    process.run(main)
