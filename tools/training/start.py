"""How a run starts: from CLIP's weights, from a checkpoint's weights, or as the continuation of a run."""
import argparse
import logging
from pathlib import Path

from mmcv import Config
from mmseg.utils import get_root_logger

from models import CLIPRC
from models.errors import UserError
from models.training_labels import Setting
from models.weights import files, metadata
from models.weights.clip_sizes import require_clip
from models.weights.cliprc import load_weights
from models.weights.files import Checkpoint
from tools.engine import process, run_folder
from tools.engine.build import build_model, give_text_embeddings


def starting_point(args: argparse.Namespace, config: Config, work_dir: Path, place: process.Place,
                   logger: logging.Logger) -> tuple[Checkpoint | None, bool]:
    """Read the checkpoint to start from, if any, and tell whether its run is resumed; the first process decides.

    A job that torchrun restarted resumes from its own newest checkpoint, with any options.

    Raises:
        UserError: the checkpoint can't be read, or can't be resumed.
    """
    began = process.restarted_job(place)
    path = resume = args.resume_from or config.get('resume_from')
    load_from = args.load_from or config.get('load_from')
    if began is not None and load_from and not Path(load_from).exists():  # the first attempt has moved it
        moved = sorted(work_dir.glob(f'earlier_*/{Path(load_from).name}'), key=lambda file: file.stat().st_ctime)
        load_from = str(moved[-1]) if moved else load_from
    if place.rank == 0 and (began is not None or (args.auto_resume and resume is None)):
        found = run_folder.newest(work_dir, logger, since=0 if args.auto_resume else began)
        path = resume = resume if found is None else found.path
    path, resume = process.of_first((path or load_from, resume), place)
    checkpoint = files.read(path) if path else None
    if resume and not metadata.is_ours(checkpoint):
        raise UserError(f'{resume} is not a checkpoint of this code: its optimizer state cannot be resumed. '
                        f'Use its weights alone: --load-from {resume}')
    if resume and metadata.is_slim(checkpoint):
        raise UserError(f'{resume} is a slim checkpoint, with no optimizer state to resume. Use its weights alone: '
                        f'--load-from {resume}')
    return checkpoint, bool(resume)


def initial_model(config: Config, checkpoint: Checkpoint | None) -> CLIPRC:
    """Build the config's model with the checkpoint's weights, or CLIP's and initial ones, and with text embeddings."""
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


def images_done(checkpoint: Checkpoint, batch: tuple[int, int], logger: logging.Logger) -> int:
    """Count the images of a run before it is resumed.

    Args:
        batch: present images per iteration and iterations per step.

    Raises:
        UserError: a step of the optimizer took another number of iterations, so that these are not comparable.
    """
    now, then = dict(zip(('images_per_iteration', 'iterations_per_step'), batch)), checkpoint.meta['progress']
    if then['iterations_per_step'] != now['iterations_per_step']:
        raise UserError(
            f'{checkpoint.path} is of a run with {then["iterations_per_step"]} iteration(s) per step, now there are '
            f'{now["iterations_per_step"]}: change data.samples_per_gpu, processes or --total-batch-size.')
    if then['images_per_iteration'] != now['images_per_iteration']:
        logger.warning('the run had %d images per iteration and continues with %d', then['images_per_iteration'],
                       now['images_per_iteration'])
    return then['images']


def check_same_task(checkpoint: Checkpoint, description: dict) -> None:
    """Raise a UserError if a resumed run would continue in another setting, or with other classes seen."""
    then = checkpoint.meta['clip_rc']
    for key, name in (('setting', 'setting'), ('class_names', 'list of classes'), ('split', 'split')):
        if then[key] != description[key]:
            values = f' ({then[key]}, not {description[key]})' if key == 'setting' else ''
            raise UserError(f'{checkpoint.path} is of a run with another {name} than the config\'s{values}: start a '
                            'new run from its weights with --load-from.')
