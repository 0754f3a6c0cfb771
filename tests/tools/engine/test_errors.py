"""How a command ends on a GPU, and among other processes. (`test_bad_input.py` has the errors of every command.)"""
import signal

import pytest
import torch
import torch.distributed as dist

from models.errors import UserError
from tools.engine import errors


@pytest.fixture
def group(monkeypatch):
    """Stands for a group of processes: the name of its backend, and how many times it was destroyed."""
    group = {'backend': 'nccl', 'destroyed': 0}
    monkeypatch.setattr(errors, 'distributed', lambda: True)
    monkeypatch.setattr(dist, 'get_backend', lambda: group['backend'])
    monkeypatch.setattr(dist, 'destroy_process_group', lambda: group.update(destroyed=group['destroyed'] + 1))
    return group


def end_with(error: BaseException | None):
    def main() -> None:
        if error is not None:
            raise error

    errors._run(main)


@pytest.mark.parametrize(('backend', 'error', 'destroyed'), [
    ('nccl', None, 1), ('nccl', errors.Stopped(signal.SIGTERM), 1), ('nccl', UserError('a mask is missing'), 0),
    ('nccl', RuntimeError('NCCL communicator was aborted'), 0), ('nccl', ValueError('a bug'), 0),
    ('gloo', UserError('a mask is missing'), 1)])
def test_no_wait_for_processes_that_may_not_end(group, backend, error, destroyed):
    """NCCL's end waits for all processes; after an error of one, these wait for it."""
    group['backend'] = backend
    if error is None:
        end_with(error)
    else:
        with pytest.raises((SystemExit, ValueError)):
            end_with(error)
    assert group['destroyed'] == destroyed


def test_a_full_gpu_is_one_line_with_the_remedies():
    error = torch.OutOfMemoryError(
        'CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 10.00 GiB. If reserved but '
        'unallocated memory is large try setting PYTORCH_ALLOC_CONF')
    with pytest.raises(SystemExit, match=r'^error: CUDA out of memory\. .* 10\.00 GiB\. Less memory takes .*with_cp=T'):
        end_with(error)
