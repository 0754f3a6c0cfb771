#!/usr/bin/env python3
"""How long a training step takes on many GPUs, on paper: `python tools/benchmarking/scaling.py [CONFIG ...]`.

Of a step on n GPUs, of which each has the images of the config, three parts are added up:

    compute    one GPU's own step, measured (--step-ms), or multiply-adds (tools/engine/flop_count.py) / --rate
    gradients  their all-reduce, of which the backward pass may hide a part:
                   nothing hidden    T(G)
                   all that can be   max(T(G) - backward pass, T(last bucket)): DDP sends a first bucket of 1 MiB, then
                                     each 25 MiB, and the rest when the backward pass ends
    scalars    all-reduces of one number each that the step waits for: the pairs of the mask losses, and mmseg's of how
               many values are logged, and of each value

where G is 4 bytes for each trained parameter, and T(bytes) = min(ring, tree) with

    ring = 2 (n - 1) / n * bytes / bandwidth + 2 (n - 1) * latency
    tree = 2 * bytes / bandwidth + 2 * ceil(log2 n) * latency

Bandwidth is what a machine sends (its GPUs' rings share its network), or a GPU where all are in one machine; latency is
of one message. Left out: waiting for the slowest process, loading images, checkpoints, evaluation.
"""
import argparse
import math
import sys
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

sys.path[0] = str(Path(__file__).resolve().parents[2])  # this repository's `datasets`, whoever else has one
import torch
from prettytable import PrettyTable

from models.errors import UserError
from tools.benchmarking.subjects import model_of
from tools.engine import process
from tools.engine.config import REPOSITORY, load_config
from tools.engine.flop_count import floors

CONFIGS = ['configs/voc12/clip_rc_zero_vit-b_512x512_40k_voc_10_16.py',
           'configs/coco/clip_rc_zero_vit-b_512x512_80k_coco_stuff164k_100_16.py']
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20  # bytes, of DDP
SCALARS = 8  # pairs; how many values; mask, dice, accuracy, two of recovery, their sum


class Link(NamedTuple):
    """What joins n GPUs."""
    bandwidth: float  # bytes a second
    latency: float  # seconds

    def all_reduce(self, size: float, n: int) -> float:
        """Seconds for `size` bytes on n GPUs, by a ring or a tree, whichever is faster."""
        ring = 2 * (n - 1) / n * size / self.bandwidth + 2 * (n - 1) * self.latency
        tree = 2 * size / self.bandwidth + 2 * math.ceil(math.log2(n)) * self.latency
        return min(ring, tree) if n > 1 else 0.


class Step(NamedTuple):
    """Seconds of a step's parts."""
    compute: float
    gradients: float
    scalars: float
    least_exposed: float  # of the gradients' all-reduce, when the backward pass hides all that it can

    @property
    def nothing_hidden(self) -> float:
        return self.compute + self.gradients + self.scalars

    @property
    def all_hidden(self) -> float:
        return self.compute + self.least_exposed + self.scalars


def predict(*, compute: float, backward_share: float, gradient_bytes: float, n: int, link: Link,
            scalars: int = SCALARS) -> Step:
    """A step on n GPUs.

    Args:
        compute: seconds of one GPU's own step.
        backward_share: of it that is the backward pass.
        scalars: all-reduces of one number.
    """
    gradients = link.all_reduce(gradient_bytes, n)
    rest = (gradient_bytes - FIRST_BUCKET) % BUCKET if gradient_bytes > FIRST_BUCKET else gradient_bytes
    exposed = max(gradients - backward_share * compute, link.all_reduce(rest, n))
    return Step(compute, gradients, scalars * link.all_reduce(4, n), exposed)


def parse_arguments() -> Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='default: VOC and COCO-Stuff, inductive')
    parser.add_argument('--step-ms', type=float, help='measured step of one GPU, in milliseconds (one CONFIG)')
    parser.add_argument('--rate', type=float, default=2e14,
                        help='without it: multiply-adds a GPU does in a second; an assumption (default: %(default).0e)')
    parser.add_argument('--gpus', type=process.at_least_one, nargs='+', default=[1, 8, 64, 512])
    parser.add_argument('--gpus-per-machine', type=process.at_least_one, default=8)
    parser.add_argument('--inside', type=float, nargs=2, default=(200., 5.), metavar=('GB/S', 'MICROSECONDS'),
                        help='bandwidth of a GPU and latency in a machine (default: 200 5)')
    parser.add_argument('--network', type=float, nargs=2, default=(25., 15.), metavar=('GB/S', 'MICROSECONDS'),
                        help='bandwidth of a machine and latency between machines (default: 25 15)')
    args = parser.parse_args()
    if args.step_ms is not None and len(args.configs) != 1:
        raise UserError('--step-ms is the step of one config: name it.')
    return args


def table(path: str, args: Namespace) -> str:
    """The steps of a config on all numbers of GPUs."""
    config = load_config(Namespace(config=path, data_root=None, options=[], cfg_options=[]))
    model = model_of(config, process.Place(torch.device('cpu')))
    images, counted = config.data.samples_per_gpu, floors(model)
    trained = sum(parameter.numel() for parameter in model.trainable_parameters())
    compute = args.step_ms / 1000 if args.step_ms else images * counted.step / args.rate
    rows = PrettyTable(['GPUs', 'batch', 'gradients ms', 'scalars ms', 'step ms, nothing hidden', 'all hidden',
                        'images/s', 'of n times one GPU'])
    rows.align = 'r'
    for n in args.gpus:
        bandwidth, latency = args.inside if n <= args.gpus_per_machine else args.network
        step = predict(compute=compute, backward_share=1 - counted.window / counted.step, gradient_bytes=4 * trained,
                       n=n, link=Link(1e9 * bandwidth, 1e-6 * latency))
        most, least = (n * images / seconds for seconds in (step.all_hidden, step.nothing_hidden))
        share = [f'{100 * compute / seconds:.0f}' for seconds in (step.nothing_hidden, step.all_hidden)]
        rows.add_row([n, n * images, f'{1000 * step.gradients:.2f}', f'{1000 * step.scalars:.2f}',
                      f'{1000 * step.nothing_hidden:.1f}', f'{1000 * step.all_hidden:.1f}',
                      f'{least:.0f} - {most:.0f}', f'{share[0]} - {share[1]} %'])
    source = 'measured' if args.step_ms else f'{counted.step / 1e9:.1f} G multiply-adds an image at {args.rate:.0e}/s'
    return (f'{Path(path).stem}: {images} images a GPU, compute {1000 * compute:.1f} ms ({source}), '
            f'{trained / 1e6:.2f} M trained parameters, {4 * trained / 1e6:.0f} MB of gradients\n{rows}')


def main() -> None:
    args = parse_arguments()
    for path in args.configs or [str(REPOSITORY / name) for name in CONFIGS]:
        sys.stdout.write(table(path, args) + '\n')


if __name__ == '__main__':
    process.run(main)
