"""Configs as scripts read them: overrides from the command line, and paths that do not depend on where one stands."""
import argparse
import gc
import json
import sys
from pathlib import Path

import pytest

from models.errors import UserError
from tests.conftest import LEAVES, REPOSITORY
from tools.engine import config as config_module
from tools.engine.config import add_config_arguments, as_data, as_text, load_config

LEAF = REPOSITORY / 'configs' / 'voc12' / f'{LEAVES["inductive"]}.py'


def load(*arguments):
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    return load_config(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test stands outside the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_paths_are_relative_to_the_repository():
    config = load(LEAF, '--cfg-options', 'model.load_text_embedding=some/table.npy')
    assert config.model.pretrained == config.model.pretrained_text == str(REPOSITORY / 'pretrained/ViT-B-16.pt')
    assert config.model.load_text_embedding == str(REPOSITORY / 'some/table.npy')
    for part in ('train', 'val', 'test'):
        assert config.data[part].data_root == str(REPOSITORY / 'data/VOCdevkit/VOC2012'), part


def test_absolute_paths_stay(elsewhere):
    config = load(LEAF, '--cfg-options', f'model.pretrained={elsewhere}/clip.pt', f'data.val.data_root={elsewhere}/voc')
    assert config.model.pretrained == f'{elsewhere}/clip.pt'
    assert config.data.val.data_root == f'{elsewhere}/voc'


@pytest.mark.parametrize('root', ['here/voc', '/there/voc'])
def test_data_root_goes_to_every_dataset(elsewhere, root):
    (elsewhere / 'wrapped.py').write_text(
        f"_base_ = '{LEAF}'\n"
        "data = dict(train=dict(_delete_=True, type='RepeatDataset', times=2, dataset=dict(type='PascalVOC20',\n"
        "    img_dir='JPEGImages', data_root='old', pipeline=[])),\n"
        "    test=[dict(type='PascalVOC20', img_dir='JPEGImages', data_root='old') for _ in range(2)])\n")
    # a relative one is relative to where the user stands
    expected = str(elsewhere / root)
    data = load('wrapped.py', '--data-root', root).data
    assert data.train.dataset.data_root == data.val.data_root == expected
    assert [dataset.data_root for dataset in data.test] == [expected] * 2
    data = load(LEAF, '--data-root', root).data
    assert {data[part].data_root for part in ('train', 'val', 'test')} == {expected}


def test_options_that_are_given_twice_add_up():
    config = load(LEAF, '--cfg-options', 'data.samples_per_gpu=3', 'runner.max_iters=7', '--options', 'log_level=DEBUG',
                  '--cfg-options', 'data.workers_per_gpu=1', 'runner.max_iters=8')
    assert (config.data.samples_per_gpu, config.data.workers_per_gpu, config.runner.max_iters) == (3, 1, 8)
    assert config.log_level == 'DEBUG'


@pytest.mark.parametrize(('present', 'found'), [
    (['pretrained/ViT-B-16.pt'], 'pretrained/ViT-B-16.pt'),
    (['ViT-B-16.pt', 'pretrained/ViT-B-16.pt'], 'ViT-B-16.pt'),
    (['ViT-B-16.pt'], 'ViT-B-16.pt'),
])
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
    assert data['folder'] == 'somewhere'
    assert data['model']['test_cfg']['stride'] == [40, 40]
    assert data['model']['decode_head']['num_heads'] == 8


@pytest.mark.parametrize(('name', 'text', 'words'), [
    ('no_such.py', None, 'no config file no_such.py.*configs'),
    ('base.py', 'runner = dict(max_iters=1)', 'base.py has no `model`'),
    ('typo.py', 'model = dict(', 'typo.py cannot be read'),
    ('lost.py', "_base_ = './no_such.py'", 'lost.py cannot be read.*no_such.py'),
    ('wrong.txt', 'model', 'type'),
    ('raises.py', 'model = dict(layers=[][3])', 'raises.py cannot be read'),
    ('imports.py', 'import no_such_package', 'imports.py cannot be read.*no_such_package'),
])
def test_files_that_are_no_config(elsewhere, monkeypatch, name, text, words):
    if text is not None:
        (elsewhere / name).write_text(text)
    complaints, search_path = [], [*sys.path]
    monkeypatch.setattr(sys, 'unraisablehook', complaints.append)
    with pytest.raises((ValueError, OSError), match=words) as caught:
        load(name)
    del caught
    gc.collect()
    assert complaints == [], 'of the temporary file of mmcv'
    assert sys.path == search_path


def test_ctrl_c_while_a_config_is_read(elsewhere, monkeypatch):
    (elsewhere / 'slow.py').write_text('raise KeyboardInterrupt')
    complaints = []
    monkeypatch.setattr(sys, 'unraisablehook', complaints.append)
    with pytest.raises(KeyboardInterrupt):
        load('slow.py')
    gc.collect()
    assert complaints == []


def test_an_option_that_does_not_fit_the_config():
    with pytest.raises(ValueError, match='runner.max_iters.deep'):
        load(LEAF, '--cfg-options', 'runner.max_iters.deep=3')


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
        assert scales.transforms[0].keep_ratio is True


def test_image_size_of_a_config_that_has_it_already(tmp_path):
    config = load(LEAF, '--cfg-options', 'image_size=256')
    (tmp_path / 'copy.py').write_text(as_text(config))
    assert as_data(load(tmp_path / 'copy.py')) == as_data(config)
    again = load(tmp_path / 'copy.py', '--cfg-options', 'image_size=512')
    assert as_data(again)['data'] == as_data(load(LEAF))['data']
    assert as_data(load(LEAF, '--cfg-options', 'image_size=512'))['model'] == as_data(load(LEAF))['model']


@pytest.mark.parametrize('side', ['0', '51.2', 'large'])
def test_invalid_image_size(side):
    with pytest.raises(ValueError, match=f'image_size=.?{side}.? is not a positive integer'):
        load(LEAF, '--cfg-options', f'image_size={side}')


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_a_config_and_its_base_of_windows(elsewhere, encoding):
    text = f"_base_ = {str(LEAF)!r}\r\nseed = 7  # \u00e9\r\n"
    (elsewhere / 'base.py').write_bytes(text.encode(encoding))
    (elsewhere / 'leaf.py').write_bytes("_base_ = 'base.py'\r\nlog_level = 'DEBUG'".encode(encoding))
    config = load('leaf.py')
    assert (config.seed, config.log_level) == (7, 'DEBUG')


def test_a_config_in_another_encoding(elsewhere):
    (elsewhere / 'latin.py').write_bytes("# \u00e9".encode('latin-1'))
    with pytest.raises(UserError, match=r'^\S*latin.py is not a UTF-8 text'):
        load('latin.py')


@pytest.mark.parametrize(('lines', 'hook'), [
    ('fp16 = dict()', {}),
    ('fp16 = dict(loss_scale="dynamic")', {'loss_scale': 'dynamic'}),
    ('fp16 = dict(loss_scale=512.)\namp = dict(dtype="float16")', {'loss_scale': 512.}),
    ('optimizer_config = dict(type="Fp16OptimizerHook", grad_clip=dict(max_norm=1), distributed=False)',
     {'grad_clip': {'max_norm': 1}, 'loss_scale': 512.}),
    ('optimizer_config = dict(type="GradientCumulativeFp16OptimizerHook", cumulative_iters=2)\nfp16 = dict()',
     {'cumulative_iters': 2, 'loss_scale': 512.}),
])
def test_the_ways_to_float16_of_mmcv(elsewhere, lines, hook):
    (elsewhere / 'leaf.py').write_text(f'_base_ = {str(LEAF)!r}\n{lines}')
    config = load('leaf.py')
    assert config.amp == {'dtype': 'float16'} and config.optimizer_config == hook and 'fp16' not in config
    (elsewhere / 'again.py').write_text(as_text(config))
    assert load('again.py')._cfg_dict == config._cfg_dict, 'what a run writes down is this run again'


@pytest.mark.parametrize('lines', ['fp16 = True', 'fp16 = dict(scale=3)',
                                   'fp16 = dict()\namp = dict(dtype="bfloat16")',
                                   'optimizer_config = dict(type="Fp16OptimizerHook")\namp = dict(dtype="bfloat16")'])
def test_contradictory_float16(elsewhere, lines):
    (elsewhere / 'leaf.py').write_text(f'_base_ = {str(LEAF)!r}\n{lines}')
    with pytest.raises(UserError, match=r'\bamp\b'):
        load('leaf.py')


@pytest.mark.parametrize(('text', 'missing'), [
    ('model = dict()', 'data'), ('model = dict(type="CLIPRC")\ndata = dict(test=dict())', 'model.backbone'),
    ('model = dict(backbone=dict(), decode_head=dict())\ndata = dict()', 'data.test'),
    ('model = "a"\ndata = dict()', 'model.backbone'), ('data = None\nmodel = dict()', 'data')])
def test_what_a_whole_config_has(tmp_path, text, missing):
    (tmp_path / 'config.py').write_text(text)
    with pytest.raises(ValueError, match=rf'config\.py has no `{missing}`: it is not a complete config'):
        load(tmp_path / 'config.py')
