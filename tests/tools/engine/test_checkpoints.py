"""Checkpoints are never there in part, are found again, and are pruned."""
import logging
import os
import random
import time
from contextlib import nullcontext
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from mmcv.runner import set_random_seed

from models.weights.metadata import FORMAT
from tests.conftest import REPOSITORY
from tools.engine import checkpoints, errors, run_folder
from tools.engine.checkpoints import write
from tools.engine.run_folder import newest, numbered, point_latest_to

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


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, 'atomic_path', lambda path: nullcontext(Path('/dev/full')))
    with pytest.raises(OSError, match='No space') as caught:
        write(CONTENT, tmp_path / 'iter_2.pth')
    assert errors.plain_message(caught.value) == f'the disk is full ({tmp_path}/iter_2.pth). Make room and run this ' \
        'again; a training continues with --auto-resume.'


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


def test_random_states():
    set_random_seed(3)
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


def test_a_damaged_line_in_the_record_of_evaluations(tmp_path):
    file = tmp_path / run_folder.EVALUATIONS
    file.write_bytes(b'{"iter": 2, "mIoU": 0.5}\n[1]\n{"mIoU": 1}\n\xff\n{"iter": "3"}\n'
                     b'{"iter": 4, "mIoU": 0.6}\n{"iter": 6, "mI')
    assert run_folder.evaluations(file) == {2: {'mIoU': 0.5}, 4: {'mIoU': 0.6}}
    run_folder.put_aside(tmp_path, beyond=2)
    assert file.read_text() == '{"iter": 2, "mIoU": 0.5}\n'
