"""A config's model for its dataset: split, sizes, sources of text embeddings, cache, classes of a checkpoint."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv import Config

from models.precision import set_tf32
from models.text_encoder import embed_class_names
from models.weights import files
from models.weights.clip_variant import text_encoder_of
from models.weights.files import Checkpoint
from models.weights.names import TEXT_TOWER
from tests.clip_files import clip_weights
from tools.engine import embeddings
from tools.engine.build import build_model, check_classes, common_facts, dataset_facts, describe, give_text_embeddings


@pytest.fixture
def config(tiny_configs):
    return Config.fromfile(str(tiny_configs['inductive']))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('CLIPRC_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'text_embeddings'


# ---- the split

@pytest.mark.parametrize('lists', [
    {'base_class': list(range(14))}, {'novel_class': [14, 15, 16, 17, 18, 19]}, {'both_class': list(range(21))},
    {'novel_class': [], 'base_class': list(range(15))}, {'decode_head': {'seen_idx': list(range(14))}}])
def test_lists_that_disagree_with_the_split(config, lists):
    config.merge_from_dict({'model': lists})
    with pytest.raises(ValueError, match='differs from the dataset.s split'):
        build_model(config)


def test_datasets_of_a_run_with_different_splits(config):
    config.data.val.unseen = ['cat']
    with pytest.raises(ValueError, match='split'):
        common_facts(config)


# ---- sizes and names

@pytest.mark.parametrize(('options', 'message'), [
    ({'model.decode_head.img_size': 96}, 'img_size=96.*input_resolution=64'),
    ({'data.train.pipeline.3.crop_size': (96, 96)}, 'RandomCrop.*96, 96.*64x64'),
    ({'model.test_cfg.crop_size': (128, 128)}, 'test_cfg.crop_size.*128, 128.*64x64'),
    ({'data.test.type': 'PascalVOCDataset'}, 'PascalVOCDataset'),
    ({'model.backbone.num_token': 5}, "no 'num_token', it has .*num_tokens"),  # slips of the pen
    ({'model.loss': 3}, "CLIPRC has no 'loss', it has .*decode_head"),
    ({'model.test_cfg.stride': (80, 80)}, 'every 80x80 pixels do not cover an image'),
])
def test_invalid_settings(config, options, message):
    config.merge_from_dict(options)
    with pytest.raises(ValueError, match=message):
        build_model(config)


def test_cuda_graphs_need_a_gpu(config, monkeypatch):
    config.compile = 'reduce-overhead'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match='sees no GPU: use compile=True'):
        build_model(config)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert 'window_logits' in vars(build_model(config))


# ---- text embeddings

def table(seed: int, classes: int = 20, width: int = 32) -> torch.Tensor:
    return F.normalize(torch.randn(classes, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def our_checkpoint(config, rows: torch.Tensor) -> Checkpoint:
    model = build_model(config)
    model.class_head.set_classes(len(rows), rows)
    return Checkpoint({}, {'clip_rc': describe(model, config)}, 'ours.pth')


def official_checkpoint(seed: int) -> Checkpoint:
    tower = {f'text_encoder.{name}': tensor for name, tensor in clip_weights(seed=seed).items()
             if name.startswith(TEXT_TOWER)}
    return Checkpoint(tower, {}, 'official.pth')


def by_hand(checkpoint: Checkpoint, config) -> torch.Tensor:
    encoder = text_encoder_of(checkpoint, {'text_encoder': {'transformer_heads': 4}})
    facts = dataset_facts(config)
    return embed_class_names(encoder, facts.split.names, facts.templates)


def given(config, checkpoint: Checkpoint | None = None) -> torch.Tensor:
    model = build_model(config)
    give_text_embeddings(model, config, checkpoint)
    return model.decode_head.class_head.embeddings


@pytest.fixture
def file(config, tmp_path):
    """An embedding file that the config names."""
    config.model.load_text_embedding = str(tmp_path / 'table.npy')
    np.save(config.model.load_text_embedding, table(1).half().numpy())
    return tmp_path / 'table.npy'


def test_the_named_file_comes_first(config, file, caplog):
    config.model.pretrained = config.model.pretrained_text = 'missing.pt'
    for checkpoint in (None, our_checkpoint(config, table(1).half().float())):
        assert torch.equal(given(config, checkpoint), table(1).half().float())
        assert 'WARNING' not in caplog.text
    assert torch.equal(given(config, our_checkpoint(config, table(2))), table(1).half().float())
    assert caplog.text.count('WARNING') == 1 and f'{file} differs from the embeddings' in caplog.text


def test_our_checkpoint_needs_no_file(config, file):
    config.model.pretrained = config.model.pretrained_text = 'missing.pt'
    file.unlink()
    assert torch.equal(given(config, our_checkpoint(config, table(2))), table(2))


def test_our_checkpoint_of_other_classes_is_not_used(config, clip_file):
    checkpoint = our_checkpoint(config, table(2))
    for key, value in (('classes', [f'thing {i}' for i in range(20)]), ('prompt_set', 'coco15')):
        other = config.copy()
        other.data.test = config.data.test.copy()
        other.data.test.update({key: value, 'unseen': []})
        assert not torch.equal(given(other, checkpoint), table(2)), key


def test_the_text_tower_of_an_official_checkpoint(config, file):
    config.model.pretrained = config.model.pretrained_text = 'missing.pt'
    file.unlink()
    tables = []
    for config.data.test.prompt_set in (None, 'coco15'):
        tables.append(given(config, official_checkpoint(seed=8)))
        torch.testing.assert_close(tables[-1], by_hand(official_checkpoint(seed=8), config))
        torch.testing.assert_close(tables[-1].norm(dim=1), torch.ones(20))
    assert not torch.allclose(*tables)


def test_the_clip_file_comes_last(config, clip_file):
    rows = given(config)
    torch.testing.assert_close(rows, by_hand(files.read(clip_file), config))
    assert not torch.allclose(rows, given(config, official_checkpoint(seed=8)))


# ---- the cache

def test_computed_once_for_each_tower_class_list_and_prompt_set(config, own_cache, monkeypatch):
    runs = []

    def embed(encoder, names, templates):
        runs.append((tuple(names), tuple(templates)))
        return table(len(runs), classes=len(names))

    monkeypatch.setattr(embeddings, 'embed_class_names', embed)
    first = given(config)
    assert torch.equal(given(config), first) and len(runs) == 1 and len(list(own_cache.iterdir())) == 1
    given(config, official_checkpoint(seed=8))  # another tower
    config.data.test.prompt_set = 'coco15'
    given(config)
    config.data.test.classes = [f'thing {index}' for index in range(20)]
    config.data.test.unseen = []
    given(config)
    assert len(runs) == len(set(own_cache.iterdir())) == 4
    assert [len(templates) for _, templates in runs] == [1, 1, 15, 15]
    assert {file.suffix for file in own_cache.iterdir()} == {'.npy'}, 'a part was left over'


def test_a_cache_that_cannot_be_written_does_not_stop(config, tmp_path, monkeypatch, caplog):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('CLIPRC_CACHE', str(tmp_path / 'file'))
    assert given(config).shape == (20, 32)
    assert 'WARNING' in caplog.text and str(tmp_path / 'file') in caplog.text


# ---- a checkpoint's classes

def trained_on(names) -> Checkpoint:
    return Checkpoint({}, {'CLASSES': names} if names else {}, 'some.pth')


@pytest.mark.parametrize(('names', 'message'), [
    (lambda names: [f'thing {index}' for index in range(171)],
     r'on 171 classes, .* has 20: only there thing 0 \(171 in all\), only here aeroplane \(20 in all\)'),
    (lambda names: names[::-1], 'the same in another order'),
])
def test_a_checkpoint_of_other_classes(config, names, message):
    own = dataset_facts(config).split.names
    check_classes(trained_on(None), config)
    check_classes(trained_on(list(own)), config)
    names = names(own)
    with pytest.raises(ValueError, match=message) as error:
        check_classes(trained_on(names), config)
    assert 'cross_dataset=True' in str(error.value) and 'some.pth' in str(error.value)
    config.cross_dataset = True
    check_classes(trained_on(names), config)


def test_a_dataset_of_one_class(config):
    config.data.test.update(type='ZeroShotDataset', classes=['cat'], unseen=[])
    with pytest.raises(ValueError, match='has one class, cat: two are needed'):
        build_model(config)


@pytest.mark.parametrize(('settings', 'allowed'), [({}, False), ({'tf32': None}, False), ({'tf32': True}, True)])
def test_tf32_is_what_the_config_says(config, tf32, settings, allowed):
    """Whatever it was before; None and no setting are the default."""
    set_tf32(not allowed)
    config.pop('tf32')
    config.update(settings)
    build_model(config)
    assert tf32() == (allowed, allowed)
