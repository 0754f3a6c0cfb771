#!/usr/bin/env python3
"""Check that long runs do not use more and more resources: `python tests/long_run.py`, about 4 minutes on 2 CPU cores.

The miniature is trained (with evaluations and checkpoints) and tested, and segments many images of many sizes. Memory,
open files and threads of the process and its loader workers are sampled from outside. A run is flat if from its second
quarter to its last the medians of open files and of threads did not rise, and that of memory rose by at most 2 % or
16 MB, whichever is more.
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

sys.path[0] = str(Path(__file__).resolve().parents[1])  # so that `datasets` and `tools` are this repository's

# isort: split
import numpy as np
from prettytable import PrettyTable

from models.inference import load_model
from tools.engine import errors
from tools.engine.arguments import positive_int
from tools.engine.config import REPOSITORY
from tools.miniature import CLIP
from tools.miniature.world import write_world

FEW = 20  # images of an evaluation while training
SIDES = (48, 400)  # of the segmented images, in pixels


class Sample(NamedTuple):
    """Resources of a process and all processes below it."""
    memory: float  # MB; shared memory is counted once
    files: int
    threads: int
    processes: int


def children(process: int) -> list[int]:
    return [int(child) for task in Path(f'/proc/{process}/task').iterdir()
            for child in (task / 'children').read_text().split()]


def tree(process: int) -> list[int]:
    return [process, *(found for child in children(process) for found in tree(child))]


def look(process: int) -> list[Sample]:
    """Return a sample of a process; none if one of those below it ends meanwhile."""
    memory = files = threads = 0
    try:
        processes = tree(process)
        for number in processes:
            folder = Path(f'/proc/{number}')
            rollup = (folder / 'smaps_rollup').read_text()  # without mapped files, which other processes share
            memory += sum(int(kilobytes) for kilobytes in re.findall(r'^Pss_(?:Anon|Shmem): +(\d+) kB', rollup, re.M))
            files += len(list((folder / 'fd').iterdir()))
            threads += len(list((folder / 'task').iterdir()))
    except OSError:
        return []
    return [Sample(memory / 1024, files, threads, len(processes))]


def watch(command: list, start: str, env: dict[str, str]) -> list[Sample]:
    """Sample a command twice a second once its output contains `start`, and check that it succeeds."""
    samples = []
    with tempfile.NamedTemporaryFile('w') as output:
        with subprocess.Popen([sys.executable, *map(str, command)], stdout=output, stderr=output,
                              env={**os.environ, **env}) as process:
            while process.poll() is None:
                if start in Path(output.name).read_text():
                    samples += look(process.pid)
                time.sleep(0.5)
        if process.returncode:
            raise ValueError(f'it failed:\n{Path(output.name).read_text()[-2000:]}')
    return samples


def segment(requests: int) -> list[Sample]:
    """Sample this process while it segments that many images of random sizes, one after the other."""
    model, random = load_model(REPOSITORY / 'tools/miniature/model.safetensors', device='cpu'), np.random.default_rng(0)
    names, samples = ['red dots', 'blue checks', 'green paint'], []
    for done in range(1, requests + 1):
        model.segment(random.integers(0, 256, (*random.integers(*SIDES, 2), 3), dtype=np.uint8), names)
        if done % max(1, requests // 50) == 0:
            samples += look(os.getpid())
    return samples


def report(name: str, samples: list[Sample]) -> bool:
    """Print the medians of each quarter of a run, and return whether it is flat."""
    if len(samples) < 8:
        raise ValueError(f'{len(samples)} samples are too few: ask for a longer run.')
    table, rows = PrettyTable(['quarter', 'MB', 'files', 'threads', 'processes'], align='r'), []
    for quarter in range(4):
        part = samples[len(samples) * quarter // 4:len(samples) * (quarter + 1) // 4]
        rows.append(Sample(*(statistics.median_high(column) for column in zip(*part, strict=True))))
        table.add_row([quarter + 1, f'{rows[-1].memory:.0f}', *rows[-1][1:]])
    _, before, _, after = rows
    flat = after.memory <= before.memory + max(16, 0.02 * before.memory) and \
        all(new <= old for old, new in zip(before[1:], after[1:], strict=True))
    print(f'{name}, {len(samples)} samples, medians of each quarter:\n{table}\n{"flat" if flat else "NOT FLAT"}\n',
          flush=True)
    return flat


def main() -> None:
    parser = argparse.ArgumentParser(description='Check that long runs do not use more and more resources.')
    parser.add_argument('--iterations', type=positive_int, default=1000, help='of training (default: 1000)')
    parser.add_argument('--images', type=positive_int, default=500, help='of a test (default: 500)')
    parser.add_argument('--requests', type=positive_int, default=1000,
                        help='images to segment (default: 1000)')
    parser.add_argument('--workers', type=int, nargs='*', default=[2, 0], help='of the loaders (default: 2 0)')
    args = parser.parse_args()
    config, every, flat = REPOSITORY / 'configs/miniature/inductive.py', max(1, args.iterations // 8), []
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
            samples = watch(
                [REPOSITORY / 'tools/train.py', config, '--work-dir', work, '--seed', 0, *common,
                 'data.samples_per_gpu=1', f'runner.max_iters={args.iterations}', f'evaluation.interval={every}',
                 'evaluation.save_best=hIoU', f'checkpoint_config.interval={every}',
                 'data.val.split=ImageSets/Segmentation/few.txt'], 'Iter [', env)
            flat.append(report(f'training, {workers} loader workers, evaluation and checkpoint every {every} '
                               'iterations', samples))
            test = [REPOSITORY / 'test.py', config, work / 'latest.pth', '--eval', 'mIoU', *common]
            samples = watch(test, ' unseen', env)
            flat.append(report(f'test of {args.images} images, {workers} loader workers', samples))
    flat.append(report(f'{args.requests} segmented images of {SIDES[0]} to {SIDES[1]} pixels', segment(args.requests)))
    sys.exit(not all(flat))


if __name__ == '__main__':
    errors.run(main)
