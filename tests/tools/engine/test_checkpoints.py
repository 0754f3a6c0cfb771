"""Checkpoints are never there in part, are found again, and are pruned."""
import ctypes
import logging
import os
import subprocess
import time
from pathlib import Path
from typing import IO

import pytest
import torch

from models.weights.metadata import FORMAT
from tests.conftest import REPOSITORY
from tools.engine import checkpoints, process
from tools.engine.checkpoints import write
from tools.engine.run_folder import LATEST, newest, numbered, point_latest_to, put_aside

LOGGER = logging.getLogger('test')
CONTENT = {'state_dict': {'weight': torch.arange(300_000.)}, 'meta': {'clip_rc': {'format': FORMAT}}}


@pytest.mark.parametrize('place', ['save', 'fsync', 'replace', 'testzip'])
def test_an_interrupted_write_replaces_nothing(tmp_path, monkeypatch, place):
    write(CONTENT, tmp_path / 'iter_1.pth')
    before = (tmp_path / 'iter_1.pth').read_bytes()

    def interrupted(*args):
        raise KeyboardInterrupt

    owner = {'save': torch, 'fsync': os, 'replace': Path, 'testzip': checkpoints.zipfile.ZipFile}[place]
    monkeypatch.setattr(owner, place, interrupted)
    for name in ('iter_1.pth', 'iter_2.pth'):
        with pytest.raises(KeyboardInterrupt):
            write(CONTENT, tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ['iter_1.pth']
    assert (tmp_path / 'iter_1.pth').read_bytes() == before


def test_a_file_that_reads_back_differently(tmp_path, monkeypatch):
    save = torch.save

    def damaging(content: dict, file: IO) -> None:
        save(content, file)
        file.seek(file.tell() // 2)
        file.write(b'other')

    monkeypatch.setattr(torch, 'save', damaging)
    with pytest.raises(OSError, match='does not read back as it was written'):
        write(CONTENT, tmp_path / 'iter_1.pth')
    assert not list(tmp_path.iterdir())


def on_a_small_disk(folder: Path, size: str) -> bool:
    """Mount a disk of that size; False if that is not possible."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.mount(b'tmpfs', str(folder).encode(), b'tmpfs', 0, f'size={size}'.encode()) == 0


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / 'disk'
    folder.mkdir()
    if not on_a_small_disk(folder, '2m'):
        pytest.skip('no disk can be mounted here')
    yield folder
    subprocess.run(['umount', '--lazy', folder], check=True)


def test_training_onto_a_disk_that_fills_up(run, tiny_configs, trained, small_disk):
    """One checkpoint fits; after making room the run continues."""
    size = (trained / 'iter_2.pth').stat().st_size
    subprocess.run(['mount', '-o', f'remount,size={size * 3 // 2}', small_disk], check=True)
    options = ['--work-dir', small_disk, '--no-validate', '--cfg-options', 'checkpoint_config.interval=1']
    done = run('tools/train.py', tiny_configs['inductive'], *options, check=False)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f'error: the disk is full ({small_disk}/iter_2.pth). Make room')
    assert [file.name for file in numbered(small_disk)] == ['iter_1.pth'] and not list(small_disk.glob('*.part*'))
    assert (small_disk / LATEST).resolve().name == 'iter_1.pth'
    subprocess.run(['mount', '-o', 'remount,size=500m', small_disk], check=True)
    run('tools/train.py', tiny_configs['inductive'], *options, '--auto-resume')
    assert (small_disk / LATEST).resolve().name == 'iter_4.pth'


def test_which_is_newest(tmp_path, caplog):
    assert newest(tmp_path, LOGGER) is None
    for name in ('iter_9', 'iter_10', 'best_hIoU_iter_10', 'stopped_iter_12'):
        write(CONTENT, tmp_path / f'{name}.pth')
    point_latest_to(tmp_path / 'iter_9.pth')
    (tmp_path / 'mine.pth').touch()
    (tmp_path / 'stopped_iter_12.pth').write_bytes(b'\0damaged')
    assert [file.stem for file in numbered(tmp_path)] == ['stopped_iter_12', 'iter_10', 'best_hIoU_iter_10', 'iter_9']
    assert newest(tmp_path, LOGGER).path == str(tmp_path / 'iter_10.pth')
    assert 'stopped_iter_12.pth is truncated' in caplog.text and 'Skipped' in caplog.text
    os.utime(tmp_path / 'iter_9.pth', (time.time() + 100,) * 2)
    assert newest(tmp_path, LOGGER, since=time.time() + 50).path == str(tmp_path / 'iter_9.pth')


def test_putting_aside(tmp_path):
    assert put_aside(tmp_path, beyond=0) is None and not list(tmp_path.iterdir())
    (tmp_path / 'mine.pth').touch()
    for number in (1, 2):
        (tmp_path / 'iter_5.pth').write_text(str(number))
        point_latest_to(tmp_path / 'iter_5.pth')
        assert put_aside(tmp_path, beyond=0) == tmp_path / f'earlier_{number}'
        assert (tmp_path / f'earlier_{number}' / LATEST).read_text() == str(number)
    assert (tmp_path / 'mine.pth').exists() and not list(tmp_path.glob('iter*'))


def test_random_states():
    import random

    import numpy as np
    process.set_seed(3)
    np.random.randn(), random.gauss(0, 1)  # both keep a second number for the next call
    state = checkpoints.random_state(torch.device('cpu'))

    def draws() -> list[float]:
        return [np.random.randn(), random.gauss(0, 1), np.random.randn(), random.random(), float(torch.randn(()))]

    first = draws()
    assert draws() != first
    checkpoints.set_random_state(state, torch.device('cpu'))
    assert draws() == first


def test_kills(run, tmp_path):
    """A short form of tests/kills.py: kills at random moments, each followed by --auto-resume."""
    done = run('tests/kills.py', '--kills', 4, '--work-dir', tmp_path, '--seed', 0)
    assert done.stdout.splitlines()[-1].startswith('4 kills: '), done.stdout
    assert str(REPOSITORY) not in done.stdout
