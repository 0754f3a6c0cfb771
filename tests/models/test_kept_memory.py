"""Memory that a training step on a GPU keeps for its backward pass, counted on fake CUDA tensors."""
import pytest
import torch
import torch.nn.functional as F

from models import two_stream_decoder
from tests.models.test_fake_cuda import autocast_without_a_gpu, fake, model_of, train, with_tensors_here  # noqa: F401

# MB per image in bfloat16, at most. The method word for word (`tests/oracle.py`), counted so by hand: 1,616 and 4,256.
LIMITS = {'voc_inductive': 410, 'coco_inductive': 650}


class FusedAttention(torch.autograd.Function):
    """Stands for a kernel that keeps its inputs and its output, and no weights. It has no backward pass."""

    @staticmethod
    def forward(ctx, q, k, v):
        q, k, v = (x.to(torch.bfloat16) for x in (q, k, v))  # as `autocast` does for the kernel
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out)
        return out


def kept(name: str, batch: int) -> int:
    """Count the bytes of all tensors that are kept, without the model's parameters."""
    model, tensors = model_of(name), []
    model.amp_dtype = torch.bfloat16
    with fake(), torch.autograd.graph.saved_tensors_hooks(lambda x: tensors.append(x) or x, lambda x: x):
        train(with_tensors_here(model), batch)
    memory = {each.untyped_storage()._cdata: each.untyped_storage().nbytes() for each in tensors}
    for parameter in model.parameters():
        memory.pop(parameter.untyped_storage()._cdata, None)
    return sum(memory.values())


@pytest.mark.parametrize('name', LIMITS)
def test_memory_of_an_image(monkeypatch, name):
    """The difference of two batches, which leaves out copies of the weights."""
    monkeypatch.setattr(F, 'scaled_dot_product_attention', lambda q, k, v, **_: FusedAttention.apply(q, k, v))
    monkeypatch.setattr(two_stream_decoder, 'attention', lambda q, k, v, _: FusedAttention.apply(q, k, v))
    megabytes = (kept(name, 3) - kept(name, 1)) / 2e6
    assert 0.9 * LIMITS[name] < megabytes <= LIMITS[name], megabytes
