"""FLOPs against a count by hand of every product of the method; one multiply-add is one FLOP."""
import json
import math

import pytest
import torch
from mmcv import Config

from models.weights.cliprc import DEAD
from tests.conftest import GOLDEN, LEAVES, REPOSITORY
from tools.engine.build import build_model
from tools.engine.flop_count import PARTS, REST, attention_flops, count

VOC = REPOSITORY / 'configs' / 'voc12' / f'{LEAVES["inductive"]}.py'


def by_hand(model: dict, size: tuple[int, int], classes: int) -> dict[str, int]:
    """Part -> multiply-adds of its convolutions, matrix products and attentions for one image."""
    encoder, head = model['backbone'], model['decode_head']
    width, space, prompts, regions, patch = (encoder[name] for name in (
        'width', 'output_dim', 'num_tokens', 'region_level_bridge_size', 'patch_size'))
    pixels = (size[0] // patch) * (size[1] // patch)
    tokens = 1 + prompts + pixels + regions
    queries = regions * classes

    embedding = pixels * 3 * patch**2 * width
    prompt_projections = encoder['layers'] * prompts * width * width
    others = tokens - prompts  # of prompts keys and values alone are needed
    attention = 2 * others * tokens * width  # scores, and the mixture of the values
    block = 2 * tokens * width**2 + attention  # k and v
    block += (1 + 1 + 4 + 4) * others * width**2  # q, output, both products of the feed-forward block
    encoding = embedding + prompt_projections + encoder['layers'] * block + others * width * space

    def stream(own: int, other: int) -> int:
        """A layer whose stream of `own` tokens attends to `other` ones: q, output, k and v, attention, 4E hidden."""
        return 2 * own * space**2 + 2 * other * space**2 + 2 * own * other * space + 8 * own * space**2

    return {
        'vision encoder': encoding,
        'two-stream decoder': head['num_layers'] * (stream(queries, pixels) + stream(pixels, queries)),
        'recovery decoder (training)': 0,
        # the projections of what many queries or pixels share are counted once
        REST: (queries + classes + pixels + regions + 1) * space**2 + classes * pixels * space,
    }


def counted(config: Config, size: tuple[int, int], classes: int = 20) -> dict:
    model = build_model(config)
    model.class_head.set_classes(classes, torch.ones(classes, model.decode_head.class_head.embed_dims))
    return count(model, size)


def assert_close_to_hand(counts: dict, expected: dict[str, int]) -> None:
    assert list(counts) == list(expected) == [*PARTS, REST]
    total = sum(expected.values())
    assert sum(part.flops for part in counts.values()) == pytest.approx(total, rel=0.01)
    for part, flops in expected.items():
        # region alignment and resizing are elementwise or products with few terms; fvcore counts some of them
        assert counts[part].flops == pytest.approx(flops, rel=0.01, abs=0.01 * total if part == REST else 0), part


def test_the_published_voc_model():
    config = Config.fromfile(str(VOC))
    counts = counted(config, (512, 512))
    assert_close_to_hand(counts, by_hand(config.model, (512, 512), 20))
    official = json.loads((GOLDEN / 'voc_checkpoint_keys.json').read_text())
    used = sum(math.prod(shape) for name, shape in official.items()
               if not DEAD.match(name) and not name.startswith('text_encoder.'))
    assert sum(part.parameters for part in counts.values()) == used == pytest.approx(115.37e6, abs=5e3)
    assert sum(part.trainable for part in counts.values()) / 1e6 == pytest.approx(28.53, abs=0.005)
    assert counts[REST].parameters == 5 * 512**2 + 2 * 512, 'the text class head has no parameters'
    assert counts['recovery decoder (training)'].trainable > 0


@pytest.mark.parametrize(('size', 'options'), [
    ((64, 128), {}),
    ((128, 64), {'model.backbone.layers': 2, 'model.decode_head.num_layers': 1, 'model.backbone.num_tokens': 40}),
])
def test_other_shapes(tiny_configs, size, options):
    config = Config.fromfile(str(tiny_configs['inductive']))
    config.merge_from_dict(options)
    expected = by_hand(config.model, size, 20)
    counts = counted(config, size)
    for part in ('vision encoder', 'two-stream decoder'):
        # norms, which fvcore counts too, weigh more in a narrow model
        assert counts[part].flops == pytest.approx(expected[part], rel=0.03), part
        assert counts[part].flops >= expected[part], part


def test_attention_has_a_handler():
    """Without it the attention would count for nothing."""
    query, key, value = torch.ones(2, 4, 10, 8), torch.ones(2, 4, 30, 8), torch.ones(2, 4, 30, 16)
    graph = torch.jit.trace(torch.nn.functional.scaled_dot_product_attention, (query, key, value)).graph
    node = next(node for node in graph.nodes() if 'attention' in node.kind())
    assert attention_flops(list(node.inputs()), list(node.outputs())) == 2 * 4 * 10 * 30 * (8 + 16)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip('|').split('|')]


def test_the_script_needs_neither_data_nor_weights(call, tmp_path):
    done = call('get_flops.py', VOC, '--shape', 512, 512, '--fvcore', '--data-root', tmp_path / 'nowhere',
               '--cfg-options', 'model.pretrained=nowhere.pt', 'model.pretrained_text=nowhere.pt',
               'model.load_text_embedding=nowhere.npy')
    rows = [cells(line) for line in done.stdout.splitlines() if line.startswith('|')]
    assert rows[0] == ['part', 'parameters (M)', 'trainable (M)', 'GFLOPs (multiply-adds)']
    total = sum(by_hand(Config.fromfile(str(VOC)).model, (512, 512), 20).values()) / 1e9
    assert rows[-1][:3] == ['total', '115.37', '28.53'] and float(rows[-1][3]) == pytest.approx(total, rel=0.01)
    for column in (1, 2, 3):
        assert sum(float(row[column]) for row in rows[1:-1]) == pytest.approx(float(rows[-1][column]), abs=0.03)
