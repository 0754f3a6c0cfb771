"""Resizing of class maps in chunks, the best class, and the windows of an image."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models import resizing as maps
from models.resizing import Resizing, best_class, map_chunks, resized_in_chunks, top_classes
from models.sliding_window import sliding
from tests.models.naive import close


@pytest.mark.parametrize('sizes', [[(3, 4), (12, 8)], [(3, 4), (6, 6), (5, 9)], [(4, 4), (4, 4)], [(8, 6), (3, 2)]])
def test_resizing(sizes):
    small = torch.randn(2, 5, *sizes[0], dtype=torch.float64)
    expected = small
    for size in sizes[1:]:
        expected = F.interpolate(expected, size, mode='bilinear', align_corners=False)
    resizing = Resizing(*sizes, like=small)
    assert close(resizing(small), expected, 1e-12)
    small.requires_grad_()
    d_large = torch.randn(expected.shape, dtype=torch.float64)
    gradient, = torch.autograd.grad(resizing(small), small, d_large)
    assert close(resizing.gradient(d_large), gradient, 1e-12)


@pytest.mark.parametrize('classes_per_chunk', [1, 2, 7, 50])
def test_chunks_and_the_best_class(classes_per_chunk, monkeypatch):
    monkeypatch.setitem(maps.CHUNK_ELEMENTS, 'cpu', classes_per_chunk * 2 * 12)
    chunks = map_chunks(7, 2 * 12, torch.device('cpu'))
    assert [index for chunk in chunks for index in range(7)[chunk]] == list(range(7))
    assert max(chunk.stop - chunk.start for chunk in chunks) == min(classes_per_chunk, 7)
    small = torch.randn(2, 7, 3, 4)
    small[:, 5] = small[:, 2]  # a tie is the first one's
    resizing = Resizing((3, 4), (3, 4), like=small)
    best = best_class(resized_in_chunks(small, resizing))
    assert torch.equal(best.index, small.argmax(dim=1)) and torch.equal(best.value, small.amax(dim=1))
    for count in (1, 3, 7):
        top = top_classes(resized_in_chunks(small, resizing), count)
        order = (-small.numpy()).argsort(axis=1, kind='stable')[:, :count]
        assert np.array_equal(top.index, order)
        assert np.array_equal(top.value, np.take_along_axis(small.numpy(), order, axis=1))


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_best_class_of_any_type_of_number(dtype):
    chunks = torch.randn(2, 7, 3, 4).to(dtype).split(3, dim=1)
    expected = torch.cat(chunks, dim=1)
    best = best_class(chunks)
    assert best.value.dtype == dtype and torch.equal(best.value, expected.amax(dim=1))
    assert torch.equal(best.index, expected.float().argmax(dim=1))


@pytest.mark.parametrize(('length', 'starts'), [(512, [0]), (300, [0]), (513, [0, 1]), (938, [0, 426]),
                                                (939, [0, 426, 427]), (1364, [0, 426, 852])])
def test_windows(length, starts):
    rows = sliding((length, 100), (512, 512), (426, 426))
    assert [window.top for window in rows] == starts
    assert all(window[2:] == (min(512, length), 100) and window.left == 0 for window in rows)
    assert [window.left for window in sliding((100, length), (512, 512), (426, 426))] == starts
