"""torch.compile of encoder and decoder as one graph, without generating code: no break in it, and the same numbers."""
import fill
import pytest
import torch
from mmcv import ConfigDict
from torch import nn

from models import builder
from models.precision import autocast, checkpointed
from models.two_stream_decoder import CrossAttentionLayer
from tests.conftest import GPU, golden_config
from tests.models.naive import unit

CPU = torch.device('cpu')


@pytest.fixture(autouse=True)
def forget():
    yield
    torch.compiler.reset()


def build(prompts: int = 10, *, with_cp: bool = False, device: str | torch.device = CPU):
    """Build a small model like VOC's, of 10 prompts, or like COCO-Stuff's, of 100."""
    config = golden_config('inductive')
    config['backbone'] |= {'num_tokens': prompts, 'with_cp': with_cp, 'layers': 2, 'total_d_layer': 1}
    config['decode_head'] |= {'with_cp': with_cp, 'num_layers': 1}
    torch.manual_seed(0)
    return builder.build(ConfigDict(config)).to(device)


def whole(function, backend='eager'):
    return torch.compile(function, fullgraph=True, backend=backend)


@torch.no_grad()
@pytest.mark.parametrize(('prompts', 'dtype'), [(10, None), (100, torch.bfloat16)])
def test_features_and_scores(prompts, dtype):
    model, images = build(prompts).eval(), fill.image(1, (2, 3, 64, 64))

    def outputs(images):
        features = model.backbone(images)
        return *features, model.decode_head.forward_test(features, images.shape[2:])

    with autocast(CPU, dtype):
        assert all(map(torch.equal, whole(outputs)(images), outputs(images)))


@pytest.mark.parametrize(('prompts', 'dtype', 'with_cp'), [(10, None, False), (100, torch.bfloat16, True)])
def test_gradients(prompts, dtype, with_cp):
    model, images = build(prompts, with_cp=with_cp).train(), fill.image(1, (2, 3, 64, 64))

    def outputs(images):
        decoded = model.decode_head(model.backbone(images))
        return decoded.logits, *model.decode_head.recovery_decoder(decoded.queries, decoded.pixels)

    def gradients(forward):
        torch.manual_seed(5)  # drops the same
        with autocast(CPU, dtype):
            loss = sum(output.float().square().sum() for output in forward(images))
        return torch.autograd.grad(loss, model.trainable_parameters())

    assert all(map(torch.equal, gradients(whole(outputs)), gradients(outputs)))


@pytest.mark.parametrize('run', [nn.Module.__call__, checkpointed])
def test_gradients_of_a_traced_backward_pass(run):
    """This backend also traces the backward pass, and takes some operators apart. Generating code takes minutes."""
    layer, queries, pixels = CrossAttentionLayer(16, heads=4), torch.randn(2, 6, 16), torch.randn(2, 9, 16)
    compiled, parameters = whole(lambda *streams: run(layer, *streams), 'aot_eager'), dict(layer.named_parameters())

    def gradients(forward):
        torch.manual_seed(5)
        return torch.autograd.grad(forward(queries, pixels).square().sum(), parameters.values())

    for name, found, expected in zip(parameters, gradients(compiled), gradients(layer)):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5), name
        assert found.any() or name.endswith('k.bias'), name
    layer.eval()
    assert torch.allclose(compiled(queries, pixels), layer(queries, pixels), atol=1e-5)


@torch.no_grad()
def test_the_text_encoder():
    config = golden_config('inductive')['text_encoder']
    encoder = builder.MODELS.build(config).eval()
    tokens = torch.randint(1000, (3, 9))
    assert torch.equal(whole(encoder)(tokens), encoder(tokens))


@torch.no_grad()
def test_few_graphs_serve_all_numbers_of_windows():
    """One for the first size of a batch, one for all others, and one for a single window."""
    model, graphs = build().eval(), []
    compiled = whole(model.window_logits, lambda graph, inputs: graphs.append(graph) or graph.forward)
    for count in (4, 3, 1, 7):
        images = fill.image(1, (count, 3, 64, 64))
        assert torch.equal(compiled(images), model.window_logits(images))
    assert len(graphs) <= 3


@torch.no_grad()
def test_other_classes_set_later():
    model, images = build().eval(), fill.image(1, (2, 3, 64, 64))
    compiled, found = whole(model.window_logits), []
    for seed, classes in enumerate([6, 6, 9]):
        model.class_head.set_classes(classes, unit(classes, 32, dim=1, seed=seed), seen=[0])
        found.append(compiled(images))
        assert torch.equal(found[-1], model.window_logits(images))
    assert not torch.allclose(found[0], found[1], atol=0.01)


def image_of_windows(device=CPU):
    """An image of 9 windows, and its metadata."""
    return [fill.image(1, (3, 128, 160)).to(device)], [{'img_shape': (128, 160), 'ori_shape': (128, 160)}]


@torch.no_grad()
@pytest.mark.parametrize('per_batch', [1, 4])
def test_logits_outlive_the_next_replay(monkeypatch, per_batch):
    """As CUDA graphs do, a stand-in for torch.compile gives the same memory in each call, with new values."""
    model, memory, modes = build().eval(), torch.empty(4, 6, 4, 4), []
    model.test_cfg.windows_per_batch = per_batch
    expected, = model.stitch(*image_of_windows())
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch, 'compile', lambda function, **options: modes.append(options) or (
        lambda images: memory[:len(images)].copy_(function(images))))
    builder.compile_windows(model)
    found, = model.stitch(*image_of_windows())
    assert modes == [{'mode': 'reduce-overhead', 'fullgraph': True}]
    assert torch.equal(found.logits, expected.logits) and not torch.equal(found.logits[0], found.logits[1])


@torch.no_grad()
@pytest.mark.gpu
@pytest.mark.skipif(GPU != 'cuda', reason='a CPU has no CUDA graphs')
def test_replayed_cuda_graphs():
    model = build(device=GPU).eval()
    model.test_cfg.windows_per_batch = 4
    expected, = model.stitch(*image_of_windows(GPU))
    builder.compile_layers(model)
    builder.compile_windows(model)
    for _ in range(3):  # warm up, record, replay
        found, = model.stitch(*image_of_windows(GPU))
        assert torch.allclose(found.logits, expected.logits, rtol=1e-2, atol=1e-2)
