"""Each repair of mmcv, with what goes wrong where it is not made."""
import json
import socket

import mmcv.parallel._functions as scattering
import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmcv.parallel import DataContainer, MMDataParallel, MMDistributedDataParallel
from mmcv.runner import load_checkpoint, save_checkpoint
from safetensors.torch import save_file
from torch import nn

from models import mmcv_compat
from tests.web_server import serving
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
    """What mmcv's `collate` makes of two samples."""
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
    monkeypatch.setattr(mmcv_compat, 'torch_get_stream', devices.append)
    mmcv_compat.apply()
    scattering._get_stream(asked)
    assert devices == [given] and isinstance(devices[0], torch.device)


@pytest.mark.gpu
def test_data_containers_reach_the_gpu():
    mmcv_compat.apply()
    output = MMDataParallel(Doubler().cuda(), device_ids=[0])(**batch())
    assert output.is_cuda and torch.equal(output.cpu(), torch.full((2, 3), 2.))


def test_distributed_forward(group):
    mmcv_compat.apply()
    model = MMDistributedDataParallel(Doubler())
    assert torch.equal(model(img=torch.ones(1), img_metas=[{}]), torch.full((1,), 2.))


def test_distributed_training_and_testing_on_cpu(group):
    mmcv_compat.apply()
    model = wrap(Doubler(), Place(torch.device('cpu')))
    assert isinstance(model, MMDistributedDataParallel)
    outputs = model.train_step(batch(), None)
    outputs['loss'].backward()
    assert outputs['num_samples'] == 2 and float(model.module.weight.grad) == 6
    assert torch.equal(model(**batch()), torch.full((2, 3), 2.))


def test_one_process_on_cpu(monkeypatch):
    mmcv_compat.apply()
    model = wrap(Doubler(), Place(torch.device('cpu')))
    assert float(model.train_step(batch(), None)['loss']) == 12
    assert torch.equal(model(**batch()), torch.full((2, 3), 2.))


def test_saved_checkpoints_leave_constants_out(tmp_path):
    mmcv_compat.apply()
    save_checkpoint(nn.ModuleDict({'part': Doubler()}), str(tmp_path / 'it.pth'))
    names = torch.load(tmp_path / 'it.pth', weights_only=True)['state_dict']
    assert set(names) == {'part.weight', 'part.kept'}


def test_applying_twice_does_no_harm():
    mmcv_compat.apply()
    mmcv_compat.apply()
    assert scattering._get_stream is mmcv_compat.get_stream


def test_a_namespace_of_operators_is_one():
    """torch 2.6 could not compile or export where it meets the function that mmcv puts there."""
    assert isinstance(torch.ops._check_balance, type(torch.ops.aten))


def test_containers_are_pinned(monkeypatch):
    """Without the repair torch's loader hands them on as they are. (Pinning itself needs a GPU.)"""
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda tensor, device=None: tensor + 1)
    mmcv_compat.apply()
    given = batch()
    pinned = {name: mmcv_compat.pin(container) for name, container in given.items()}
    assert torch.equal(pinned['img'].data[0], torch.full((2, 3), 2.)) and pinned['img'].stack
    assert pinned['img_metas'] is given['img_metas'] and torch.equal(given['img'].data[0], torch.ones(2, 3))


def test_files_of_weights_alone_and_of_none(tmp_path):
    mmcv_compat.apply()
    weights = nn.Linear(2, 2).state_dict()
    torch.save(weights, tmp_path / 'it.pth')
    content = load_checkpoint(nn.Linear(2, 2), str(tmp_path / 'it.pth'))
    assert content['meta'] == {'CLASSES': None, 'PALETTE': None} and content['state_dict'].keys() == weights.keys()
    torch.save({'meta': {'iter': 3}}, tmp_path / 'none.pth')
    with pytest.raises(ValueError, match=r'none\.pth holds no state dict'):
        load_checkpoint(nn.Linear(2, 2), str(tmp_path / 'none.pth'))


@pytest.mark.parametrize('name', ['it.pth', 'it.safetensors'])
def test_checkpoints_by_url(tmp_path, monkeypatch, name):
    """As local ones: mmcv's own way took the first bytes of a slim file for an opcode of pickle."""
    mmcv_compat.apply()
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    weights = {name: tensor.clone() for name, tensor in nn.Linear(2, 2).state_dict().items()}
    if name == 'it.pth':
        torch.save({'state_dict': weights, 'meta': {'CLASSES': ['cat', 'dog'], 'score': np.float64(1)}},
                   tmp_path / name)
    else:
        save_file(weights, tmp_path / name, {'meta': json.dumps({'CLASSES': ['cat', 'dog']})})
    with serving({f'/{name}?raw=true': (tmp_path / name).read_bytes()}) as server:
        for _ in range(2):
            layer = nn.Linear(2, 2)
            content = load_checkpoint(layer, f'{server.url}/{name}?raw=true')
            assert all(torch.equal(tensor, weights[key]) for key, tensor in layer.state_dict().items())
            assert content['meta']['CLASSES'] == ['cat', 'dog'] and len(content['meta']['PALETTE']) == 2
            server.files.clear()  # it is kept
        assert (tmp_path / 'home/hub/checkpoints' / name).exists()
        with pytest.raises(OSError, match='404'):
            load_checkpoint(nn.Linear(2, 2), f'{server.url}/other_{name}')
