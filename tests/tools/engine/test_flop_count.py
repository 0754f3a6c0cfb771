"""FLOPs against a count by hand of every product of the method; one multiply-add is one FLOP."""
import json
import math

import pytest
import torch
from mmcv import Config

from models import CLIPRC
from models.weights.cliprc import DEAD
from tests.conftest import GOLDEN, LEAVES, REPOSITORY
from tools.engine.build import build_model
from tools.engine.flop_count import REST, Count, count, floors

VOC = REPOSITORY / 'configs' / 'voc12' / f'{LEAVES["inductive"]}.py'


def built(config: Config) -> CLIPRC:
    model = build_model(config)
    model.class_head.set_classes(20, torch.ones(20, model.class_head.embed_dims))
    return model


def layer(queries: int, pixels: int, space: int) -> int:
    """Both streams: q, output, k and v, attention, and a feed-forward block with 4E hidden values."""
    return sum(2 * own * space**2 + 2 * other * space**2 + 2 * own * other * space + 8 * own * space**2
               for own, other in ((queries, pixels), (pixels, queries)))


def assert_close_to_hand(counts: dict[str, Count], model: CLIPRC, *, rel: float, parts: int) -> None:
    """Compare the first `parts` parts with the products of the layers, and of the rest, out of those of `floors`."""
    encoder, space = model.backbone, model.backbone.proj.shape[1]
    pixels, regions = (encoder.input_resolution // encoder.patch_size)**2, encoder.side**2
    queries = 20 * regions
    # the projections of what many queries or pixels share are counted once
    rest = (queries + 20 + pixels + regions + 1) * space**2 + 20 * pixels * space
    decoder, total = len(model.decode_head.decoder_q.layers) * layer(queries, pixels, space), floors(model).window
    expected = {'vision encoder': total - decoder - rest, 'two-stream decoder': decoder,
                'recovery decoder (training)': 0, REST: rest}
    assert list(counts) == list(expected)
    for part in list(expected)[:parts]:
        # region alignment and resizing are elementwise or products with few terms; fvcore counts some of them
        assert counts[part].flops == pytest.approx(
            expected[part], rel=rel, abs=rel * total if part == REST else 0) and counts[part].flops >= expected[part]


def test_the_published_voc_model():
    model = built(Config.fromfile(str(VOC)))
    counts = count(model, (512, 512))
    assert_close_to_hand(counts, model, rel=0.01, parts=4)
    assert sum(part.flops for part in counts.values()) == pytest.approx(floors(model).window, rel=0.01)
    official = json.loads((GOLDEN / 'voc_checkpoint_keys.json').read_text())
    used = sum(math.prod(shape) for name, shape in official.items()
               if not DEAD.match(name) and not name.startswith('text_encoder.'))
    assert sum(part.parameters for part in counts.values()) == used == pytest.approx(115.37e6, abs=5e3)
    assert sum(part.trainable for part in counts.values()) / 1e6 == pytest.approx(28.53, abs=0.005)
    assert counts[REST].parameters == 5 * 512**2 + 2 * 512, 'the text class head has no parameters'
    assert counts['recovery decoder (training)'].trainable > 0


@pytest.mark.parametrize('options', [
    {}, {'model.backbone.layers': 2, 'model.decode_head.num_layers': 1, 'model.backbone.num_tokens': 40}])
def test_other_sizes(tiny_configs, options):
    config = Config.fromfile(str(tiny_configs['inductive']))
    config.merge_from_dict(options)
    model = built(config)
    # norms, which fvcore counts too, weigh more in a narrow model
    assert_close_to_hand(count(model, (64, 64)), model, rel=0.03, parts=2)
    wide, high = (count(model, size) for size in ((64, 128), (128, 64)))
    assert wide['vision encoder'] == high['vision encoder']
    assert wide['two-stream decoder'].flops == high['two-stream decoder'].flops == pytest.approx(
        len(model.decode_head.decoder_q.layers) * layer(20 * 4, 32, 32), rel=0.03)


def test_the_script_needs_neither_data_nor_weights(call, tmp_path):
    done = call('get_flops.py', VOC, '--shape', 512, 512, '--fvcore', '--data-root', tmp_path / 'nowhere',
               '--cfg-options', 'model.pretrained=nowhere.pt', 'model.pretrained_text=nowhere.pt',
               'model.load_text_embedding=nowhere.npy')
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in done.stdout.splitlines()
            if line.startswith('|')]
    assert rows[0] == ['part', 'parameters (M)', 'trainable (M)', 'GFLOPs (multiply-adds)']
    assert rows[-1][:3] == ['total', '115.37', '28.53'] and float(rows[-1][3]) == pytest.approx(124.9, rel=0.01)
    for column in (1, 2, 3):
        assert sum(float(row[column]) for row in rows[1:-1]) == pytest.approx(float(rows[-1][column]), abs=0.03)
