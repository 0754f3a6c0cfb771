"""A few steps of a training run for a smoke test, with everything that the whole run does, and the clock."""
import math
import time
from pathlib import Path
from statistics import median

import torch
from mmcv.runner import Hook, LoggerHook

from datasets import SeveralDatasets, ZeroShotDataset
from tools.engine import process
from tools.engine.data import few
from tools.engine.evaluation import Evaluation
from tools.engine.process import Place
from tools.engine.runner import TrainingRunner

IMAGES = 4  # for each process to evaluate


class Clock(Hook):
    """Note the time of each iteration's end, when the device has done its work, the newest checkpoint and its size.

    Only the first process notes a size.
    """

    def __init__(self):
        self.times, self.checkpoint, self.size = [], None, 0

    def after_train_iter(self, runner: TrainingRunner) -> None:
        if runner.place.device.type == 'cuda':
            torch.cuda.synchronize(runner.place.device)
        self.times.append(time.monotonic())
        if runner.last_good != self.checkpoint and runner.place.rank == 0:
            self.size = runner.last_good.stat().st_size  # the run may keep few, and remove it
        self.checkpoint = runner.last_good


class Excerpt(Hook):
    """Some steps of a run, which then ends with a checkpoint and an evaluation of a few images.

    Schedule, batch, loader workers and hooks stay those of the whole run; what is logged now and then is logged at
    every iteration.

    Args:
        most: steps to do.
        seconds: end earlier if they have passed, but not before the second step.

    Attributes:
        iterations: done so far.
        whole: iterations that the whole run has still to do, with so many `checkpoints` and `evaluations`.
        kept: checkpoints that the run leaves.
        evaluated: images that each process evaluates, in the excerpt and in the whole run.
        logged: iterations between two entries of the run's logs.
    """

    def __init__(self, place: Place, most: int, seconds: float = math.inf):
        self.place, self.most, self.seconds = place, most, seconds
        self.iterations, self.evaluated, self.evaluation = 0, (0, 0), None
        self.trained, self.saved, self.scored = Clock(), Clock(), Clock()

    def of(self, dataset: ZeroShotDataset | SeveralDatasets) -> ZeroShotDataset | SeveralDatasets:
        """Choose the images to evaluate."""
        images = len(dataset)
        dataset = few(dataset, IMAGES * self.place.world_size)
        self.evaluated = tuple(math.ceil(count / self.place.world_size) for count in (len(dataset), images))
        return dataset

    def take(self, runner: TrainingRunner, evaluation: Evaluation | None) -> None:
        """Note what the whole run has to do, and take part in it."""
        saver, numbers = runner.checkpoints, range(runner.iter + 1, runner.max_iters + 1)
        self.whole, self.evaluation, self.began = len(numbers), evaluation, time.monotonic()
        self.checkpoints = sum(number % saver.interval == 0 if saver.interval > 0 else False for number in numbers)
        self.checkpoints += bool(saver.save_last and numbers and (
            saver.interval <= 0 or runner.max_iters % saver.interval))
        self.kept = min(self.checkpoints, saver.max_keep_ckpts) if saver.max_keep_ckpts > 0 else self.checkpoints
        self.evaluations = 0
        if evaluation is not None:
            start, interval = evaluation.start or 0, evaluation.interval
            self.evaluations = sum(number >= start and (number - start) % interval == 0 for number in numbers)
            self.kept += evaluation.save_best is not None
            evaluation.start = runner.max_iters + 1
        loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self.logged = min([hook.interval for hook in loggers], default=1)
        for hook in loggers:
            hook.interval = 1
        runner.register_hook(self, priority='VERY_LOW')
        runner.register_hook(self.trained, priority='ABOVE_NORMAL')  # after the optimizer, before checkpoints
        runner.register_hook(self.saved, priority='BELOW_NORMAL')  # before the evaluation
        runner.register_hook(self.scored, priority='VERY_LOW')

    def before_train_iter(self, runner: TrainingRunner) -> None:
        """Make this iteration the last one if that is enough; its learning rate, of the whole schedule, is set."""
        self.iterations += 1
        steps, rest = divmod(self.iterations, runner.iterations_per_step)
        if runner.iter + 1 < runner.max_iters and (rest or steps < min(2, self.most)):
            return
        late = process.of_first(time.monotonic() - self.began > self.seconds, self.place)
        if steps >= self.most or late or runner.iter + 1 == runner.max_iters:
            runner._max_iters = runner.iter + 1
            runner.checkpoints.save_last = True
            if self.evaluation is not None:
                self.evaluation.start, self.evaluation.interval = runner.iter + 1, 1

    @property
    def checkpoint(self) -> Path:
        """The checkpoint after the last iteration."""
        return self.saved.checkpoint

    @property
    def checkpoint_size(self) -> int:
        """Its bytes, as the first process has measured them."""
        return self.saved.size

    def times(self) -> tuple[float, float, float]:
        """Return the seconds of an iteration (after the first, if there are more), a checkpoint and an evaluation."""
        ends = self.trained.times
        each = [after - before for before, after in zip(ends, ends[1:])] or [ends[0] - self.began]
        return (median(each), self.saved.times[-1] - ends[-1],
                self.scored.times[-1] - self.saved.times[-1])
