#!/usr/bin/env python3
"""Do long runs stay flat? `python tests/long_run.py`, by hand; about 4 minutes on 2 CPU cores.

The miniature is trained, evaluated and saved meanwhile, tested, and asked for many images of many sizes, each in
processes that are looked at from outside: memory, open files and threads of the process and its loader workers. A run
is flat if from its second quarter to its last the median of open files and that of threads did not rise, and that of
memory rose by no more than 2 % or 16 MB, whichever is more.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's packages, whoever else has some

# isort: split
import numpy as np
from prettytable import PrettyTable

from models.inference import load_model
from tools.engine import process
from tools.engine.config import REPOSITORY
from tools.miniature import CLIP
from tools.miniature.world import write_world

TRAINING, TESTING = re.compile(r'Iter \[(\d+)/'), re.compile(r'% of [\d,]+ images: ([\d,]+)')
FEW = 20  # images of an evaluation while training
SIDES = (48, 400)  # of the images asked for, in pixels


class Sample(NamedTuple):
    """What a process and all those below it have."""
    done: int
    memory: float  # MB of their own; what they share is counted once
    files: int
    threads: int
    processes: int


def tree(process: int) -> list[int]:
    below = [int(child) for task in Path(f'/proc/{process}/task').iterdir()
             for child in (task / 'children').read_text().split()]
    return [process, *(found for child in below for found in tree(child))]


def look(process: int, done: int) -> Sample | None:
    """None where one of the processes ends meanwhile."""
    memory = files = threads = 0
    try:
        processes = tree(process)
        for number in processes:
            folder = Path(f'/proc/{number}')
            rollup = (folder / 'smaps_rollup').read_text()  # less the files that are mapped, as others map them too
            memory += sum(int(kilobytes) for kilobytes in re.findall(r'^Pss_(?:Anon|Shmem): +(\d+) kB', rollup, re.M))
            files += len(list((folder / 'fd').iterdir()))
            threads += len(list((folder / 'task').iterdir()))
    except OSError:
        return None
    return Sample(done, memory / 1024, files, threads, len(processes))


def watch(command: list, progress: re.Pattern, env: dict[str, str]) -> list[Sample]:
    """Samples of a script, one for each line of its that says how far it is.

    Raises:
        ValueError: it failed.
    """
    samples, last = [], []
    with subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, env={**os.environ, **env}) as process:
        for line in process.stdout:
            last = [*last[-4:], line]
            if (found := progress.search(line)) and (sample := look(process.pid, int(found[1].replace(',', '')))):
                samples.append(sample)
    if process.returncode:
        raise ValueError(''.join(['it failed:\n', *last]))
    return samples


def segment(requests: int) -> list[Sample]:
    """Samples of this process, which segments so many images of random sizes, one after the other."""
    model, random = load_model(REPOSITORY / 'tools/miniature/model.safetensors', device='cpu'), np.random.default_rng(0)
    words, samples = ['red dots', 'blue checks', 'green paint'], []
    for done in range(1, requests + 1):
        model.segment(random.integers(0, 256, (*random.integers(*SIDES, 2), 3), dtype=np.uint8), words)
        if done % max(1, requests // 50) == 0:
            samples.append(look(os.getpid(), done))
    return samples


def medians(samples: list[Sample], quarter: int) -> Sample:
    part = samples[len(samples) * (quarter - 1) // 4:len(samples) * quarter // 4]
    return Sample(part[-1].done, *(statistics.median_high(column) for column in list(zip(*part, strict=True))[1:]))


def is_flat(samples: list[Sample]) -> bool:
    """
    Raises:
        ValueError: there are too few samples to tell.
    """
    if len(samples) < 8:
        raise ValueError(f'{len(samples)} samples are too few: ask for a longer run.')
    before, after = medians(samples, 2), medians(samples, 4)
    return after.memory <= before.memory + max(16, 0.02 * before.memory) and \
        all(new <= old for old, new in zip(before[2:], after[2:], strict=True))


def report(name: str, samples: list[Sample], seconds: float) -> bool:
    """Prints the table of a run and whether it is flat."""
    flat = is_flat(samples)
    table = PrettyTable(['done', 'MB', 'files', 'threads', 'processes'], align='r')
    for quarter in range(1, 5):
        row = medians(samples, quarter)
        table.add_row([f'to {row.done}', f'{row.memory:.0f}', *row[2:]])
    print(f'{name}, {seconds:.0f} s, {len(samples)} samples, medians of each quarter:\n{table}\n'
          f'{"flat" if flat else "NOT FLAT"}\n', flush=True)
    return flat


def main() -> None:
    parser = argparse.ArgumentParser(description='Do long runs stay flat?')
    parser.add_argument('--iterations', type=process.at_least_one, default=1000, help='of training (default: 1000)')
    parser.add_argument('--images', type=process.at_least_one, default=500, help='of a test (default: 500)')
    parser.add_argument('--requests', type=process.at_least_one, default=1000,
                        help='images that a model is asked for (default: 1000)')
    parser.add_argument('--workers', type=int, nargs='*', default=[2, 0], help='of the loaders (default: 2 0)')
    args = parser.parse_args()
    config, every, flat = REPOSITORY / 'configs/miniature/inductive.py', max(1, args.iterations // 8), []

    def measure(name: str, samples_of, *arguments) -> None:
        started = time.monotonic()
        samples = samples_of(*arguments)
        flat.append(report(name, samples, time.monotonic() - started))

    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder) / 'world'
        write_world(world, train=400, val=args.images, seed=0)
        names = (world / 'ImageSets/Segmentation/val.txt').read_text().splitlines(keepends=True)
        (world / 'ImageSets/Segmentation/few.txt').write_text(''.join(names[:FEW]))
        env = {'CLIPRC_CACHE': f'{folder}/cache'}
        for workers in args.workers:
            work = Path(folder) / f'workers_{workers}'
            common = ['--data-root', world, '--cfg-options', f'model.pretrained={CLIP}',
                      f'model.pretrained_text={CLIP}', f'data.workers_per_gpu={workers}']
            measure(f'training, {workers} loader workers, evaluation and checkpoint every {every} iterations', watch,
                    [REPOSITORY / 'tools/train.py', config, '--work-dir', work, '--seed', 0, *common,
                     'data.samples_per_gpu=1', f'runner.max_iters={args.iterations}', f'evaluation.interval={every}',
                     'evaluation.save_best=hIoU', f'checkpoint_config.interval={every}',
                     'data.val.split=ImageSets/Segmentation/few.txt',
                     f'log_config.interval={max(1, args.iterations // 100)}'], TRAINING, env)
            measure(f'test of {args.images} images, {workers} loader workers', watch,
                    [REPOSITORY / 'test.py', config, work / 'latest.pth', '--eval', 'mIoU', *common], TESTING, env)
    measure(f'{args.requests} images of {SIDES[0]} to {SIDES[1]} pixels asked for', segment, args.requests)
    sys.exit(not all(flat))


if __name__ == '__main__':
    process.run(main)
