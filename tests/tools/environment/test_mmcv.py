"""mmcv-full as setup_env.sh compiles it: all operators for the CPU are there and compute what they should."""
import importlib
import pkgutil

import mmcv.ops
import pytest
import torch
from torch.nn import functional


@pytest.mark.parametrize('module', [module.name for module in pkgutil.iter_modules(mmcv.ops.__path__)])
def test_each_module_finds_its_operators(module):
    """On import it looks up each function that it calls."""
    importlib.import_module(f'mmcv.ops.{module}')


def test_nms_keeps_the_best_of_boxes_that_overlap():
    torch.manual_seed(0)
    corners, sizes = 50 * torch.rand(60, 2), 10 + 20 * torch.rand(60, 2)
    boxes, scores = torch.cat([corners, corners + sizes], 1), torch.rand(60)
    kept = []
    for index in scores.argsort(descending=True).tolist():
        left, top, right, bottom = boxes[index]
        overlaps = [((min(right, r) - max(left, x)).clamp(min=0) * (min(bottom, b) - max(top, y)).clamp(min=0))
                    for x, y, r, b in boxes[kept]]
        areas = [(r - x) * (b - y) for x, y, r, b in boxes[kept]]
        own = (right - left) * (bottom - top)
        if all(both / (own + area - both) <= 0.4 for both, area in zip(overlaps, areas, strict=True)):
            kept.append(index)
    detections, indices = mmcv.ops.nms(boxes, scores, iou_threshold=0.4)
    assert 1 < len(kept) < 60 and indices.tolist() == kept
    torch.testing.assert_close(detections, torch.cat([boxes, scores[:, None]], 1)[kept])


def test_deformable_convolution_samples_at_its_offsets():
    """Bilinearly, zero outside; also its gradient."""
    torch.manual_seed(0)
    image = torch.randn(2, 3, 6, 7, requires_grad=True)
    offsets, weight = 2 * torch.randn(2, 18, 6, 7), torch.randn(4, 3, 3, 3)
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing='ij')
    expected = 0
    for tap in range(9):
        y = rows + tap // 3 - 1 + offsets[:, 2 * tap]
        x = columns + tap % 3 - 1 + offsets[:, 2 * tap + 1]
        samples = functional.grid_sample(image, torch.stack([2 * x / 6 - 1, 2 * y / 5 - 1], -1), align_corners=True)
        expected = expected + torch.einsum('nchw,oc->nohw', samples, weight[:, :, tap // 3, tap % 3])
    computed = mmcv.ops.deform_conv2d(image, offsets, weight, 1, 1)
    torch.testing.assert_close(computed, expected, atol=1e-4, rtol=1e-4)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(*(torch.autograd.grad(output, image, upstream)[0] for output in (computed, expected)),
                               atol=1e-4, rtol=1e-4)
