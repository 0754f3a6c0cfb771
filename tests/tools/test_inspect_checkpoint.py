"""What is said of a file: official ones with and without meta, our own, CLIP's, others, damaged ones."""
import json
import re

import pytest
import torch
from mmcv import Config

from datasets import PascalVOC20
from tests.clip_files import VIT_L_14, clip_by_shape, clip_weights, hugging_face_weights
from tests.conftest import GOLDEN, LEAVES, REPOSITORY
from tools.engine.build import build_model, dataset_facts, describe

SCRIPT = 'tools/inspect_checkpoint.py'


@pytest.fixture
def said(call):
    """Runs the script: its output by name; or with --json, its content."""
    def said(path, *options):
        text = call(SCRIPT, path, *options).stdout
        if '--json' in options:
            return json.loads(text)
        return dict(re.split(r'  +', line, maxsplit=1) for line in text.splitlines())
    return said


def official(path, name='voc', without=(), **meta):
    """An official file of the right names and shapes; its zeros take no room."""
    shapes = json.loads((GOLDEN / f'{name}_checkpoint_keys.json').read_text())
    weights = {key: torch.zeros((), dtype=torch.float16).expand(shape) for key, shape in shapes.items()
               if not key.startswith(tuple(without))}
    torch.save({'state_dict': weights, **({'meta': meta} if meta else {})}, path)
    return path


def ours(path, config: str, **options):
    """A checkpoint of ours of random weights, as training saves it."""
    config = Config.fromfile(str(REPOSITORY / config))
    config.merge_from_dict(options)
    facts, model = dataset_facts(config), build_model(config)
    count = len(facts.split.names)
    model.class_head.set_classes(count, torch.zeros(count, config.model.backbone.output_dim))
    meta = {'CLASSES': list(facts.split.names), 'iter': 499, 'seed': 3,
            'hook_msgs': {'best_score': 0.5321, 'best_ckpt': '/away/best_hIoU_iter_400.pth'},
            'clip_rc': describe(model, config)}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    return path


@pytest.mark.parametrize('setting', ['inductive', 'fully'])
def test_an_official_file_with_its_config(said, tmp_path, setting):
    """With the text of its config, in which the lists of classes are written out."""
    config = Config.fromfile(str(REPOSITORY / f'configs/voc12/{LEAVES[setting]}.py'))
    seen = 20 if setting == 'fully' else 15
    config.merge_from_dict({'model': dict(base_class=[*range(seen)], novel_class=[*range(seen, 20)],
                                          both_class=[*range(20)], ft_backbone=False)})
    path = official(tmp_path / 'it.pth', CLASSES=PascalVOC20.CLASSES, config=config.pretty_text, iter=19999)
    found = said(path)
    assert found['kind'] == 'CLIP-RC, saved by the published code'
    assert (found['tensors'], found['dead tensors']) == ('496', '48')
    assert found['sizes'] == ('width 768, patch_size 16, output_dim 512, prompts 10, regions 16, layers 12, resolution '
                              '512, decoder_layers 3, recovery_layers 1'), 'recovery also where its weight was 0'
    assert found['dataset'] == 'PascalVOC20' and found['setting'].startswith(setting)
    assert found['class names'].startswith('20: aeroplane; bicycle; ') and found['class names'].endswith('; ...')
    assert found['unseen names'] == ('none' if setting == 'fully' else '5: pottedplant; sheep; sofa; train; tvmonitor')
    assert (found['iteration'], found['text tower layers']) == ('20000', '12')
    assert f'configs/voc12/{LEAVES[setting]}.py' in found['configs']
    assert found['test it'].endswith(f'test.py CONFIG {path} --eval mIoU')


def test_an_official_file_without_meta_and_parts(said, tmp_path, monkeypatch):
    """Its unused tensors tell that it is official. No config is guessed, and no model is built."""
    monkeypatch.setattr('torch.nn.Module.__init__', None)
    found = said(official(tmp_path / 'it.pth', 'coco', without=['text_encoder.', 'decode_head.recovery_decoder.']))
    assert found['kind'] == 'CLIP-RC, saved by the published code' and found['text tower layers'] == '0'
    assert 'prompts 100, ' in found['sizes'] and 'recovery_layers 0' in found['sizes']
    assert {found[name] for name in ('class names', 'dataset', 'setting', 'iteration', 'seed')} == {'not recorded'}
    assert found['configs'] == 'none'


@pytest.mark.parametrize('setting', ['transductive', 'fully'])
def test_a_file_of_ours(said, tmp_path, setting):
    path = ours(tmp_path / 'iter_500.pth', f'configs/miniature/{setting}.py')
    found = said(path)
    assert (found['kind'], found['dead tensors']) == ('CLIP-RC, trained by this code', '0')
    assert (found['dataset'], found['prompt set']) == ('Miniature', 'single')
    assert found['unseen names'].startswith('5: red stripes; ')
    assert found['text embeddings'].startswith('shape [20, 64], ') and found['text tower layers'] == '0'
    assert (found['iteration'], found['seed']) == ('500', '3')
    assert found['best checkpoint'] == 'best_hIoU_iter_400.pth'
    assert found['configs'] == f'1: configs/miniature/{setting}.py'
    exact = said(path, '--json')
    assert exact['setting'].startswith(setting)
    assert len(exact['class_names']) == 20 and len(exact['unseen_names']) == 5 and exact['bytes'] > 1e6
    assert exact['sizes']['regions'] == 4 and exact['best_score'] == 0.5321
    assert len(exact['text_embeddings']['sha256']) == 64
    torch.save(torch.load(path, weights_only=True)['state_dict'], tmp_path / 'weights.pth')
    found = said(tmp_path / 'weights.pth')
    assert (found['kind'], found['dataset']) == ('CLIP-RC, without metadata', 'not recorded')


def test_a_file_of_ours_on_a_dataset_of_the_user(said, tmp_path):
    found = said(ours(tmp_path / 'it.pth', 'configs/miniature/inductive.py', **{
        'data.test.type': 'ZeroShotDataset', 'data.test.classes': ['rose', 'tulip, lily'],
        'data.test.unseen': ['rose'], 'data.test.prompt_set': ['a {}', 'the {}']}))
    assert (found['configs'], found['prompt set']) == ('none', '2: a {}; the {}')
    assert (found['dataset'], found['class names']) == ('none of this repository', '2: rose; tulip, lily')


@pytest.mark.parametrize(('weights', 'form', 'size', 'names'), [
    (clip_by_shape(**VIT_L_14).weights, 'open_clip', 'resolution 224', '12: ViT-L-14/openai; ViT-L-14/laion400m_e31; '),
    (hugging_face_weights(vocabulary=60), "Hugging Face's transformers", 'width 64', 'none')], ids=['open_clip', 'HF'])
def test_clip_without_its_gelu(said, tmp_path, weights, form, size, names):
    torch.save(weights, tmp_path / 'clip.bin')
    found = said(tmp_path / 'clip.bin')
    assert (found['kind'], found['format']) == ('CLIP', form) and size in found['sizes']
    assert found['gelu'] == 'not recorded' and found['train on it'].endswith(' model.clip_name=NAME')
    assert found['open clip names'].startswith(names)


@pytest.mark.parametrize('weights', [
    {'visual.class_embedding': torch.ones(3)},
    {'backbone.prompt_embeddings': torch.ones(3), 'decode_head.q_proj.weight': torch.ones(2, 3)}])
def test_something_else(said, tmp_path, weights):
    torch.save(weights, tmp_path / 'it.pth')
    found = said(tmp_path / 'it.pth')
    assert found['kind'] == 'neither CLIP-RC nor CLIP' and 'test it' not in found
    assert found['sizes'].startswith(next(iter(weights)))


def test_a_wrapped_clip_and_parts_of_one(said, tmp_path):
    weights = clip_weights()
    torch.save({'model': {f'_orig_mod.{name}': value for name, value in weights.items()}}, tmp_path / 'clip.pt')
    found = said(tmp_path / 'clip.pt')
    assert (found['format'], found['gelu'], found['text tower layers']) == ('OpenAI', 'quick', '2')
    assert found['train on it'].endswith(f'pretrained={tmp_path}/clip.pt model.pretrained_text={tmp_path}/clip.pt')
    torch.save({**{f'clip.{name}': value for name, value in weights.items()}, 'a': torch.ones(1)}, tmp_path / 'more.pt')
    assert "below 'clip.' in it is one" in said(tmp_path / 'more.pt')['kind']
    torch.save({name: value for name, value in weights.items() if 'visual' not in name}, tmp_path / 'text.pt')
    assert said(tmp_path / 'text.pt')['kind'].startswith("CLIP's text tower alone")
    for change, fault in ((weights['visual.proj'].to(torch.int8), 'torch.int8'),
                          (weights['visual.proj'] / 0, 'not finite')):
        torch.save({**weights, 'visual.proj': change}, tmp_path / 'bad.pt')
        assert fault in said(tmp_path / 'bad.pt')['fault']


@pytest.mark.parametrize(('meta', 'words'), [
    ({'clip_rc': {'format': 2}}, 'update'), ({'clip_rc': {'format': 1}}, 'damaged'), ({'CLASSES': 3}, 'damaged'),
    ({'CLASSES': ['a'], 'config': 'model = dict(novel_class=[1])'}, 'damaged')], ids=str)
def test_damaged_descriptions(fails, tmp_path, meta, words):
    assert words in fails(SCRIPT, official(tmp_path / 'it.pth', **meta))
