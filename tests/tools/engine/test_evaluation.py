"""How the results of several processes are collected, and how speed is written."""
import pytest
import torch
import torch.distributed as dist

from tools.engine import evaluation
from tools.engine.process import Place


@pytest.fixture
def place(tmp_path):
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/meet', rank=0, world_size=1)
    yield Place(torch.device('cpu'))
    dist.destroy_process_group()


def test_two_tests_in_one_folder(place, tmp_path, monkeypatch):
    """Each has a folder of its own for its partial results, and removes no other one."""
    folder, used = tmp_path / 'results', []
    (folder / '.collect-scores').mkdir(parents=True)  # of another test, which is still running
    collected = evaluation.collect_results_cpu

    def noted(parts, count, own):
        if not used:  # while the first one collects, another one does
            used.append(own)
            assert evaluation.collect([5, 6], 2, place, folder) == [5, 6]
        used.append(own)
        return collected(parts, count, own)

    monkeypatch.setattr(evaluation, 'collect_results_cpu', noted)
    assert evaluation.collect([1, 2, 3], 3, place, folder) == [1, 2, 3]
    first, second, _ = used
    assert first != second
    assert [file.name for file in folder.iterdir()] == ['.collect-scores']


@pytest.mark.parametrize(('images', 'seconds', 'text'), [(30, 2., '15.0 images/s'), (2, 30., '15.0 s/image')])
def test_speed(images, seconds, text):
    assert evaluation.speed(images, seconds) == text
