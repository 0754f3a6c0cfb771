"""The configs as data: all are there, and in the setting of the model that they build."""
from mmcv.utils import get_logger

from models.training_labels import Setting
from tests.conftest import REPOSITORY
from tools.results import leaves
from tools.results.leaves import CROSS_DATASET


def test_all_configs_but_bases_are_there():
    paths = (path.relative_to(REPOSITORY) for path in (REPOSITORY / 'configs').rglob('*.py'))
    assert set(leaves.leaves()) == {str(path) for path in paths if '_base_' not in path.parts}
    settings = {name: leaf.setting for name, leaf in leaves.leaves().items()}
    assert all((setting == CROSS_DATASET) == ('cross_dataset' in name) for name, setting in settings.items())
    for setting, words in ((Setting.FULLY_SUPERVISED, ('fully',)), (Setting.TRANSDUCTIVE, ('_st.', 'transductive'))):
        assert {name for name, its in settings.items() if its == setting.value} == {
            name for name in settings if any(word in name for word in words)}


def test_a_config_that_cannot_be_read_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(leaves, 'REPOSITORY', tmp_path)
    (tmp_path / 'configs/own').mkdir(parents=True)
    good = REPOSITORY / 'configs/miniature/inductive.py'
    (tmp_path / 'configs/own/good.py').write_text(f'_base_ = {str(good)!r}\n')
    (tmp_path / 'configs/own/broken.py').write_text('model = (\n')
    (tmp_path / 'configs/own/part.py').write_text('model = dict(type="CLIPRC")\ndata = dict()\n')
    warned_of = []
    monkeypatch.setattr(get_logger('mmseg'), 'warning', lambda text, name, error: warned_of.append(name.name))
    assert list(leaves.leaves.__wrapped__()) == ['configs/own/good.py']
    assert warned_of == ['broken.py', 'part.py']
