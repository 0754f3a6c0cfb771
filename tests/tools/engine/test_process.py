"""Device, processes, seed, and errors that a user can act on."""
import argparse
import os
import subprocess

import pytest
import torch
import torch.distributed as dist
from mmcv.utils import Registry, build_from_cfg
from torch.utils.data import DataLoader, Dataset

from models.errors import UserError, building
from tools.engine import errors, process
from tools.engine.arguments import add_launch_arguments
from tools.engine.files import make_folder


def start(monkeypatch, *arguments, gpus: int = 0):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    monkeypatch.setattr(torch.cuda, 'set_device', lambda device: None)
    parser = argparse.ArgumentParser()
    add_launch_arguments(parser)
    return process.start(parser.parse_args(list(arguments)))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ('LOCAL_RANK', 'RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT', *SLURM, *MPI):
        monkeypatch.setenv(name, '0')  # so that it is put back at the end
        monkeypatch.delenv(name)


@pytest.mark.parametrize(('arguments', 'gpus', 'device'), [
    ([], 0, 'cpu'), ([], 2, 'cuda:0'), (['--gpu-id', '1'], 2, 'cuda:1'), (['--device', 'cpu'], 2, 'cpu')])
def test_device(monkeypatch, arguments, gpus, device):
    place = start(monkeypatch, *arguments, gpus=gpus)
    assert (str(place.device), place.rank, place.world_size, place.distributed) == (device, 0, 1, False)


@pytest.mark.parametrize(('arguments', 'gpus', 'message'), [
    (['--device', 'cuda'], 0, 'a GPU was asked for.*none'), (['--gpu-id', '0'], 0, 'a GPU was asked for.*none'),
    (['--gpu-id', '2'], 2, 'GPU 2 .* sees 2'), (['--launcher', 'pytorch'], 0, 'torchrun'),
    (['--launcher', 'pytorch', '--local_rank', '3'], 2, 'GPU 3 .* sees 2'),
])
def test_devices_that_are_missing(monkeypatch, arguments, gpus, message):
    with pytest.raises(ValueError, match=message):
        start(monkeypatch, *arguments, gpus=gpus)


@pytest.fixture
def joined(monkeypatch) -> dict:
    """The arguments of `init_process_group`, which only notes them."""
    noted = {}
    monkeypatch.setattr(dist, 'init_process_group', lambda backend, **options: noted.update(options, backend=backend))
    monkeypatch.setattr(dist, 'new_group', lambda **options: options)
    monkeypatch.setattr(dist, 'get_rank', lambda: int(os.environ['RANK']))
    monkeypatch.setattr(dist, 'get_world_size', lambda: int(os.environ['WORLD_SIZE']))
    return noted


SLURM = {'SLURM_PROCID': '5', 'SLURM_NTASKS': '8', 'SLURM_LOCALID': '1', 'SLURM_NODELIST': 'node[1-2]'}
MPI = {'OMPI_COMM_WORLD_RANK': '5', 'OMPI_COMM_WORLD_SIZE': '8', 'OMPI_COMM_WORLD_LOCAL_RANK': '1',
       'MASTER_ADDR': 'node1'}


@pytest.mark.parametrize(('launcher', 'variables'), [
    ('pytorch', {'RANK': '5', 'WORLD_SIZE': '8', 'LOCAL_RANK': '1', 'MASTER_ADDR': 'node1', 'MASTER_PORT': '29500'}),
    ('slurm', SLURM), ('mpi', MPI)])
@pytest.mark.parametrize('gpus', [0, 2])
def test_launchers(monkeypatch, joined, launcher, variables, gpus):
    """NCCL knows its device from the start; there are a group for values on the host, and one time-out for both."""
    monkeypatch.setattr(subprocess, 'check_output', lambda command, text: {
        'scontrol show hostnames node[1-2]': 'node1\nnode2\n'}[' '.join(command)])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    place = start(monkeypatch, '--launcher', launcher, gpus=gpus)
    device = torch.device('cuda:1') if gpus else torch.device('cpu')
    assert (place.device, place.rank, place.world_size) == (device, 5, 8)
    assert joined == {'backend': 'nccl' if gpus else 'gloo', 'timeout': None, 'device_id': device if gpus else None}
    assert place.control == ({'backend': 'gloo', 'timeout': None} if gpus else None)
    assert os.environ['MASTER_ADDR'] == 'node1' and os.environ['MASTER_PORT'] == '29500'


def test_slurm_that_shows_each_process_one_gpu(monkeypatch, joined):
    for name, value in {**SLURM, 'MASTER_ADDR': 'node1'}.items():
        monkeypatch.setenv(name, value)
    assert start(monkeypatch, '--launcher', 'slurm', gpus=1).device == torch.device('cuda:0')


@pytest.mark.parametrize(('launcher', 'variables', 'message'), [
    ('slurm', {}, 'SLURM_PROCID is missing. Start the processes with srun'),
    ('mpi', {}, 'OMPI_COMM_WORLD_RANK is missing.* mpirun'), ('mpi', MPI, 'needs MASTER_ADDR')])
def test_launchers_that_have_not_started_it(monkeypatch, joined, launcher, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    with pytest.raises(ValueError, match=message):
        start(monkeypatch, '--launcher', launcher)
    assert not joined


@pytest.mark.parametrize(('message', 'plain'), [
    ('CLIPRC: CLIPVisionEncoder: input_resolution=60 is wrong.', 'input_resolution=60 is wrong.'),
    ('PascalVOC20: /data/x.jpg: this image is missing.', '/data/x.jpg: this image is missing.'),
    ('/data/x.pth is truncated: Fetch it again.', '/data/x.pth is truncated: Fetch it again.'),
])
def test_message_of_a_registry(message, plain):
    assert errors.plain_message(ValueError(message)) == plain


def test_ctrl_c_ends_as_the_shell_expects(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        errors.run(main)
    assert caught.value.code == 130 and capsys.readouterr().err == 'stopped.\n'


class Uneven(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return list(zip([1], [2, 3], strict=True))


def through_a_registry() -> None:
    with building('data.train'):
        build_from_cfg({'type': Uneven.__getitem__, 'self': None, 'index': 0}, Registry('parts'))


@pytest.mark.parametrize('main', [through_a_registry, lambda: list(DataLoader(Uneven(), num_workers=1))])
def test_errors_of_ours_keep_their_trace(main):
    """Also those of the kinds that libraries raise for a wrong setting."""
    with pytest.raises(ValueError, match='zip') as caught:
        errors.run(main)
    assert not isinstance(caught.value, UserError)


@pytest.mark.parametrize(('name', 'reason'), [('file', 'it is a file'), ('file/below', 'Not a directory')])
def test_a_folder_that_cannot_be_made(tmp_path, name, reason):
    (tmp_path / 'file').write_text('kept')
    with pytest.raises(ValueError, match=f'cannot write to the folder .*{reason}') as caught:
        make_folder(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert (tmp_path / 'file').read_text() == 'kept'
