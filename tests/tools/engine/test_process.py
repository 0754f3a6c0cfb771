"""Device, processes, seed, and errors that a user can act on."""
import argparse

import pytest
import torch
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
    for name in ('LOCAL_RANK', 'RANK', 'WORLD_SIZE'):
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
