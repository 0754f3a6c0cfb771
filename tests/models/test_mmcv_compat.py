"""Each repair of mmcv, and the fault without it."""
import socket
import subprocess
import sys

import mmcv.parallel._functions as scattering
import pytest
import torch
import torch.distributed as dist
from mmcv.parallel import DataContainer, MMDataParallel, MMDistributedDataParallel
from mmcv.runner import save_checkpoint
from torch import nn
from torch.utils.data._utils.pin_memory import pin_memory

from models import mmcv_compat
from tests.conftest import GPU, REPOSITORY
from tools.engine.process import Place, wrap


class Doubler(nn.Module):
    """Has mmcv's interface; insists on a tensor, which a loader's data container is not."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.))
        self.register_buffer('kept', torch.ones(3))
        self.register_buffer('constant', torch.ones(3), persistent=False)

    def forward(self, img, img_metas):
        assert isinstance(img, torch.Tensor) and isinstance(img_metas, list)
        return self.weight * img

    def train_step(self, data, optimizer):
        return {'loss': self(**data).sum(), 'num_samples': len(data['img'])}


def batch() -> dict[str, DataContainer]:
    """Two samples after mmcv's `collate`."""
    return {'img': DataContainer([torch.ones(2, 3)], stack=True),
            'img_metas': DataContainer([[{'flip': False}, {'flip': True}]], cpu_only=True)}


@pytest.fixture
def group():
    """A process group of one."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(('asked', 'given'), [
    (0, torch.device('cuda', 0)), (3, torch.device('cuda', 3)),
    (torch.device('cuda', 1), torch.device('cuda', 1)), (torch.device('cpu'), torch.device('cpu'))])
def test_streams_are_asked_for_by_device(monkeypatch, asked, given):
    devices = []
    monkeypatch.setattr('torch.nn.parallel._functions._get_stream', devices.append)
    mmcv_compat.apply()
    scattering._get_stream(asked)
    assert devices == [given] and isinstance(devices[0], torch.device)


@pytest.mark.gpu
@pytest.mark.skipif(GPU != 'cuda', reason='mmcv unpacks them for GPUs alone')
def test_data_containers_reach_the_gpu():
    mmcv_compat.apply()
    output = MMDataParallel(Doubler().cuda(), device_ids=[0])(**batch())
    assert output.is_cuda and torch.equal(output.cpu(), torch.full((2, 3), 2.))


def test_distributed_training_and_testing_on_cpu(group):
    mmcv_compat.apply()
    model = wrap(Doubler(), Place(torch.device('cpu')))
    assert isinstance(model, MMDistributedDataParallel)
    outputs = model.train_step(batch(), None)
    outputs['loss'].backward()
    assert outputs['num_samples'] == 2 and float(model.module.weight.grad) == 6
    assert torch.equal(model(**batch()), torch.full((2, 3), 2.))


def test_saved_checkpoints_leave_constants_out(tmp_path):
    mmcv_compat.apply()
    save_checkpoint(nn.ModuleDict({'part': Doubler()}), str(tmp_path / 'it.pth'))
    names = torch.load(tmp_path / 'it.pth', weights_only=True)['state_dict']
    assert set(names) == {'part.weight', 'part.kept'}


def test_containers_are_pinned(monkeypatch):
    """Without the repair torch's loader hands them on as they are. (Pinning itself needs a GPU.)"""
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda tensor, device=None: tensor + 1)
    mmcv_compat.apply()
    given = batch()
    pinned = {name: pin_memory(container) for name, container in given.items()}
    assert torch.equal(pinned['img'].data[0], torch.full((2, 3), 2.)) and pinned['img'].stack
    assert pinned['img_metas'] is given['img_metas'] and torch.equal(given['img'].data[0], torch.ones(2, 3))


WITHOUT_PRIVATE_NAMES = '''
import mmcv.parallel, mmseg.models, torch
import torch.nn.parallel._functions as scattering
import torch.utils.data._utils as utils
del scattering._get_stream, utils.pin_memory.pin_memory
from models.inference import load_model
import numpy as np, sys
print(load_model(sys.argv[1], device="cpu").segment(np.zeros((64, 64, 3), np.uint8)).labels.shape)
'''


def test_inference_needs_no_private_name_of_torch():
    model = REPOSITORY / 'tools/miniature/model.safetensors'
    done = subprocess.run([sys.executable, '-c', WITHOUT_PRIVATE_NAMES, model],
                          cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == '(64, 64)\n', done.stderr
