"""Autocast from the command line: training, resuming, testing."""
import re

import pytest
import torch

TRAIN = 'tools/train.py'


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_train_resume_and_test(call, tiny_configs, tmp_path, dtype):
    options = ['--seed', 3, '--no-validate', '--work-dir', tmp_path]
    amp = ['--cfg-options', f'amp.dtype={dtype}']
    first = call(TRAIN, tiny_configs['inductive'], *options, *amp, 'runner.max_iters=2')
    assert f'products in {dtype}' in first.stderr
    second = call(TRAIN, tiny_configs['inductive'], *options, *amp, '--auto-resume')
    losses = [float(each) for each in re.findall(r' loss: ([\d.]+|nan)', first.stderr + second.stderr)]
    assert len(losses) == 4 and all(0 < loss < 1000 for loss in losses)
    meta = torch.load(tmp_path / 'iter_4.pth', weights_only=True)['meta']
    assert ('grad_scaler' in meta) == (dtype == 'float16')
    if dtype == 'float16':  # 2 steps of the first run and 2 of the second, less those that found an overflow
        earlier = torch.load(tmp_path / 'iter_2.pth', weights_only=True)['meta']['grad_scaler']
        assert meta['grad_scaler']['scale'] <= earlier['scale'], 'the scale started anew'
        assert (meta['grad_scaler']['scale'], meta['grad_scaler']['_growth_tracker']) != (65536., 2)
    tested = call('test.py', tiny_configs['inductive'], tmp_path / 'latest.pth', '--eval', 'mIoU', *amp)
    assert 'hIoU' in tested.stderr + tested.stdout


def test_accumulated_steps_in_float16(call, tiny_configs, tmp_path):
    done = call(TRAIN, tiny_configs['inductive'], '--seed', 3, '--no-validate', '--work-dir', tmp_path,
               '--total-batch-size', 4, '--cfg-options', 'amp.dtype=float16', 'runner.max_iters=2')
    assert 'accumulated: 2' in done.stderr and len(re.findall(r' loss: [\d.]+', done.stderr)) == 4


@pytest.mark.parametrize('mode', ['slide', 'whole'])
def test_windows_from_the_command_line(call, tiny_configs, trained, mode):
    done = call('test.py', tiny_configs['inductive'], trained / 'latest.pth', '--eval', 'mIoU', '--cfg-options',
               f'model.test_cfg.mode={mode}', 'model.test_cfg.windows_per_batch=3')
    assert 'hIoU' in done.stderr + done.stdout
