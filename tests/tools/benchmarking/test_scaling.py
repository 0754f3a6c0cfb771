"""The step on many GPUs: the formula's limits, and what it takes for granted."""
import fill
import pytest
import torch.distributed as dist
from mmcv import ConfigDict
from mmseg.models import build_segmentor

from tests.conftest import golden_config
from tools.benchmarking import scaling
from tools.benchmarking.scaling import BUCKET, FIRST_BUCKET, Link, predict

LINK = Link(bandwidth=1e9, latency=1e-5)


def test_all_reduce():
    assert LINK.all_reduce(1e8, 1) == 0
    assert LINK.all_reduce(1e8, 2) == pytest.approx(0.1 + 2e-5)  # a ring: each sends two halves
    assert LINK.all_reduce(1e8, 8) == pytest.approx(0.175 + 14e-5)
    assert LINK.all_reduce(4, 512) == pytest.approx(18e-5, rel=1e-3)  # a tree: 9 levels, up and down
    assert LINK.all_reduce(1e8, 512) < 0.2 + 19e-5, 'however many, the bytes cost no more than twice'


def test_what_the_backward_pass_hides():
    def step(size: float):
        return predict(compute=1., backward_share=0.6, gradient_bytes=size, n=2, link=Link(1e9, 0.), scalars=0)

    size = FIRST_BUCKET + 3 * BUCKET + 1e7
    assert step(size).nothing_hidden == pytest.approx(1 + size / 1e9)
    assert step(size).all_hidden == pytest.approx(1.01)  # all but the last bucket
    assert step(1e6).all_hidden == step(1e6).nothing_hidden == pytest.approx(1.001)  # there is but one
    assert step(2e9).all_hidden == pytest.approx(1 + 2 - 0.6)


def test_scalars_of_a_step(monkeypatch):
    model = build_segmentor(ConfigDict(golden_config('inductive'))).train()
    batch = {'img': fill.image(1, (2, 3, 64, 64)), 'img_metas': [{}, {}],
             'gt_semantic_seg': fill.labels(2, (2, 1, 64, 64), 6)}
    sizes, all_reduce = [], dist.all_reduce
    monkeypatch.setattr(dist, 'all_reduce', lambda tensor: (sizes.append(tensor.numel()), all_reduce(tensor)))
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    try:
        model.train_step(batch, None)
    finally:
        dist.destroy_process_group()
    assert sizes == [1] * scaling.SCALARS


def test_the_table(run, tiny_configs):
    shown = run('tools/benchmarking/scaling.py', tiny_configs['inductive'], '--gpus', 1, 512, '--step-ms', 20).stdout
    assert 'inductive: 2 images a GPU, compute 20.0 ms (measured)' in shown
    one, many = ([cell.strip() for cell in line.split('|')[1:-1]] for line in shown.splitlines() if '- ' in line)
    assert one[:6] == ['1', '2', '0.00', '0.00', '20.0', '20.0'] and one[7] == '100 - 100 %'
    assert many[:2] == ['512', '1024'] and float(many[4]) >= float(many[5]) > 20


def test_a_measured_step_is_of_one_config(run):
    done = run('tools/benchmarking/scaling.py', '--step-ms', 20, check=False)
    assert done.returncode == 1 and done.stderr == 'error: --step-ms is the step of one config: name it.\n'
