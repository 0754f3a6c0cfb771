"""--deterministic holds for every step, of each setting, and changes nothing on a CPU."""
import os

import pytest
import torch

from models.precision import use_deterministic_algorithms
from tests.tools.training import content


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    """Restore what --deterministic sets for the whole process."""
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', '')
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG')
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', torch.backends.cudnn.benchmark)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.mark.parametrize('setting', ['inductive', 'transductive', 'fully'])
def test_deterministic_training(train_here, tiny_configs, tmp_path, monkeypatch, setting):
    step, seen = torch.optim.AdamW.step, []

    def noted(*args, **kwargs):
        seen.append((torch.are_deterministic_algorithms_enabled(),
                     torch.is_deterministic_algorithms_warn_only_enabled(),
                     torch.backends.cudnn.benchmark, os.environ.get('CUBLAS_WORKSPACE_CONFIG')))
        return step(*args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, 'step', noted)
    train_here.config, settings = tiny_configs[setting], ['runner.max_iters=3', 'evaluation.interval=2']
    usual = train_here(tmp_path / 'usual', settings=settings)
    assert seen == [(False, False, True, None)] * 3
    assert train_here(tmp_path / 'exact', '--deterministic', settings=settings) == usual
    assert seen[3:] == [(True, False, False, ':4096:8')] * 3
    weights = [content(tmp_path / name, 'iter_3.pth')['state_dict'] for name in ('usual', 'exact')]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_an_operator_that_cannot_is_an_error(monkeypatch):
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':16:8')
    use_deterministic_algorithms()
    assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':16:8', 'what a user has set stays'
    with pytest.raises(RuntimeError, match='does not have a deterministic implementation'):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
