"""An error of a library about a setting becomes one line; a fault of our own code passes."""
import pytest
import torch
from mmcv.runner import HOOKS
from mmcv.runner.optimizer import OPTIMIZERS
from mmcv.utils import Registry, build_from_cfg
from mmseg.datasets.pipelines import Compose

from models.errors import UserError, building

PARTS = Registry('parts')


@PARTS.register_module()
class Part:
    def __init__(self, inner=None, sizes=(1, 2)):
        self.inner = inner and build_from_cfg(inner, PARTS)
        self.pairs = list(zip((1, 2), sizes, strict=True))


@PARTS.register_module()
class Refuses:
    def __init__(self):
        raise UserError('not on Sundays.')


def optimizer(**options):
    return torch.optim.AdamW([torch.zeros(1, requires_grad=True)], **options)


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: optimizer(lr=-1), 'part: Invalid learning rate: -1'),
    (lambda: build_from_cfg({'type': 'AdamW', 'learning_rate': 1, 'params': []}, OPTIMIZERS),
     "part: .*unexpected keyword argument 'learning_rate'"),
    (lambda: build_from_cfg({'type': 'PollyLrUpdaterHook'}, HOOKS),
     'part: PollyLrUpdaterHook is not in the hook registry$'),
    (lambda: Compose([{'type': 'Resize', 'img_scale': 3}]), 'part: Resize: assert .*img_scale, tuple.* fails$'),
    (lambda: build_from_cfg({'type': 'Part', 'inner': {'type': 'Part', 'size': 3}}, PARTS),
     "part: Part: .*unexpected keyword argument 'size'"),
    (lambda: build_from_cfg({'kind': 'Part'}, PARTS), 'part: .*must contain the key "type"'),
    (lambda: build_from_cfg({'type': 'Part', 'inner': {'type': 'Refuses'}}, PARTS), '^Part: Refuses: not on Sundays.$'),
])
def test_of_a_library(call, message):
    with pytest.raises(UserError, match=message) as caught, building('part'):
        call()
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('config', [{'type': 'Part', 'sizes': (1, 2, 3)},
                                    {'type': 'Part', 'inner': {'type': 'Part', 'sizes': (1, 2, 3)}}])
def test_of_our_own(config):
    with pytest.raises(ValueError, match='zip') as caught, building('part'):
        build_from_cfg(config, PARTS)
    assert not isinstance(caught.value, UserError)
