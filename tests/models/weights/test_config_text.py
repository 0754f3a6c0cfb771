"""Configs in checkpoints are text of anyone's: read as data, or not at all."""
import pytest
from mmcv import Config

from models.weights.config_text import read_config_text, with_pairs
from tests.conftest import LEAVES, REPOSITORY


@pytest.mark.parametrize('leaf', LEAVES.values())
def test_what_mmcv_writes_is_read_back(leaf):
    config = Config.fromfile(str(REPOSITORY / f'configs/voc12/{leaf}.py'))
    assert read_config_text(config.pretty_text) == config._cfg_dict.to_dict()
    assert read_config_text(config._cfg_dict.to_dict()) == config._cfg_dict.to_dict()


@pytest.mark.parametrize('text', [
    'model = dict(a=__import__("os").system("touch {file}"))', 'import os', 'model = open("{file}", "w")',
    'model = dict(**{{}})', 'model = dict([1])', 'a = b = 1\nc', 'model.x = 1', 'model = (', 'model = {{[]: 1}}', '\0',
    'a = 1 + 1', 'a = f"{{1}}"', 'a = ' + '(' * 100_000, 'a = ' + '-' * 100_000 + '1', 'a = x' + '.y' * 90_000,
    'a = ' + '9' * 100_000, 'a = 0x' + 'f' * 100_000, 'a = ...', 'a = b"c"', 'a = 1j', 'a = [' + '1,' * 200_000 + ']',
    'a = 1\n' * 40_000], ids=lambda text: text[:20])
def test_anything_else_is_neither_run_nor_believed(text, tmp_path):
    file = tmp_path / 'made'
    assert read_config_text(text.format(file=file)) == {}
    assert not file.exists()


def test_pairs_of_a_json():
    """mmseg asks for tuples of some; of `img_ratios` it asks for a list."""
    steps = [{'type': 'MultiScaleFlipAug', 'img_scale': [[64, 64], [96, 96]], 'img_ratios': [0.5, 1.0], 'transforms': [
        {'type': 'Resize', 'img_scale': [64, 64], 'ratio_range': [0.5, 2]},
        {'type': 'CLAHE', 'tile_grid_size': [8, 8]}, {'type': 'Collect', 'keys': ['img', 'gt']}]}]
    assert with_pairs(steps) == [
        {'type': 'MultiScaleFlipAug', 'img_scale': [(64, 64), (96, 96)], 'img_ratios': [0.5, 1.0], 'transforms': [
            {'type': 'Resize', 'img_scale': (64, 64), 'ratio_range': (0.5, 2)},
            {'type': 'CLAHE', 'tile_grid_size': (8, 8)}, {'type': 'Collect', 'keys': ['img', 'gt']}]}]
