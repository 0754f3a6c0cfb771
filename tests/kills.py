#!/usr/bin/env python3
"""Check that a run survives kills: `python tests/kills.py` kills the miniature's training 30 times at random.

Each SIGKILL is followed by --auto-resume. Every run must resume from the newest checkpoint, `latest.pth`
must be a whole one at any time, and in the end weights, optimizer and random states must be those of a run that was
not killed, bit for bit. Every second kill waits for a checkpoint that is being written. Exits 1 if anything fails.
"""
import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, before any installed one

# isort: split
import torch

from models.weights import files
from tools.engine.config import REPOSITORY
from tools.engine.run_folder import LATEST, iterations_of, numbered
from tools.miniature import CLIP
from tools.miniature.world import write_world

INTERVAL = 3  # iterations from one checkpoint to the next
PARTS = '.*.part.pth'  # of checkpoints that are being written
RESUMED = re.compile(r'resumed from .* after (\d+) iterations')


def command(folder: Path, world: Path, iterations: int) -> list[str]:
    return [sys.executable, str(REPOSITORY / 'tools/train.py'), str(REPOSITORY / 'configs/miniature/inductive.py'),
            '--work-dir', str(folder), '--seed', '0', '--auto-resume', '--data-root', str(world), '--cfg-options',
            f'model.pretrained={CLIP}', f'model.pretrained_text={CLIP}', f'runner.max_iters={iterations}',
            f'checkpoint_config.interval={INTERVAL}', 'checkpoint_config.max_keep_ckpts=2', 'data.workers_per_gpu=1',
            f'evaluation.interval={4 * INTERVAL}', 'evaluation.save_best=hIoU', 'log_config.interval=1']


def until(condition: Callable[[], bool], process: subprocess.Popen | None = None, *, seconds: float = 300) -> bool:
    """Wait for a condition; False if the process ends first, or if it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        if process and process.poll() is not None or time.monotonic() > end:
            return condition()
        time.sleep(0.0005)
    return True


def killed(arguments: list[str], folder: Path, draws: random.Random, writing: bool) -> tuple[str, bool]:
    """Train until a random moment; give the output, and whether a checkpoint was being written then."""
    log = folder.parent / 'output'
    with log.open('w') as stream:
        process = subprocess.Popen(arguments, stdout=stream, stderr=stream, start_new_session=True)
    iterations = draws.randint(1, 4 * INTERVAL)
    until(lambda: log.read_text().count('Iter [') >= iterations, process)
    time.sleep(draws.uniform(0, 0.3))
    if writing:
        until(lambda: any(folder.glob(PARTS)), process)
        time.sleep(draws.uniform(0, 0.02))
    with suppress(ProcessLookupError):  # it has ended: an error, which its output shows
        os.killpg(process.pid, signal.SIGKILL)  # its loader worker too
    process.wait()
    return log.read_text(), any(folder.glob(PARTS))


def differences(one: Path, other: Path) -> list[str]:
    """List the parts of two checkpoints that differ, of weights, optimizer and random states."""
    one, other = (torch.load(file, weights_only=True) for file in (one, other))
    return [part for part in ('state_dict', 'optimizer', 'random_states') if not same(one[part], other[part])]


def same(one, other) -> bool:
    """Tell whether two nested structures of values and tensors are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def main() -> None:
    parser = argparse.ArgumentParser(description='Kills the miniature\'s training at random moments.')
    parser.add_argument('--kills', type=int, default=30)
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--work-dir', help='folder for the files (default: a temporary one, removed)')
    args = parser.parse_args()
    draws, while_writing = random.Random(args.seed), 0
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(args.work_dir or temporary)
        work.mkdir(parents=True, exist_ok=True)
        write_world(work / 'world', train=40, val=4, seed=0)
        folder, last = work / 'killed', 4 * INTERVAL * args.kills  # more iterations than the killed runs reach
        for number in range(1, args.kills + 1):
            expected = next(map(iterations_of, numbered(folder)), 0)
            output, part = killed(command(folder, work / 'world', last), folder, draws, writing=number % 2 == 0)
            while_writing += part
            found = RESUMED.search(output)
            resumed = int(found[1]) if found else 0
            saved = numbered(folder)
            assert 'error:' not in output and 'Traceback' not in output and 'Iter [' in output, output[-2000:]
            assert resumed == expected and 'Skipped' not in output, f'resumed from {resumed}, not {expected}'
            assert (folder / LATEST).is_symlink() == bool(saved), 'no latest.pth'
            for file in (*saved, *([folder / LATEST] if saved else [])):
                assert files.read(file).weights
            print(f'kill {number}: resumed from {resumed}, killed{" while writing" if part else ""}, newest '
                  f'{saved[0].name if saved else None}', flush=True)
        runs = folder, work / 'uninterrupted'
        for each in runs:
            subprocess.run(command(each, work / 'world', last), check=True, capture_output=True)
        different = differences(*(each / f'iter_{last}.pth' for each in runs))
        assert not different, f'{different} differ from those of an uninterrupted run'
        best = [sorted(file.name for file in each.glob('best_*.pth')) for each in runs]
        assert best[0] == best[1], f'the best checkpoint is {best[0]}, without kills {best[1]}'
    print(f'{args.kills} kills: {while_writing} of them while a checkpoint was written, after {last} iterations equal '
          'to an uninterrupted run')


if __name__ == '__main__':
    main()
