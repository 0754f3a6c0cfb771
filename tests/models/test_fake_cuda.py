"""What a GPU will be asked to do, on fake CUDA tensors: they have shapes, types and devices, but no values.

An operator that must read a value, which stops a real GPU (`.item()`, `nonzero`, boolean indices), raises here, and so
does one that mixes devices.
"""
from collections import Counter
from contextlib import contextmanager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from mmcv.parallel import DataContainer
from mmcv.parallel.scatter_gather import scatter_kwargs
from mmcv.runner import build_optimizer
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from models import CLIPRC, losses, resizing, two_stream_decoder
from tests.conftest import REPOSITORY
from tools.engine.build import build_model
from tools.engine.config import load_config

CONFIGS = {
    'voc_inductive': 'voc12/clip_rc_zero_vit-b_512x512_40k_voc_10_16',
    'voc_transductive': 'voc12/clip_rc_zero_vit-b_512x512_20k_voc_10_16_st',
    'voc_fully': 'voc12/clip_rc_fully_vit-b_512x512_40k_voc_10_16',
    'coco_inductive': 'coco/clip_rc_zero_vit-b_512x512_80k_coco_stuff164k_100_16',
    'coco_transductive': 'coco/clip_rc_zero_vit-b_512x512_40k_coco_stuff164k_100_16_st',
    'coco_fully': 'coco/clip_rc_fully_vit-b_512x512_80k_coco_stuff164k_100_16',
}
TYPES = [None, torch.bfloat16, torch.float16]
# Operators that only make another view of a tensor, or its memory, or ask for a type.
NO_KERNEL = {'aten::detach', 'aten::_unsafe_view', 'aten::promote_types', 'aten::empty', 'aten::empty_like',
             'aten::new_empty', 'aten::empty_strided'}


class Operators(TorchDispatchMode):
    """Counts the operators that start a kernel; raises if a tensor is on the CPU."""

    def __init__(self, device: str = 'cuda'):
        super().__init__()
        self.device, self.counts = device, Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves((args, kwargs, result)):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != self.device:
                raise AssertionError(f'{function} has a tensor on the {tensor.device.type}')
        name = function._schema.name
        if name.startswith('aten::') and name not in NO_KERNEL and not any(
                each.alias_info is not None and not each.alias_info.is_write for each in function._schema.returns):
            self.counts[name] += 1
        return result


@contextmanager
def fake(device: str = 'cuda'):
    with FakeTensorMode(), torch.device(device):
        yield


@pytest.fixture(autouse=True)
def autocast_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda.amp.common, 'amp_definitely_not_available', lambda: False)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda **_: True)


def model_of(name: str, *options: str) -> CLIPRC:
    """The config's model without values, to be called in `fake`."""
    config = load_config(f'{REPOSITORY}/configs/{CONFIGS[name]}.py', list(options), None)
    with torch.device('meta'):
        return build_model(config)


def with_tensors_here(model: CLIPRC) -> CLIPRC:
    """Give the model new tensors, on the device of `fake`."""
    for module in model.modules():
        for name, old in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            new = torch.empty(old.shape, dtype=old.dtype)
            setattr(module, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    model.class_head.embeddings = torch.empty(model.num_classes, model.class_head.embed_dims)
    return model


def train(model: CLIPRC, batch: int = 2) -> torch.Tensor:
    """Forward pass with losses, as a runner asks for it; returns their sum."""
    labels = torch.empty(batch, 1, 512, 512, dtype=torch.long)
    terms = model.train().forward_train(torch.empty(batch, 3, 512, 512), [{}] * batch, labels)
    assert len(terms) in (3, 5) and all(value.dtype == torch.float32 and value.ndim == 0 for value in terms.values())
    loss, logged = model._parse_losses(terms)
    assert set(logged) == {*terms, 'loss'} and not any(value.requires_grad for value in logged.values())
    return loss


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('name', CONFIGS)
def test_training_and_testing(name, dtype):
    model = model_of(name, 'model.backbone.layers=2', 'model.backbone.total_d_layer=1')
    model.amp_dtype = dtype
    with fake():
        with_tensors_here(model)
        products = Counter()
        for linear in (each for each in model.modules() if type(each) is nn.Linear):
            linear.register_forward_hook(lambda _, __, output: products.update([output.dtype]))
        with Operators() as operators:
            train(model)
            model.eval()
            with torch.no_grad():
                for mode in ('slide', 'whole'):
                    model.test_cfg.mode = mode
                    images = [torch.empty(3, 512, 683), torch.empty(3, 640, 512)]
                    metas = [{'img_shape': (512, 683, 3), 'ori_shape': (375, 500, 3)},
                             {'img_shape': (600, 512, 3), 'ori_shape': (640, 480, 3)}]
                    labels = model.segment(images, metas)
                    assert [tuple(each.shape) for each in labels] == [(375, 500), (640, 480)]
                    scores = model.slide_inference(images[0][None], metas[:1], rescale=True)
                    assert scores.shape == (1, model.num_classes, 375, 500) and scores.dtype == torch.float32
        assert operators.counts and set(products) == {dtype or torch.float32}


def item(x):
    return x * float(x.sum().item())


def nonzero(x):
    return x.sum() + x.detach().nonzero().sum()


def boolean_index(x):
    return x.sum() + x[x > 0].sum()


def constant(x):
    return x * torch.tensor([1., 2.], device='cpu').to(x.device).sum()


def to_host(x):
    return x * x.detach().cpu().to(x.device)


@pytest.mark.parametrize('place', [(losses.MaskLoss, 'recovery'), (resizing.Resizing, '__call__')],
                         ids=['recovery', 'resizing'])
@pytest.mark.parametrize('read', [item, nonzero, boolean_index, constant, to_host], ids=lambda read: read.__name__)
def test_a_host_read_in_the_step_is_found(monkeypatch, read, place):
    original = getattr(*place)
    monkeypatch.setattr(*place, lambda *arguments: read(original(*arguments)))
    model = model_of('voc_inductive', 'model.backbone.layers=1', 'model.backbone.total_d_layer=0')
    with fake(), Operators(), pytest.raises(
            (DataDependentOutputException, DynamicOutputShapeException, AssertionError)):
        train(with_tensors_here(model))


class OneKernel(torch.autograd.Function):
    """Stands for a fused attention: one operator forward, and one backward beside two that keep the shapes."""

    @staticmethod
    def forward(ctx, q, k, v):
        ctx.save_for_backward(k, v)
        return q.clone()

    @staticmethod
    def backward(ctx, gradient):
        k, v = ctx.saved_tensors
        return gradient.clone(), torch.empty_like(k), torch.empty_like(v)


# Operators of a step at batch 8, at most: (forward, backward). Before the losses had fixed shapes there were 1117 and
# 2333 of them forward, 621 backward, beside 16 and 48 host reads.
OPERATORS = {'voc_inductive': (550, 545), 'coco_inductive': (1650, 545)}


@pytest.mark.parametrize('name', OPERATORS)
def test_operators_of_a_step(monkeypatch, name):
    """The backward pass on fake CPU tensors, as that of fake CUDA tensors does not run; with a GPU's kernels."""
    monkeypatch.setattr(F, 'scaled_dot_product_attention', lambda q, k, v, **_: OneKernel.apply(q, k, v))
    monkeypatch.setattr(two_stream_decoder, 'attention', lambda q, k, v, _: OneKernel.apply(q, k, v))
    for module in (resizing, losses):
        monkeypatch.setitem(module.CHUNK_ELEMENTS, 'cpu', module.CHUNK_ELEMENTS['cuda'])
    model = model_of(name)
    with fake(), Operators() as forward:
        train(with_tensors_here(model), batch=8)
    with fake('cpu'):
        loss = train(with_tensors_here(model), batch=8)
        with Operators('cpu') as backward:
            loss.backward()
    counts = forward.counts.total(), backward.counts.total()
    assert all(0.9 * most < count <= most for count, most in zip(counts, OPERATORS[name], strict=True)), counts


# Operators, and derivatives of operators, without a deterministic version on CUDA, by the documentation of
# torch.use_deterministic_algorithms; those that a segmentation model may meet.
NOT_DETERMINISTIC = {'aten::put_', 'aten::histc', 'aten::median', 'aten::cumsum', 'aten::bincount', 'aten::kthvalue',
                     'aten::nll_loss_forward', 'aten::nll_loss2d_forward', 'aten::scatter_reduce'}
NOT_DETERMINISTIC_BACKWARD = {
    'UpsampleLinear1DBackward0', 'UpsampleBilinear2DBackward0', 'UpsampleBicubic2DBackward0', 'GridSampler2DBackward0',
    'AdaptiveAvgPool2DBackward0', 'AdaptiveMaxPool2DBackward0', 'ReflectionPad2DBackward0', 'ReplicationPad2DBackward0',
    'NllLossBackward0', 'NllLoss2DBackward0'}


def nodes(output: torch.Tensor) -> set[str]:
    """The names of all nodes of an output's backward pass."""
    found, waiting = {output.grad_fn}, [output.grad_fn]
    while waiting:
        following = {node for node, _ in waiting.pop().next_functions if node is not None} - found
        found |= following
        waiting += following
    return {node.name() for node in found}


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize('name', CONFIGS)
def test_a_deterministic_step_has_no_operator_without_a_deterministic_version(name, deterministic):
    model = model_of(name, 'model.backbone.layers=2', 'model.backbone.total_d_layer=1')
    with fake():
        with_tensors_here(model)
        with Operators() as operators:
            loss = train(model)
    assert operators.counts and not NOT_DETERMINISTIC & set(operators.counts)
    assert 'MaskTermsBackward' in nodes(loss) and not NOT_DETERMINISTIC_BACKWARD & nodes(loss)


def test_without_the_setting_the_same_step_has_such_operators():
    """The regions are resized to the pixels: the test above is no test of nothing."""
    model = model_of('voc_inductive', 'model.backbone.layers=1', 'model.backbone.total_d_layer=0')
    with fake():
        assert 'UpsampleBilinear2DBackward0' in nodes(train(with_tensors_here(model)))


def test_a_step_of_the_optimizer_stays_on_the_gpu():
    """The optimizer of our schedules is fused: one without it keeps its count of steps on the host."""
    config = load_config(f'{REPOSITORY}/configs/{CONFIGS["voc_inductive"]}.py', [], None)
    model = model_of('voc_inductive', 'model.backbone.layers=2', 'model.backbone.total_d_layer=1')
    with fake():
        optimizer = build_optimizer(with_tensors_here(model), config.optimizer)
        for _ in range(2):
            for parameter in model.trainable_parameters():
                parameter.grad = torch.empty_like(parameter)
            with Operators() as operators:
                optimizer.step()
                optimizer.zero_grad()
    assert operators.counts['aten::_fused_adamw_'] >= 1 and operators.counts.total() < 10


def test_a_batch_goes_to_the_gpu_in_one_copy_for_each_tensor(monkeypatch):
    """mmcv unpacks the containers of a loader; its streams need a GPU and are left out."""
    for name in ('device', 'stream'):
        monkeypatch.setattr(torch.cuda, name, lambda _: nullcontext())
    monkeypatch.setattr('mmcv.parallel._functions._get_stream', lambda _: None)
    monkeypatch.setattr('mmcv.parallel._functions.synchronize_stream', lambda *_: None)
    with FakeTensorMode():
        batch = {'img': DataContainer([torch.empty(2, 3, 8, 8)], stack=True),
                 'gt_semantic_seg': DataContainer([torch.empty(2, 1, 8, 8, dtype=torch.long)], stack=True),
                 'img_metas': DataContainer([[{'filename': 'a'}, {'filename': 'b'}]], cpu_only=True)}
        (_,), (moved,) = scatter_kwargs((), batch, [0])
    assert moved['img'].device.type == moved['gt_semantic_seg'].device.type == 'cuda'
    assert [meta['filename'] for meta in moved['img_metas']] == ['a', 'b']
