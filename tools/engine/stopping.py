"""Early ends of a run: a signal, or a loss that is not finite."""
import math
import signal

import torch
import torch.distributed as dist
from mmcv.parallel import DataContainer
from mmcv.runner import Hook, IterBasedRunner

from models.errors import UserError
from tools.engine.errors import AT_END
from tools.engine.process import Place, gather


class Stop:
    """Note a signal that asks this process to end (Ctrl-C, SIGTERM, a closed terminal); `agreed` tells it.

    Without a launcher a second Ctrl-C ends the process immediately. (With one, processes get each signal twice, as it
    passes them on.)
    """

    def __init__(self, place: Place):
        self.place, self.signal = place, None

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:  # by nohup
                continue
            AT_END.callback(signal.signal, number, signal.signal(number, self._note))

    def _note(self, number: int, frame) -> None:
        if self.signal == number == signal.SIGINT and not self.place.distributed:
            raise KeyboardInterrupt
        self.signal = number

    def agreed(self) -> signal.Signals | None:
        """Return the signal if any process got one. All processes must call it, and get the same answer."""
        if self.place.distributed:
            highest = torch.tensor(self.signal or 0)
            dist.all_reduce(highest, dist.ReduceOp.MAX, group=self.place.control)
            if not int(highest):  # a signal that came meanwhile counts the next time
                return None
            self.signal = int(highest)
        return self.signal and signal.Signals(self.signal)


class CheckLoss(Hook):
    """Stop a run whose loss is not finite, before the optimizer spoils the weights with it."""

    def before_train_iter(self, runner: IterBasedRunner) -> None:
        runner.files = [*runner.files[-runner.iterations_per_step:], '  ' + ', '.join(files_of(runner.data_batch))]

    def after_train_iter(self, runner: IterBasedRunner) -> None:
        if math.isfinite(runner.outputs['log_vars']['loss']):  # the mean over processes: all see it
            return
        place, bad = runner.place, not runner.outputs['loss'].isfinite().all()
        mine = [f'  process {place.rank}: {line.strip()}' if place.distributed else line for line in runner.files]
        gathered = gather((bool(bad), mine), place) or []
        where = [line for bad, lines in gathered if bad for line in reversed(lines)]
        raise UserError(runner.not_finite('the loss is', where))


def files_of(batch: dict) -> list[str]:
    """Return the files of a batch's images."""
    metas = batch['img_metas']
    metas = metas.data[0] if isinstance(metas, DataContainer) else metas
    return [str(meta.get('filename')) for meta in metas]
