#!/usr/bin/env python3
"""Train a config: `python tools/train.py CONFIG`, or with several processes `bash dist_train.sh CONFIG WORK_DIR N`."""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # so that `datasets` and `tools` are this repository's
from tools.engine.arguments import add_config_arguments, add_hang_arguments, add_launch_arguments
from tools.engine.errors import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a CLIP-RC model.')
    add_config_arguments(parser)
    add_launch_arguments(parser)
    add_hang_arguments(parser)
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument('--load-from', metavar='CKPT',
                        help='start from these weights, a file or a name of tools/download.py; the schedule begins '
                             'anew')
    parser.add_argument('--resume-from', metavar='CKPT', help='resume a run of this code from this checkpoint')
    parser.add_argument('--auto-resume', action='store_true',
                        help='resume from the newest checkpoint in the work folder, if there is one')
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate while training')
    parser.add_argument('--total-batch-size', type=int, metavar='N',
                        help='images per step over all processes, reached by accumulating gradients')
    parser.add_argument('--seed', type=int, help='the same seed gives the same images (default: a random one)')
    parser.add_argument('--deterministic', action='store_true',
                        help='the same numbers each time on a GPU too, at a cost in time: an operation without a '
                             'deterministic algorithm is an error')
    parser.add_argument('--smoke-test', '--smoke', action='store_true',
                        help='before a long run: try all of it in a minute or two (two steps, checkpoint, evaluation '
                             'of four images, images of results, resuming) in WORK_DIR/smoke_test, which is then '
                             'removed, and estimate its time, memory and disk')
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.smoke_test:
        from tools.testing.run import test
        from tools.training.smoke_test import smoke_test
        smoke_test(args, test)
        return
    from tools.training.run import train
    train(args)


if __name__ == '__main__':
    run(main)
