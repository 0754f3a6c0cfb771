"""No name at the top of a config is passed over in silence."""
import json
import re
from argparse import Namespace
from pathlib import Path

import pytest
from mmcv import Config

from models.errors import UserError
from tests.conftest import REPOSITORY
from tools.engine.config import load_config
from tools.engine.data import evaluation_dataset, training_dataset

BASE = REPOSITORY / 'configs/custom/example.py'


def load(file: Path) -> Config:
    return load_config(Namespace(config=str(file), data_root=None, options=[], cfg_options=[]))


@pytest.fixture
def written(tmp_path):
    """A config with these lines upon a whole one."""
    def write(*lines: str) -> Path:
        (tmp_path / 'mine.py').write_text('\n'.join([f'_base_ = {str(BASE)!r}', *lines]))
        return tmp_path / 'mine.py'

    return write


@pytest.mark.parametrize(('line', 'words'), [
    ('optimiser = dict(lr=1)', 'optimiser is not a setting .*did you mean optimizer?'),
    ('lr_confg = dict(policy="poly")', 'did you mean lr_config?'),
    ('evalution = dict(interval=3)', 'did you mean evaluation?'),
    ('early_stopping = dict(patience=3)', 'early_stopping is not a setting'),
    ('max_iters = 100', 'max_iters is not a setting'),
    ('data_root = "/my/data"', 'data_root is not a setting .*data=dict'),  # the base's folder stays what it is
    ('crop_size = (32, 32)', 'crop_size is not a setting'),
    ('momentum_config = dict(policy="cyclic")', 'momentum_config is not a setting .*custom_hooks'),
    ('dist_params = dict(backend="mpi")', 'dist_params is not a setting .*NCCL'),
    ('mp_start_method = "spawn"', 'mp_start_method is not a setting .*forked'),
    ('opencv_num_threads = 4', 'opencv_num_threads is not a setting'),
    ('resume = True', 'resume is not a setting .*--auto-resume'),
    ('optim_wrapper = dict(type="AmpOptimWrapper")', 'optim_wrapper is not a setting .*amp'),
    ('param_scheduler = [dict(type="PolyLR")]', 'param_scheduler is not a setting .*lr_config'),
    ('default_hooks = dict(logger=dict())', 'default_hooks is not a setting .*log_config'),
    ('model_wrapper_cfg = dict(type="DDP")', 'model_wrapper_cfg is not a setting .*find_unused_parameters'),
    ('train_cfg = dict(max_iters=3)', 'train_cfg is not a setting'),
    ('workflow = [("train", 1), ("val", 1)]', r"workflow=.*only \[\('train', 1\)\].*evaluation"),
    ('workflow = "train"', "workflow='train'"),
    ('data = dict(train_dataloader=dict(samples_per_gpu=3))', 'data.train_dataloader: data has samples_per_gpu'),
    ('data = dict(sample_per_gpu=3)', 'data.sample_per_gpu: data has samples_per_gpu'),
    ('log_level = "VERBOSE"', "log_level='VERBOSE'.*INFO"),
])
def test_refused(written, line, words):
    with pytest.raises(UserError, match=words):
        load(written(line))


@pytest.mark.parametrize('lines', [
    ('workflow = [("train", 1)]',),
    ('dist_params = dict(backend="nccl")', 'mp_start_method = "fork"', 'opencv_num_threads = 0', 'fp16 = None',
     'momentum_config = None', 'auto_resume = False', 'gpu_ids = range(0, 1)', 'device = "cuda"'),
    ('side = 64', 'model = dict(decode_head=dict(img_size=side))'),
    ('dataset_size = 3', 'optimizers = dict(lr=1)', 'optimizer = dict(lr=optimizers["lr"] * dataset_size)'),
    ('import os', 'from math import pi', 'optimizer = dict(lr=pi)', 'def twice(x): return 2 * x'),
    ('find_unused_parameters = True', 'custom_hooks = []', 'seed = 1', 'compile = False'),
])
def test_taken(written, lines):
    load(written(*lines))


def test_helpers_of_a_base(written, tmp_path):
    """A base may offer what no leaf reads; a setting that it misspells is still found."""
    base = written('folder = "train"', 'data = dict(train=dict(img_dir="train/images"))', 'pipeline_of_mine = []')
    leaf = tmp_path / 'leaf.py'
    leaf.write_text("_base_ = 'mine.py'\nruns = {{_base_.folder}}\nwork_dir = runs\n")
    assert load(leaf).work_dir == 'train'
    with pytest.raises(UserError, match='mine.py: folder is not a setting'):
        load(base)
    base.write_text(base.read_text() + '\noptimiser = dict(lr=1)\n')
    with pytest.raises(UserError, match='mine.py: optimiser is not a setting'):
        load(leaf)


@pytest.mark.parametrize('name', ['dumped.py', 'dumped.json', 'dumped.yaml'])
def test_what_a_program_wrote(tmp_path, name):
    """It holds the helpers, too, which nothing reads any more; settings that are unknown or misspelt are found."""
    config = Config.fromfile(str(BASE))
    config.dump(str(tmp_path / name))
    assert load(tmp_path / name).data.train.img_dir == 'train/images'
    for setting, meant in (('optimiser', 'optimizer?'), ('momentum_config', 'custom_hooks'), ('my_config', '')):
        more = Config(config._cfg_dict.to_dict())
        more[setting] = {'lr': 1}
        more.dump(str(tmp_path / name))
        with pytest.raises(UserError, match=re.escape(f'{name}: {setting} is not a setting') + f'.*{meant}'):
            load(tmp_path / name)


def test_every_config_of_ours():
    for file in REPOSITORY.glob('configs/*/*.py'):
        if file.parent.name != '_base_':
            load(file)


def test_a_json_trains_on_the_same(tmp_path):
    """Lists of a JSON stand for tuples where mmseg needs these."""
    (tmp_path / 'mine.json').write_text(json.dumps(Config.fromfile(str(BASE))._cfg_dict.to_dict()))
    for build in (training_dataset, lambda config: evaluation_dataset(config, 'test', scored=True)):
        ours, from_json = (build(load(file)) for file in (BASE, tmp_path / 'mine.json'))
        assert repr(ours.pipeline) == repr(from_json.pipeline)
