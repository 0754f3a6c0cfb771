#!/usr/bin/env python3
"""The main job of tools/quickstart.sh: world, embeddings, inductive and transductive training, scores, images."""
import argparse
import os
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # this repository's `datasets`, whoever else has one
from prettytable import PrettyTable

from datasets.miniature import Miniature
from tools.engine import process
from tools.engine.config import REPOSITORY
from tools.miniature import images, runs
from tools.miniature.runs import Run

IMAGES, VAL_IMAGES = 1000, 200


class Steps:
    """Says what is being done and how long it took; on a terminal the progress of a step stays on its line."""

    def __init__(self, count: int):
        self.count, self.done = count, 0
        self.live = sys.stdout.isatty()

    def step(self, title: str, job, *args, **options):
        self.done += 1
        self.title = f'{self.done}/{self.count} {title}'
        print(self.title, end='\r' if self.live else '\n', flush=True)
        started = time.monotonic()
        result = job(*args, **options)
        took = time.monotonic() - started
        if self.live:
            print(f'\033[K{self.title}: {took:.0f} s', flush=True)
        else:
            print(f'    {took:.0f} s', flush=True)
        return result

    def report(self, text: str) -> None:
        text, end = (f'\033[K{self.title}: {text}', '\r') if self.live else (f'    {text}', '\n')
        print(text, end=end, flush=True)


def table(scores: dict[str, dict[str, float]]) -> PrettyTable:
    rows = PrettyTable(['mIoU in percent', 'seen', 'unseen', 'hIoU'])
    rows.align = 'r'
    rows.align['mIoU in percent'] = 'l'
    for name, found in scores.items():
        rows.add_row([name, *(f'{100 * found[key]:.1f}' for key in runs.SCORES)])
    return rows


def length(text: str) -> float:
    value = float(text)
    if not 0.004 <= value <= 1000:
        raise argparse.ArgumentTypeError(f'{text} is not between 0.004 (4 iterations) and 1000')
    return value


def main() -> None:
    parser = argparse.ArgumentParser('quickstart.sh', description='Train and test CLIP-RC in miniature.')
    parser.add_argument('--length', type=length, default=1., help='of the training, as a multiple of the usual one')
    args = parser.parse_args()
    work = Path(os.environ.get('WORK_DIR') or REPOSITORY / 'work_dirs/miniature').absolute()
    inductive = Run('inductive', 'inductive', length=args.length)
    transductive = Run('transductive', 'transductive', length=args.length, start=inductive)
    runs.end_on_sigterm()
    runs.open_folder(work, f'quickstart.sh --length {args.length:g}')
    split = Miniature.describe().split
    print(f'{len(split.names)} classes; training never sees masks of {", ".join(split.unseen_names)}.')
    steps = Steps(8)
    steps.step(f'drawing {IMAGES} images to train on and {VAL_IMAGES} to test on', runs.draw_world, work,
               train=IMAGES, val=VAL_IMAGES)
    steps.step('text embeddings of the class names', runs.embed, work, inductive)
    steps.step('inductive training', runs.train, work, inductive, steps.report)
    scores = {'inductive': steps.step('testing it', runs.test, work, inductive)}
    steps.step('transductive training, from the middle of the inductive', runs.train, work, transductive, steps.report)
    scores['transductive'] = steps.step('testing it', runs.test, work, transductive)
    scores['control: inductive, unseen names swapped'] = steps.step(
        'testing the inductive one with the names of unseen classes swapped', runs.test, work, inductive, shuffled=True)
    steps.step('images', draw, work, inductive, transductive)
    print(table(scores))
    print(f'{work}/results.png  results, unseen classes among them\n{work}/losses.png   loss curves')


def draw(work: Path, *compared: Run) -> None:
    images.results_image(work / compared[0].world, {run.name: work / run.name / 'labels.pkl' for run in compared}
                             ).save(work / 'results.png')
    images.loss_image({run.name: work / run.name for run in compared}, work / 'losses.png')


if __name__ == '__main__':
    process.run(main)
