"""A dataset that makes one process hang or end, registered by a module of the config.

`troubled` in conftest.py makes such configs.
"""
import os
import signal
import time

from mmseg.datasets import DATASETS

from datasets import PascalVOC20


def sleeps_for_ever():
    time.sleep(10000)


def sleeps_a_while():
    time.sleep(2)


def is_killed():
    os.kill(os.getpid(), signal.SIGKILL)


@DATASETS.register_module()
class Troubled(PascalVOC20):
    """The process `rank` calls the function `way` at each image after the first `after`."""

    def __init__(self, *, rank, way, after, **options):
        super().__init__(**options)
        self.mine, self.way, self.left = int(os.environ.get('RANK', 0)) == rank, way, after

    def pre_pipeline(self, results):
        self.left -= 1
        if self.mine and self.left < 0:
            globals()[self.way]()
        super().pre_pipeline(results)
