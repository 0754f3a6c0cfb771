"""Configs as commands read them: overrides, paths independent of the current folder, and names without effect."""
import argparse
import gc
import json
import re
import sys
from pathlib import Path

import pytest
from mmcv import Config

from models.errors import UserError
from tests.conftest import LEAVES, REPOSITORY
from tools.engine import config as config_module
from tools.engine.arguments import add_config_arguments
from tools.engine.config import as_data, as_text, load_config
from tools.engine.data import evaluation_dataset, training_dataset

LEAF = REPOSITORY / 'configs' / 'voc12' / f'{LEAVES["inductive"]}.py'
EXAMPLE = REPOSITORY / 'configs/custom/example.py'


def load(*arguments):
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    args = parser.parse_args([str(argument) for argument in arguments])
    return load_config(args.config, args.cfg_options, args.data_root)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test runs outside the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- paths and overrides

def test_paths_are_relative_to_the_repository(elsewhere):
    config = load(LEAF, '--cfg-options', 'model.load_text_embedding=some/table.npy', f'data.val.data_root={elsewhere}')
    assert config.model.pretrained == config.model.pretrained_text == str(REPOSITORY / 'pretrained/ViT-B-16.pt')
    assert config.model.load_text_embedding == str(REPOSITORY / 'some/table.npy')
    assert config.data.train.data_root == config.data.test.data_root == str(REPOSITORY / 'data/VOCdevkit/VOC2012')
    assert config.data.val.data_root == str(elsewhere)


def test_prompts_that_an_embedding_file_would_ignore(elsewhere):
    (elsewhere / 'rows.npy').touch()
    prompts, file = 'data.test.prompt_set=imagenet80', 'model.load_text_embedding=rows.npy'
    with pytest.raises(UserError, match=f'{prompts} has no effect, .* those in {elsewhere}/rows.npy. Add model.load_t'):
        load(LEAF, '--cfg-options', prompts, file)
    assert load(LEAF, '--cfg-options', file).model.load_text_embedding == str(elsewhere / 'rows.npy')
    for unused in ('model.load_text_embedding=nowhere.npy', 'model.load_text_embedding=None'):
        assert load(LEAF, '--cfg-options', prompts, unused).data.test.prompt_set == 'imagenet80'


@pytest.mark.parametrize('root', ['here/voc', '/there/voc'])
def test_data_root_applies_to_every_dataset(elsewhere, root):
    """A relative one is relative to the current folder."""
    (elsewhere / 'wrapped.py').write_text(
        f"_base_ = '{LEAF}'\n"
        "data = dict(train=dict(_delete_=True, type='RepeatDataset', times=2, dataset=dict(type='PascalVOC20',\n"
        "    img_dir='JPEGImages', data_root='old', pipeline=[])),\n"
        "    test=[dict(type='PascalVOC20', img_dir='JPEGImages', data_root='old') for _ in range(2)])\n")
    data = load('wrapped.py', '--data-root', root).data
    assert {dataset.data_root for dataset in (data.train.dataset, data.val, *data.test)} == {str(elsewhere / root)}


def test_options_given_twice_add_up():
    config = load(LEAF, '--cfg-options', 'data.samples_per_gpu=3', 'runner.max_iters=7', '--options', 'log_level=DEBUG',
                  '--cfg-options', 'data.workers_per_gpu=1', 'runner.max_iters=8')
    assert (config.data.samples_per_gpu, config.data.workers_per_gpu, config.runner.max_iters) == (3, 1, 8)
    assert config.log_level == 'DEBUG'
    with pytest.raises(ValueError, match='runner.max_iters.deep'):
        load(LEAF, '--cfg-options', 'runner.max_iters.deep=3')


@pytest.mark.parametrize(('present', 'found'), [
    (['pretrained/ViT-B-16.pt'], 'pretrained/ViT-B-16.pt'), (['ViT-B-16.pt', 'pretrained/ViT-B-16.pt'], 'ViT-B-16.pt')])
def test_the_official_name_of_the_clip_file(elsewhere, monkeypatch, present, found):
    (elsewhere / 'pretrained').mkdir()
    for name in present:
        (elsewhere / name).touch()
    monkeypatch.setattr(config_module, 'REPOSITORY', elsewhere)
    config = load(LEAF, '--cfg-options', 'model.pretrained=ViT-B-16.pt', 'model.pretrained_text=ViT-B-16.pt')
    assert config.model.pretrained == config.model.pretrained_text == str(elsewhere / found)


def test_as_data_is_plain_json():
    config = load(LEAF, '--cfg-options', 'model.test_cfg.stride=(40,40)')
    config.folder = Path('somewhere')
    data = as_data(config)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data['folder'] == 'somewhere' and data['model']['test_cfg']['stride'] == [40, 40]


# ---- files

@pytest.mark.parametrize(('name', 'text', 'message'), [
    ('no_such.py', None, 'no config file no_such.py.*configs'),
    ('base.py', 'runner = dict(max_iters=1)', 'base.py has no `model`'),
    ('part.py', 'model = dict(backbone=dict(), decode_head=dict())\ndata = dict()', 'part.py has no `data.test`'),
    ('text.py', 'model = "a"\ndata = dict()', 'text.py has no `model.backbone`'),
    ('typo.py', 'model = dict(', 'typo.py cannot be read'),
    ('lost.py', "_base_ = './no_such.py'", 'lost.py cannot be read.*no_such.py'),
    ('wrong.txt', 'model', 'type'),
    ('imports.py', 'import no_such_package', 'imports.py cannot be read.*no_such_package'),
    ('latin.py', '# \udce9', 'latin.py cannot be read as a config: .*utf-8'),
    ('stopped.py', 'raise KeyboardInterrupt', '^$'),
])
def test_files_that_are_not_configs(elsewhere, monkeypatch, name, text, message):
    if text is not None:
        (elsewhere / name).write_text(text, errors='surrogateescape')
    complaints, search_path = [], [*sys.path]
    monkeypatch.setattr(sys, 'unraisablehook', complaints.append)
    with pytest.raises((ValueError, OSError, KeyboardInterrupt), match=message) as caught:
        load(name)
    del caught
    gc.collect()
    assert complaints == [], 'of the temporary file of mmcv'
    assert sys.path == search_path


def test_a_config_and_its_base_written_on_windows(elsewhere):
    (elsewhere / 'base.py').write_bytes(f"_base_ = {str(LEAF)!r}\r\nseed = 7  # \u00e9\r\n".encode('utf-8-sig'))
    (elsewhere / 'leaf.py').write_bytes("_base_ = 'base.py'\r\nlog_level = 'DEBUG'".encode('utf-8-sig'))
    config = load('leaf.py')
    assert (config.seed, config.log_level) == (7, 'DEBUG')


def test_a_json_trains_on_the_same(tmp_path):
    """Lists of a JSON stand for tuples where mmseg needs these."""
    (tmp_path / 'mine.json').write_text(json.dumps(Config.fromfile(str(EXAMPLE))._cfg_dict.to_dict()))
    for build in (training_dataset, lambda config: evaluation_dataset(config, 'test', scored=True)):
        ours, from_json = (re.sub(' at 0x[0-9a-f]+', '', repr(build(load(file)).pipeline))
                           for file in (EXAMPLE, tmp_path / 'mine.json'))
        assert ours == from_json


# ---- the size of images

def test_image_size_changes_every_length():
    config = load(LEAF, '--cfg-options', 'image_size=256')
    assert config.model.backbone.input_resolution == config.model.decode_head.img_size == 256
    assert config.model.test_cfg == {'mode': 'slide', 'crop_size': (256, 256), 'stride': (213, 213)}
    steps = {step.type: step for step in config.data.train.pipeline}
    assert steps['Resize'] == {'type': 'Resize', 'img_scale': (1024, 256), 'ratio_range': (0.5, 2.0)}
    assert steps['RandomCrop'].crop_size == steps['Pad'].size == (256, 256)
    for part in ('val', 'test'):
        scales = config.data[part].pipeline[1]
        assert scales.img_scale == (1024, 256) and scales.transforms[0].min_size == 256


def test_image_size_of_a_config_that_has_it_already(tmp_path):
    config = load(LEAF, '--cfg-options', 'image_size=256')
    (tmp_path / 'copy.py').write_text(as_text(config))
    assert as_data(load(tmp_path / 'copy.py')) == as_data(config)
    again = load(tmp_path / 'copy.py', '--cfg-options', 'image_size=512')
    assert as_data(again)['data'] == as_data(load(LEAF))['data']


# ---- names at the top of a config

@pytest.fixture
def written(tmp_path):
    """A config with these lines upon a complete one."""
    def write(*lines: str) -> Path:
        (tmp_path / 'mine.py').write_text('\n'.join([f'_base_ = {str(EXAMPLE)!r}', *lines]))
        return tmp_path / 'mine.py'

    return write


@pytest.mark.parametrize(('line', 'message'), [
    ('optimiser = dict(lr=1)', 'optimiser is not a setting .*did you mean optimizer?'),
    ('evalution = dict(interval=3)', 'did you mean evaluation?'),
    ('early_stopping = dict(patience=3)', 'early_stopping is not a setting'),
    ('data_root = "/my/data"', 'data_root is not a setting .*data=dict'),  # the base's folder stays as it is
    ('dist_params = dict(backend="mpi")', 'dist_params is not a setting .*NCCL'),
    ('fp16 = dict(loss_scale=512.)', 'fp16 is not a setting .*amp='),
    ('resume = True', 'resume is not a setting .*--auto-resume'),
    ('optim_wrapper = dict(type="AmpOptimWrapper")', 'optim_wrapper is not a setting .*MMEngine'),
    ('workflow = [("train", 1), ("val", 1)]', r"workflow is .*only \[\('train', 1\)\].*evaluation"),
    ('data = dict(sample_per_gpu=3)', 'data has no sample_per_gpu; there are samples_per_gpu'),
    ('log_level = "VERBOSE"', "log_level='VERBOSE': one of .*INFO"),
    ('model = dict(test_cfg=dict(strid=(32, 32)))', 'model.test_cfg has no strid; .*stride'),
    ('model = dict(test_cfg=dict(mode="slid"))', "test_cfg.mode='slid': one of slide, whole is needed"),
    ('model = dict(test_cfg=dict(windows_per_batch=0))', 'windows_per_batch=0: an integer of at least 1 is needed'),
    ('model = dict(test_cfg=None)', 'has no `model.test_cfg`'),
    ('compile = "no"', "compile='no': one of False, True, reduce-overhead is needed"),
    ('compile, model = "reduce-overhead", dict(test_cfg=dict(mode="whole"))', 'a CUDA graph for each size of image'),
    ('tf32 = "high"', "tf32='high': one of False, True is needed"),
    ('tf32 = 1', 'tf32=1: one of False, True is needed'),
    ('image_size = 0', 'image_size=0: an integer of at least 1 is needed'),
    ('image_size = 51.2', 'image_size=51.2: an integer'),
])
def test_refused(written, line, message):
    with pytest.raises(UserError, match=message):
        load(written(line))


@pytest.mark.parametrize('lines', [
    ('dist_params = dict(backend="nccl")', 'mp_start_method = "fork"', 'opencv_num_threads = 0', 'fp16 = None',
     'workflow = [("train", 1)]', 'auto_resume = False', 'gpu_ids = range(0, 1)', 'device = "cuda"'),
    ('dataset_size = 3', 'optimizers = dict(lr=1)', 'optimizer = dict(lr=optimizers["lr"] * dataset_size)'),
    ('import os', 'from math import pi', 'optimizer = dict(lr=pi)', 'def twice(x): return 2 * x'),
    ('find_unused_parameters = True', 'custom_hooks = []', 'seed = 1', 'compile = False'),
    ('compile = "reduce-overhead"',),
])
def test_accepted(written, lines):
    load(written(*lines))


def test_helpers_of_a_base(written, tmp_path):
    """A base may define helpers that no leaf uses; a setting that it misspells is still found."""
    base = written('folder = "train"', 'data = dict(train=dict(img_dir="train/images"))', 'pipeline_of_mine = []')
    leaf = tmp_path / 'leaf.py'
    leaf.write_text("_base_ = 'mine.py'\nruns = {{_base_.folder}}\nwork_dir = runs\n")
    assert load(leaf).work_dir == 'train'
    with pytest.raises(UserError, match='mine.py: folder is not a setting'):
        load(base)
    base.write_text(base.read_text() + '\noptimiser = dict(lr=1)\n')
    with pytest.raises(UserError, match='optimiser is not a setting'):
        load(leaf)


@pytest.mark.parametrize('name', ['dumped.py', 'dumped.json', 'dumped.yaml'])
def test_a_config_that_a_program_wrote(tmp_path, name):
    """It holds helpers that nothing reads any more; unsupported and misspelt settings are found."""
    config = Config.fromfile(str(EXAMPLE))
    config.dump(str(tmp_path / name))
    assert load(tmp_path / name).data.train.img_dir == 'train/images'
    for setting, meant in (('optimiser', 'optimizer?'), ('momentum_config', 'custom_hooks')):
        more = Config({**config._cfg_dict.to_dict(), setting: {'lr': 1}})
        more.dump(str(tmp_path / name))
        with pytest.raises(UserError, match=re.escape(f'{name}: {setting} is not a setting') + f'.*{meant}'):
            load(tmp_path / name)
