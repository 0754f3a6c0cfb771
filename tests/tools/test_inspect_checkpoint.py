"""What is said of a file: official ones with and without meta, our own, CLIP's, others, damaged ones."""
import json
import re
import sys

import pytest
import torch
from mmcv import Config

from datasets import PascalVOC20
from models.weights import files
from tests.clip_files import VIT_L_14, clip_by_shape, clip_weights, hugging_face_weights
from tests.conftest import GOLDEN, LEAVES, REPOSITORY
from tools import inspect_checkpoint
from tools.engine import errors
from tools.engine.build import build_model, dataset_facts, describe
from tools.inspect_checkpoint import lines
from tools.results.inspection import inspect


@pytest.fixture
def said(monkeypatch, capsys):
    """Runs the script: what it prints, by name; or with --json, its content."""
    def said(path, *options):
        monkeypatch.setattr(sys, 'argv', ['inspect_checkpoint.py', str(path), *options])
        inspect_checkpoint.main()
        text = capsys.readouterr().out
        if '--json' in options:
            return json.loads(text)
        return dict(re.split(r'  +', line, maxsplit=1) for line in text.splitlines())
    return said


@pytest.fixture
def fails(monkeypatch):
    """Runs the script; the error that it ends with."""
    def fails(path) -> str:
        monkeypatch.setattr(sys, 'argv', ['inspect_checkpoint.py', str(path)])
        with pytest.raises(SystemExit) as caught:
            errors.run(inspect_checkpoint.main)
        assert caught.value.code.startswith('error: ') and '\n' not in caught.value.code
        return caught.value.code
    return fails


def official(path, name='voc', without=(), **meta):
    """An official file of the right names and shapes; its zeros take no room."""
    shapes = json.loads((GOLDEN / f'{name}_checkpoint_keys.json').read_text())
    weights = {key: torch.zeros((), dtype=torch.float16).expand(shape) for key, shape in shapes.items()
               if not key.startswith(tuple(without))}
    torch.save({'state_dict': weights, **({'meta': meta} if meta else {})}, path)
    return path


def official_config(setting: str) -> str:
    """The text of a config as official files hold it, with the lists that official configs write out."""
    config = Config.fromfile(str(REPOSITORY / f'configs/voc12/{LEAVES[setting]}.py'))
    seen, both = list(range(15)), list(range(20))
    novel = [] if setting == 'fully' else list(range(15, 20))
    config.merge_from_dict({'model': dict(base_class=both if setting == 'fully' else seen, novel_class=novel,
                                          both_class=both, ft_backbone=False)})
    return config.pretty_text


def ours(folder, config: str, **options):
    """A checkpoint of ours of random weights, as training saves it."""
    config = Config.fromfile(str(REPOSITORY / config))
    config.merge_from_dict(options)
    facts, model = dataset_facts(config), build_model(config)
    count = len(facts.split.names)
    model.class_head.set_classes(count, torch.zeros(count, config.model.backbone.output_dim))
    meta = {'CLASSES': list(facts.split.names), 'iter': 499, 'seed': 3,
            'hook_msgs': {'best_score': 0.5321, 'best_ckpt': '/away/best_hIoU_iter_400.pth'},
            'clip_rc': describe(model, config)}
    folder.mkdir(exist_ok=True)
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, folder / 'iter_500.pth')
    config.dump(str(folder / 'config.py'))
    return folder / 'iter_500.pth'


@pytest.mark.parametrize('setting', ['inductive', 'fully'])
def test_an_official_file_with_its_config(said, tmp_path, setting):
    path = official(tmp_path / 'it.pth', CLASSES=PascalVOC20.CLASSES, config=official_config(setting), iter=19999)
    found = said(path)
    assert found['kind'] == 'CLIP-RC, saved by the published code'
    assert found['tensors'].startswith('496, 48 of them unused; ')
    assert found['image tower'] == 'width 768, 12 layers, patches of 16 pixels, images of 512x512; embeddings of 512'
    assert (found['prompt tokens'], found['region tokens']) == ('P = 10', 'R = 16, 4x4')
    assert found['decoder'] == '3 layers, recovery decoder of 1', 'also where its weight was 0'
    assert found['dataset'] == 'PascalVOC20' and found['setting'].startswith(setting)
    assert found['classes'] == '20: aeroplane, bicycle, bird, boat, bottle, bus and 14 more'
    assert found['unseen names'] == ('not recorded' if setting == 'fully' else
                                     '5: pottedplant, sheep, sofa, train, tvmonitor')
    assert found['iteration'] == '20000' and found['text tower'] == 'in the file, 12 layers'
    assert f'configs/voc12/{LEAVES[setting]}.py' in found['such configs']
    assert found['test it'].endswith(f'test.py CONFIG {path} --eval mIoU')


def test_an_official_file_without_meta(said, tmp_path):
    """Its unused tensors tell that it is official; no config is guessed."""
    found = said(official(tmp_path / 'it.pth', 'coco'))
    assert found['kind'] == 'CLIP-RC, saved by the published code' and found['prompt tokens'] == 'P = 100'
    assert found['dataset'] == found['setting'] == found['iteration'] == found['seed'] == 'not recorded'
    assert 'classes' not in found and 'such configs' not in found


def test_parts_that_a_file_lacks(said, tmp_path):
    found = said(official(tmp_path / 'it.pth', without=['text_encoder.', 'decode_head.recovery_decoder.'],
                          CLASSES=['rose', 'tulip']))
    assert found['decoder'] == '3 layers' and found['text tower'] == 'not in the file'
    assert found['dataset'] == 'none of this repository' and found['classes'] == '2: rose, tulip'


@pytest.mark.parametrize('setting', ['transductive', 'fully'])
def test_a_file_of_ours(said, tmp_path, setting):
    found = said(ours(tmp_path / 'run', f'configs/miniature/{setting}.py'))
    assert found['kind'] == 'CLIP-RC, trained by this code' and 'unused' not in found['tensors']
    assert (found['dataset'], found['prompt set']) == ('Miniature', 'single')
    assert found['setting'].startswith(setting) and found['unseen names'].startswith('5: red stripes, ')
    assert (found['prompt tokens'], found['region tokens']) == ('P = 8', 'R = 4, 2x2')
    assert (found['text embeddings'], found['text tower']) == ('in the file, 20x64', 'not in the file')
    assert (found['iteration'], found['seed']) == ('500', '3')
    assert found['best score'] == '0.5321 until then, of best_hIoU_iter_400.pth'
    assert f'configs/miniature/{setting}.py' in found['such configs']


def test_a_file_of_ours_on_a_dataset_of_the_user(said, tmp_path):
    path = ours(tmp_path / 'run', 'configs/miniature/inductive.py', **{
        'data.test.type': 'ZeroShotDataset', 'data.test.classes': ['rose', 'tulip, lily'],
        'data.test.unseen': ['rose'], 'data.test.prompt_set': ['a {}', 'the {}']})
    found = said(path)
    assert 'such configs' not in found and found['prompt set'] == '2: a {}, the {}'
    assert (found['dataset'], found['classes']) == ('none of this repository', '2: rose; tulip, lily')


def test_as_json_and_without_metadata(said, tmp_path):
    path = ours(tmp_path / 'run', 'configs/miniature/inductive.py')
    found = said(path, '--json')
    assert (found['kind'], found['setting'], found['dataset']) == ('ours', 'inductive', 'Miniature')
    assert len(found['class_names']) == 20 and len(found['unseen_names']) == 5 and found['bytes'] > 1e6
    assert found['sizes']['regions'] == 4 and found['best_score'] == 0.5321
    assert len(found['text_embeddings']['sha256']) == 64
    torch.save(torch.load(path, weights_only=True)['state_dict'], tmp_path / 'weights.pth')
    found = said(tmp_path / 'weights.pth')
    assert found['kind'] == 'CLIP-RC, without metadata' and found['dataset'] == 'not recorded'


def test_clip_that_open_clip_names(said, tmp_path):
    torch.save(clip_by_shape(**VIT_L_14).weights, tmp_path / 'clip.bin')
    found = said(tmp_path / 'clip.bin')
    assert found['kind'] == 'CLIP, as open_clip saves it' and '224x224' in found['image tower']
    assert found['GELU'].startswith('not in the file') and 'model.clip_name' in found['GELU']
    assert found['same sizes'].startswith('12: ViT-L-14/openai, ViT-L-14/laion400m_e31')
    machine = said(tmp_path / 'clip.bin', '--json')
    assert machine['gelu'] is None and 'ViT-L-14/laion2b_s32b_b82k' in machine['names']


@pytest.mark.parametrize('weights', [
    {'visual.class_embedding': torch.ones(3)},
    {'backbone.prompt_embeddings': torch.ones(3), 'decode_head.q_proj.weight': torch.ones(2, 3)}])
def test_something_else(said, tmp_path, weights):
    torch.save(weights, tmp_path / 'it.pth')
    found = said(tmp_path / 'it.pth')
    assert found['kind'] == 'neither CLIP-RC nor CLIP' and 'test it' not in found
    assert found['sizes'].startswith(next(iter(weights)))


def test_clip_as_hugging_face_saves_it(said, tmp_path):
    torch.save(hugging_face_weights(vocabulary=60), tmp_path / 'pytorch_model.bin')
    found = said(tmp_path / 'pytorch_model.bin')
    assert found['kind'] == "CLIP, as Hugging Face's transformers saves it" and 'width 64' in found['image tower']
    assert found['GELU'].startswith('not in the file')
    (tmp_path / 'config.json').write_text(json.dumps({
        'text_config': {'num_attention_heads': 4}, 'vision_config': {'num_attention_heads': 4, 'hidden_act': 'gelu'}}))
    assert said(tmp_path / 'pytorch_model.bin')['GELU'].startswith('plain')


def test_a_wrapped_clip_and_parts_of_one(said, tmp_path):
    weights = clip_weights()
    torch.save({'model': {f'_orig_mod.{name}': value for name, value in weights.items()}}, tmp_path / 'clip.pt')
    found = said(tmp_path / 'clip.pt')
    assert found['kind'] == 'CLIP, as OpenAI saves it' and found['text tower'] == 'in the file, 2 layers'
    assert found['GELU'].startswith('quick') and 'same sizes' not in found
    assert found['train on it'].endswith(f'pretrained={tmp_path}/clip.pt model.pretrained_text={tmp_path}/clip.pt')
    torch.save({**{f'clip.{name}': value for name, value in weights.items()}, 'a': torch.ones(1)}, tmp_path / 'more.pt')
    assert "below 'clip.' in it is one" in said(tmp_path / 'more.pt')['kind']
    torch.save({name: value for name, value in weights.items() if 'visual' not in name}, tmp_path / 'text.pt')
    assert said(tmp_path / 'text.pt')['kind'].startswith("CLIP's text tower alone")


@pytest.mark.parametrize(('change', 'words'), [(lambda value: value.to(torch.int8), r'torch.int8'),
                                               (lambda value: value / 0, 'not finite')])
def test_what_keeps_a_file_from_use(said, tmp_path, change, words):
    weights = clip_weights()
    torch.save({**weights, 'visual.proj': change(weights['visual.proj'])}, tmp_path / 'clip.pt')
    assert words in said(tmp_path / 'clip.pt')['fault']


@pytest.mark.parametrize(('meta', 'words'), [
    ({'clip_rc': {'format': 2}}, 'update'), ({'clip_rc': {'format': 1}}, 'damaged'), ({'CLASSES': 3}, 'damaged'),
    ({'CLASSES': ['a'], 'config': 'model = dict(novel_class=[1])'}, 'damaged')], ids=str)
def test_damaged_descriptions(fails, tmp_path, meta, words):
    assert words in fails(official(tmp_path / 'it.pth', **meta))


def test_an_official_file_is_understood_in_a_moment(tmp_path, monkeypatch):
    """No model is built."""
    monkeypatch.setattr('mmseg.models.builder.build_segmentor', None)
    monkeypatch.setattr('torch.nn.Module.__init__', None)
    assert list(lines(inspect(files.read(official(tmp_path / 'it.pth')))))
