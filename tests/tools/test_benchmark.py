"""tools/benchmark.py: ratios, memory, floors, and the command end to end."""
import json
import math
import os
import platform
import warnings
from argparse import Namespace

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from mmcv import Config
from torch.utils.data._utils.pin_memory import pin_memory

from tests import gpu
from tests.conftest import LEAVES, REPOSITORY
from tests.models.naive import inputs_of
from tools.benchmarking import cost, feeding, measuring, subjects
from tools.engine.data import evaluation_dataset
from tools.engine.flop_count import attention_flops, count, floors
from tools.engine.process import Place

CPU = Place(torch.device('cpu'))


def test_ratios_are_to_the_yardstick_around(monkeypatch):
    """A machine that is half as fast in the second round, and once in the middle of one."""
    clock = iter([1., 3., 1., 2., 6., 2., 1., 4., 3.])
    monkeypatch.setattr(measuring, 'seconds', lambda job, device: next(clock))
    timings, yardsticks = measuring.measure({'job': lambda: None}, lambda: None, 3, CPU.device)
    assert yardsticks == [1., 1., 2., 2., 1., 3.]
    assert timings['job'] == {'seconds': 4., 'seconds_spread': [3., 6.], 'ratio': 3., 'ratio_spread': [2., 3.]}


def test_peak_memory_is_of_the_one_run():
    least = measuring.peak_memory(lambda: None, CPU.device)
    large = measuring.peak_memory(lambda: torch.ones(60_000_000).sum(), CPU.device)
    assert large - least == pytest.approx(240e6, rel=0.1)
    assert measuring.peak_memory(lambda: None, CPU.device) < large - 200e6, 'counted from an earlier run'


@pytest.mark.parametrize(('setting', 'classes'), [('inductive', 15), ('fully', 20)])
def test_floors(setting, classes):
    """Against fvcore's counts of the same: a little less, as elementwise work is left out."""
    config = Config.fromfile(str(REPOSITORY / 'configs/voc12' / f'{LEAVES[setting]}.py'))
    model = subjects.model_of(config, CPU)
    floor = floors(model)
    assert 0.985 < floor.window / sum(part.flops for part in count(model, (512, 512)).values()) < 1
    assert len(model.train().decode_head.class_head.rows_in_use()) == classes
    assert 2.5 < floor.step / floor.plain < 2.9
    model.class_head.set_classes(30, torch.ones(30, 512), seen=range(30 - 20 + classes))  # ten more in training
    space, pixels, layers = 512, 1024, 3 if setting == 'fully' else 4
    query = (1 + 12 * layers + (0 if setting == 'fully' else 3)) * space**2 + 4 * layers * pixels * space
    assert floors(model).step - floor.step == 3 * 10 * (16 * query + space**2 + pixels * space)


def test_the_yardstick_has_as_many_tokens():
    model = subjects.model_of(Config.fromfile(str(REPOSITORY / 'configs/voc12' / f'{LEAVES["inductive"]}.py')), CPU)
    vit, seen = subjects.plain_vit(model), []
    vit.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    analysis = FlopCountAnalysis(vit, torch.zeros(1, 3, 512, 512))
    analysis.set_op_handle('aten::scaled_dot_product_attention', attention_flops)
    total = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
    assert seen[0] == (1, 1 + 10 + 1024 + 16, 768) and len(vit.blocks) == 12
    assert floors(model).plain == pytest.approx(total, rel=0.01)


def test_the_script(output, tiny_configs, tmp_path):
    said = output('tools/benchmark.py', tiny_configs['inductive'], '--repeats', 1, '--batch', 2, '--amp', 'bfloat16',
               '--emulate', '--out', tmp_path / 'new')
    report = json.loads((tmp_path / 'new/benchmark.json').read_text())
    rows = {row['name']: row for row in report['rows']}
    both = ['2 windows -> scores', '2 windows -> labels', 'test image of 2 windows, file -> scores',
            '  the same, whole in one pass', 'training step, batch 2']
    assert list(rows) == [f'{name}, {kind}' for kind in ('float32', 'bfloat16') for name in both]
    for name, row in rows.items():
        assert row['ratio'] > 0 and row['peak_bytes'] > 1e8 and name.strip() in said
        assert row['seconds'] == pytest.approx(2 / row['images_per_second'] if '2 windows ->' in name or
                                               'step' in name else 1 / row['images_per_second'])
        assert ('floor' in row) == ('whole' not in name)
    assert {'name', 'threads', 'cpu_has_bfloat16', 'torch'} <= report['machine'].keys()


def test_other_numbers_of_classes(output, fails, call, tiny_configs, tmp_path):
    """Of masks with 16 bits, too; the floor counts their queries, and other options keep their meaning."""
    config = tiny_configs['inductive']
    said = output('tools/benchmark.py', config, '--repeats', 1, '--classes', 300, 5, 300, '--out', tmp_path / 'new')
    classes = json.loads((tmp_path / 'new/benchmark.json').read_text())['classes']
    assert [*classes] == ['5', '300'] and (tmp_path / 'new/benchmark.png').read_bytes()[:4] == b'\x89PNG'
    for number, numbers in classes.items():
        model = subjects.model_of(Config.fromfile(str(config)), CPU, int(number))
        assert len(model.class_head.embeddings) == int(number) and numbers['multiply_adds'] == floors(model)._asdict()
        assert [row['name'] for row in numbers['rows']] == ['a window -> labels, float32',
                                                            'test image of 2 windows, file -> scores, float32']
        for row in numbers['rows']:
            assert row['ratio_to_floor'] == row['ratio'] / row['floor'] and row['name'] in said
    assert fails('tools/benchmark.py', config, '--classes', 20, 70_000) == 'error: 70,000 classes: 65,535 at most.'
    for option in ('--train', '--load', '--attention'):
        done = call('tools/benchmark.py', config, '--classes', 20, option, check=False)
        assert done.returncode == 2 and '--classes: this is for --test alone' in done.stderr
    assert '\'0\' is not a positive integer' in call('tools/benchmark.py', config, '--classes', 0, check=False).stderr


def test_rows_for_each_form_of_the_mask(tiny_configs):
    """A job runs with its own form, whatever ran before."""
    config = Config.fromfile(str(tiny_configs['inductive']))
    model = subjects.model_of(config, CPU)
    args = Namespace(test=True, train=True, amp=None, batch=1, attention=True)
    jobs = cost.make_subjects(model, evaluation_dataset(config, 'test', scored=True), args, CPU)
    forms = {name.partition(', attention=')[::2]: job for name, job in jobs.items() if ', attention=' in name}
    assert list(forms) == [(title, form) for title in ('a window -> scores, float32', 'training step, batch 1, float32')
                           for form in ('plain', 'aligned', 'widened')]
    used = inputs_of(model.backbone.transformer.resblocks[0])
    for job in (*forms.values(), jobs['a window -> scores, float32']):
        job()
    kinds = [getattr(visible, 'shape', None) for _, visible, _ in used]
    assert kinds == [(21, 24), (21, 24), None] * 2 + [(21, 24)]


def test_how_many_workers_a_gpu_needs(output, tiny_configs, tmp_path):
    said = output('tools/benchmark.py', tiny_configs['inductive'], '--load', '--images-per-second', 1, 5000, '--device',
                  'cpu', '--out', tmp_path)
    report = json.loads((tmp_path / 'benchmark.json').read_text())
    load = report['load']
    cores = len(os.sched_getaffinity(0))
    assert load['cores'] == cores and [row['workers'] for row in load['rows']] == sorted({1, max(cores // 2, 1), cores})
    for row in load['rows']:
        assert {'LoadImage', 'LoadLabels', 'Resize', 'QuickRandomCrop', 'QuickRandomFlip', 'QuickPhotoMetricDistortion',
                'QuickNormalize', 'Pad', 'QuickDefaultFormatBundle', 'Collect'} < row['steps'].keys()
        assert len(row['steps']) == 12 and min(row['steps'].values()) > 0 and row['images_per_second'] > 0
        assert row['cpu_seconds'] == pytest.approx(sum(row['steps'].values()))
    for rate in (1, 5000):
        count = feeding.workers_needed(load, rate)
        assert f'a GPU that trains {rate} images/s needs {count} workers (data.workers_per_gpu={count})' in said
    assert count == math.ceil(5000 * load['rows'][-1]['cpu_seconds'])
    assert 'loading the config\'s images' in said and 'rows' not in report, 'the model was measured too'


def test_without_the_data_an_image_is_drawn(tiny_configs, tmp_path, monkeypatch):
    """Not where the user says where the data is."""
    monkeypatch.setattr(feeding, 'IMAGES', 8)
    config = Config.fromfile(str(tiny_configs['inductive']))
    config.data.train.data_root = str(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='nowhere'):
        feeding.measure(config, Namespace(data_root=str(tmp_path / 'nowhere')), CPU, tmp_path)
    load = feeding.measure(config, Namespace(data_root=None), CPU, tmp_path)
    assert 'a drawn image: ' in load['source'] and 'nowhere' in load['source']
    assert 80e3 < (tmp_path / 'load/images/drawn.jpg').stat().st_size < 100e3, 'not as large as a photograph'
    said = feeding.answer(load, None)
    assert all(f'trains {rate} images/s' in said for rate in feeding.RATES)
    load = {'source': '', 'cores': 4, 'rows': [{**load['rows'][0], 'cpu_seconds': 0.01}]}
    assert '400 images/s needs 4 workers (data.workers_per_gpu=4); this machine has 4 cores\n' in \
        feeding.answer(load, [400, 401])
    assert '401 images/s needs 5 workers (data.workers_per_gpu=5); this machine has 4 cores: too few' in \
        feeding.answer(load, [401])


def test_pinned_batches_keep_their_times(tiny_configs, monkeypatch):
    """A loader for a GPU passes batches through this function of torch, in a thread."""
    def pinned(loader):
        for batch in loader:
            result = pin_memory(batch)
            assert result['seconds'] == batch['seconds'] and result['seconds']['all'] > 0
            yield result

    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda tensor, *_: tensor)
    monkeypatch.setattr(feeding, 'iter', pinned, raising=False)
    monkeypatch.setattr(feeding, 'IMAGES', 4)
    assert feeding.loaded(Config.fromfile(str(tiny_configs['inductive'])), CPU, 1)['cpu_seconds'] > 0


def test_a_rate_is_for_loading_alone(run, tiny_configs):
    done = run('tools/benchmark.py', tiny_configs['inductive'], '--test', '--images-per-second', 10, check=False)
    assert done.returncode == 2 and '--images-per-second: this is for --load' in done.stderr
    done = run('tools/benchmark.py', tiny_configs['inductive'], '--load', '--attention', check=False)
    assert done.returncode == 2 and '--attention and --amp: these are for --test and --train' in done.stderr


@pytest.mark.skipif(platform.machine() != 'x86_64', reason='the variable is for x86')
def test_a_type_that_the_cpu_has_no_instructions_for(run, tiny_configs, tmp_path):
    done = run('tools/benchmark.py', tiny_configs['inductive'], '--repeats', 1, '--test', '--amp', 'bfloat16',
               '--device', 'cpu', '--out', tmp_path, env={'ONEDNN_MAX_CPU_ISA': 'AVX2'})
    assert 'no instructions for bfloat16' in done.stdout and '--emulate' in done.stdout
    report = json.loads((tmp_path / 'benchmark.json').read_text())
    assert len(report['rows']) == 4 and all('float32' in row['name'] for row in report['rows'])
    assert report['machine']['cpu_has_bfloat16'] is False


def test_the_rate_of_an_emulated_type_takes_seconds(monkeypatch):
    monkeypatch.setattr(measuring, 'cpu_has', lambda dtype: False)
    sides = []
    monkeypatch.setattr(measuring, 'seconds', lambda job, device: sides.append(len(job())) or 1.)
    assert measuring.matrix_rate(CPU.device, torch.float32) == 256**3 and {*sides} == {256}


def test_waits_of_the_host_are_counted():
    """In the step after three to warm up. torch's notice that it counts is no wait."""
    said = iter([[], [], [], ['Synchronization debug mode does not yet detect all synchronizing operations',
                              *['called a synchronizing CUDA operation'] * 2], []])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        found = gpu.measure(lambda: [warnings.warn(text, stacklevel=1) for text in next(said)], 1, 1.,
                            torch.device('cpu'))
    assert found['host_waits'] == 2 and found['steps'] == 1
