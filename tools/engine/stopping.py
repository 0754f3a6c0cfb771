"""Early ends of a run, on which all processes agree: a signal, or a loss that is not finite."""
import math
import signal
from typing import NamedTuple

import torch
import torch.distributed as dist
from mmcv.parallel import DataContainer
from mmcv.runner import Hook, IterBasedRunner
from torch import Tensor

from models.errors import UserError
from models.precision import upcast
from tools.engine.errors import AT_END
from tools.engine.process import Place, gather, of_first


class Noted(NamedTuple):
    """A loss on its way to the host, with its iteration and the images that may be to blame."""
    loss: Tensor  # on the CPU; of a GPU's loss a copy, in pinned memory
    arrival: torch.cuda.Event | None
    iteration: int
    files: list[str]

    def finite(self) -> bool:
        if self.arrival is not None:
            self.arrival.synchronize()
        return math.isfinite(self.loss.numpy())


class Stop(Hook):
    """End a run early: by a signal (Ctrl-C, SIGTERM, a closed terminal), or because a loss is not finite.

    No iteration waits for the device or for other processes. After its forward pass `ask` reads the loss of the
    iteration before, whose copy has arrived long since, and starts an all-reduce on the host; `agreed` reads the answer
    at the iteration's end, when that is done too. (Asking every N iterations would delay a stop by as many.) So a run
    ends one iteration after a bad loss, with spoilt weights: `settle` waits for all that is pending, and must precede
    every use of the weights outside training.

    Without a launcher a second Ctrl-C ends the process immediately. (With one, processes get each signal twice, as it
    passes them on.)
    """

    def __init__(self, place: Place):
        self.place, self.signal = place, None
        self.noted: Noted | None = None  # this iteration's loss
        self.judged: Noted | None = None  # the loss that the latest question is about
        self.flags, self.answer = torch.zeros(2, dtype=torch.int64), None

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:  # by nohup
                continue
            AT_END.callback(signal.signal, number, signal.signal(number, self._note))

    def _note(self, number: int, frame) -> None:
        if self.signal == number == signal.SIGINT and not self.place.distributed:
            raise KeyboardInterrupt
        self.signal = number

    def before_train_iter(self, runner: IterBasedRunner) -> None:
        runner.files = [*runner.files[-runner.iterations_per_step:], '  ' + ', '.join(files_of(runner.data_batch))]

    def after_train_iter(self, runner: IterBasedRunner) -> None:
        loss = upcast(runner.outputs['loss'].detach())
        copy, arrival = loss.to('cpu', non_blocking=True), torch.cuda.Event() if loss.is_cuda else None
        if arrival is not None:
            arrival.record()
        self.ask(Noted(copy, arrival, runner.iter + 1, runner.files))

    def after_epoch(self, runner: IterBasedRunner) -> None:
        """Check the last loss. mmcv's runner calls this after the last iteration."""
        self.settle(runner)

    def ask(self, loss: Noted | None = None) -> None:
        """Start to share the signal and whether the noted loss is finite, and note another loss."""
        self.judged, self.noted = self.noted, loss
        bad = self.judged is not None and not self.judged.finite()
        self.flags = torch.tensor([self.signal or 0, bad])
        if self.place.distributed:
            self.answer = dist.all_reduce(self.flags, dist.ReduceOp.MAX, group=self.place.control, async_op=True)

    def agreed(self, runner: IterBasedRunner) -> signal.Signals | None:
        """Return the signal if any process got one before the latest `ask`; all processes get the same answer.

        Raises:
            UserError: the loss that `ask` read is not finite in some process.
        """
        if self.answer is not None:
            self.answer.wait()
            self.answer = None
        highest, bad = self.flags.tolist()
        if bad:
            mine = [f'  process {self.place.rank}: {line.strip()}' if self.place.distributed else line
                    for line in self.judged.files]
            gathered = gather((not self.judged.finite(), mine), self.place) or []
            where = [line for bad, lines in gathered if bad for line in reversed(lines)]
            raise UserError(runner.not_finite('the loss is', self.judged.iteration, of_first(where, self.place)))
        if self.place.distributed:
            if not highest:  # a signal that came meanwhile counts the next time
                return None
            self.signal = highest
        return self.signal and signal.Signals(self.signal)

    def settle(self, runner: IterBasedRunner) -> signal.Signals | None:
        """Wait until all losses so far are checked; else as `agreed`. All processes must call it."""
        self.agreed(runner)
        self.ask()
        return self.agreed(runner)


def files_of(batch: dict) -> list[str]:
    """Return the files of a batch's images."""
    metas = batch['img_metas']
    metas = metas.data[0] if isinstance(metas, DataContainer) else metas
    return [str(meta.get('filename')) for meta in metas]
