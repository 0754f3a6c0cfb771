"""Predict the images of a dataset with one process or several, for test.py and for evaluation while training."""
import math
import re
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mmcv.runner import LoggerHook
from mmseg.core import EvalHook
from mmseg.utils import get_root_logger
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.metrics import OF_SPLITS, check_metrics
from models.errors import UserError
from models.label_format import label_format
from models.weights import files
from tools.engine import hang, process
from tools.engine.process import Place
from tools.engine.run_folder import EVALUATIONS, evaluations, write_evaluations
from tools.engine.runner import TrainingRunner

IMAGES_PER_GROUP = 8  # images whose windows go to a GPU together


def predict(model: nn.Module, loader: DataLoader, place: Place) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index, label map (H, W)) of each image of this process's loader.

    The first process shows a progress bar on a terminal, and logs the speed of all processes at the end.
    """
    model.eval()
    total, started = len(loader.dataset), time.monotonic()
    size = IMAGES_PER_GROUP if place.device.type == 'cuda' else 1
    batches = zip(loader.sampler, loader, strict=True)
    hang.progressed()
    with tqdm(total=total, unit='image', disable=None if place.rank == 0 else True) as bar:
        while group := list(islice(batches, size)):
            maps = label_maps(model, [batch for _, batch in group], place)
            hang.progressed()
            for (index, _), labels in zip(group, maps, strict=True):
                yield index, labels
            bar.update(min(len(group) * place.world_size, total - bar.n))
    if place.rank == 0:
        get_root_logger().info('%d images, %s', total, speed(total, time.monotonic() - started))


def speed(images: int, seconds: float) -> str:
    """Write images per second, or seconds per image where that is the larger number."""
    return f'{images / seconds:.1f} images/s' if images > seconds else f'{seconds / images:.1f} s/image'


@torch.no_grad()
def label_maps(model: nn.Module, batches: list[dict], place: Place) -> list[np.ndarray]:
    """Return the label maps (H, W) of images from the loader, each in a batch of its own."""
    dtype = label_format(model.module.num_classes).dtype
    if any(len(batch['img']) > 1 for batch in batches):  # several views of an image, to be averaged
        return [model(return_loss=False, **batch)[0].astype(dtype) for batch in batches]
    images = [batch['img'][0][0].to(place.device, non_blocking=True) for batch in batches]
    metas = [batch['img_metas'][0].data[0][0] for batch in batches]
    sent = torch.uint8 if dtype is np.uint8 else torch.int32  # type on the way from the device
    return [labels.to(sent).cpu().numpy().astype(dtype) for labels in model.module.segment(images, metas)]


def collect(parts: list, count: int, place: Place) -> list | None:
    """Collect the `count` results of all processes in the dataset's order, on the first process; None on the others."""
    gathered = process.gather(parts, place)
    return gathered and [part for each in zip(*gathered, strict=True) for part in each][:count]


class Evaluation(EvalHook):
    """Evaluate while training, by the same code as test.py.

    Args:
        options: the config's `evaluation`, options of mmseg's `EvalHook`.

    Raises:
        UserError: an unknown metric, or `save_best` is not a score.
    """

    def __init__(self, loader: DataLoader, place: Place, **options):
        super().__init__(loader, **{'rule': 'greater', **options})
        self.place = place
        metrics = check_metrics(options.get('metric', 'mIoU'))
        known = ('auto', 'aAcc', 'mAcc', *metrics, *(OF_SPLITS if 'mIoU' in metrics else ()))
        if self.save_best is not None and self.save_best not in known:
            raise UserError(f'evaluation.save_best={self.save_best!r} is not a score; there are {", ".join(known)}.')

    def _best_files(self) -> list[Path]:
        """List the best checkpoints of the folder, also those of a run that was interrupted."""
        key = '.+' if self.save_best == 'auto' else re.escape(self.save_best)
        return [file for file in Path(self.out_dir).glob('best_*.pth')
                if re.fullmatch(rf'best_{key}_iter_\d+\.pth', file.name)]

    def _know_best(self, runner: TrainingRunner) -> None:
        """Read the best score from the folder's best checkpoints; that in the resumed checkpoint may be outdated."""
        messages = runner.meta['hook_msgs']
        for name in ('best_score', 'best_ckpt'):
            messages.pop(name, None)
        for file in self._best_files():
            try:
                score = (files.read(file).meta.get('hook_msgs') or {}).get('best_score')
            except UserError as error:
                runner.logger.warning('%s Its score is ignored.', error)
                continue
            known = messages.get('best_score')
            if score is not None and (known is None or not self.compare_func(known, score)):
                messages['best_score'], messages['best_ckpt'] = score, str(file)

    def before_train_iter(self, runner: TrainingRunner) -> None:
        """Do nothing; mmcv's hook would evaluate here, before the first iteration of a run resumed after `start`."""

    def before_epoch(self, runner: TrainingRunner) -> None:
        """Evaluate now if the run was stopped while evaluating. mmcv's runner calls this before the first iteration."""
        if self.save_best and self.place.rank == 0:
            self._know_best(runner)
        if runner.iter == 0:
            return
        done = runner.iter in evaluations(Path(runner.work_dir) / EVALUATIONS)
        if process.of_first(done, self.place):
            return
        runner._iter -= 1  # as when the evaluation was due
        runner.mode = 'train'
        if self._should_evaluate(runner):
            self._do_evaluate(runner)
            for hook in runner.hooks:
                if isinstance(hook, LoggerHook):
                    hook.after_train_iter(runner)
        runner._iter += 1

    def _do_evaluate(self, runner: TrainingRunner) -> None:
        if not self._should_evaluate(runner):
            return
        runner.check_weights(runner.iter + 1)
        dataset, parts = self.dataloader.dataset, []
        for index, labels in predict(runner.model, self.dataloader, self.place):
            if runner.stop.signal:
                break
            parts += dataset.pre_eval(labels, index)
        if asked := runner.stop.settle(runner):
            runner.end(asked, runner.iter + 1)  # when resumed, it will evaluate
        parts, best = collect(parts, len(dataset), self.place), None
        if self.place.rank == 0:
            runner.log_buffer.clear()
            runner.log_buffer.output['eval_iter_num'] = len(self.dataloader)
            score = self.evaluate(runner, parts)
            best = self._new_best(runner, score) if self.save_best else None
        if best := process.of_first(best, self.place):
            runner.checkpoints.save(runner, best, runner.iter + 1)
        if self.place.rank == 0:
            for other in self._best_files() if best else ():
                if other != best:
                    other.unlink()
            scores = {name: value for name, value in runner.log_buffer.output.items() if '.' not in name}
            record = Path(runner.work_dir) / EVALUATIONS
            write_evaluations(record, {**evaluations(record), runner.iter + 1: scores})

    def _new_best(self, runner: TrainingRunner, score: float) -> Path | None:
        """Note a score if it is the best so far, and name the checkpoint to write; else return None."""
        messages = runner.meta['hook_msgs']
        if math.isnan(score):
            runner.logger.warning('%s is not a number (do the masks have such classes?): the checkpoint is not saved '
                                  'as the best one', self.key_indicator)
            return None
        if 'best_score' in messages and not self.compare_func(score, messages['best_score']):
            return None
        path = Path(self.out_dir) / f'best_{self.key_indicator}_iter_{runner.iter + 1}.pth'
        messages['best_score'], messages['best_ckpt'] = score, str(path)
        runner.logger.info('best %s so far: %.4f, saved as %s', self.key_indicator, score, path.name)
        return path
