"""What is said of a file: official ones with and without meta, our own, CLIP's, others, damaged ones."""
import json
import sys

import pytest
import torch
from mmcv import Config

from datasets import COCOStuff164k, PascalVOC20
from tests.clip_files import VIT_L_14, clip_by_shape, clip_weights, hugging_face_weights
from tests.conftest import GOLDEN, LEAVES, REPOSITORY
from tools import inspect_checkpoint
from tools.engine import process
from tools.engine.build import build_model, dataset_facts, describe
from tools.inspect_checkpoint import dataset_of, inspect, lines
from tools.results.leaves import leaves


@pytest.fixture
def said(monkeypatch, capsys):
    """Runs the script: what it prints, by name; or with --json, its content."""
    def said(path, *options):
        monkeypatch.setattr(sys, 'argv', ['inspect_checkpoint.py', str(path), *options])
        inspect_checkpoint.main()
        text = capsys.readouterr().out
        if '--json' in options:
            return json.loads(text)
        found, column, name = {}, 0, ''
        for line in text.splitlines():
            column = column or line.index(line.split(maxsplit=1)[1])
            assert line[column - 2:column] == '  ' and line[column] != ' ', 'the column is not straight'
            name = line[:column].strip() or name
            found[name] = [*found.get(name, []), line[column:]]
        return {name: '\n'.join(texts) for name, texts in found.items()}
    return said


@pytest.fixture
def fails(monkeypatch):
    """Runs the script; the error that it ends with."""
    def fails(path) -> str:
        monkeypatch.setattr(sys, 'argv', ['inspect_checkpoint.py', str(path)])
        with pytest.raises(SystemExit) as caught:
            process.run(inspect_checkpoint.main)
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


# ---- official files

@pytest.mark.parametrize('setting', LEAVES)
def test_an_official_file_with_its_config(said, tmp_path, setting):
    path = official(tmp_path / 'it.pth', CLASSES=PascalVOC20.CLASSES, config=official_config(setting), iter=19999)
    found = said(path)
    assert found['kind'] == 'CLIP-RC, saved by the published code, as the official files are'
    assert found['tensors'].startswith('496, 48 of them dead weight; ')
    assert found['image tower'] == ('width 768, 12 layers, patches of 16 pixels, images of 512x512; CLIP space 512')
    assert (found['prompt tokens'], found['region tokens']) == ('P = 10', 'R = 16, 4x4')
    assert found['decoder'] == '3 layers; layers of the recovery decoder: 1', 'also where its weight was 0'
    assert (found['dataset'], found['protocol']) == ('PascalVOC20', 'VOC 2012, 15/5')
    assert found['classes'] == '20: aeroplane, bicycle, bird, boat, bottle, bus and 14 more'
    assert found['unseen'] == '5: pottedplant, sheep, sofa, train, tvmonitor'
    assert found['setting'].startswith(setting) and found['iteration'] == '20000'
    assert found['text tower'] == 'in it, 12 layers' and 'its text tower' in found['text embeddings']
    assert found['config'] == f'configs/voc12/{LEAVES[setting]}.py'
    assert found['test it'].endswith(f'configs/voc12/{LEAVES[setting]}.py {path} --eval mIoU')


@pytest.mark.parametrize(('name', 'prompts', 'folders'), [('voc', 10, {'voc12', 'context'}), ('coco', 100, {'coco'})])
def test_an_official_file_without_meta(said, tmp_path, name, prompts, folders):
    found = said(official(tmp_path / 'it.pth', name))
    assert found['prompt tokens'] == f'P = {prompts}'
    assert found['dataset'] == found['iteration'] == found['seed'] == 'not recorded'
    assert found['protocol'].startswith('not recorded; with such sizes: ')
    assert found['setting'].startswith('not recorded; any of ') and 'classes' not in found
    configs = found['config'].splitlines()
    assert {config.split('/')[1] for config in configs} == folders
    assert len(configs) == len([leaf for leaf in leaves().values() if leaf.name.split('/')[1] in folders])
    assert {leaf.setting for leaf in map(leaves().get, configs[:3])} == {
        'inductive', 'transductive', 'fully_supervised'}, 'those of a published row come first'
    assert 'test.py CONFIG ' in found['test it']


def test_what_the_class_names_alone_tell(said, tmp_path):
    found = said(official(tmp_path / 'it.pth', 'coco', CLASSES=list(COCOStuff164k.CLASSES), config='model = open("x")'))
    assert (found['dataset'], found['protocol']) == ('COCOStuff164k', 'COCO-Stuff 164k, 156/15')
    assert found['classes'].startswith('171: person, ') and found['unseen'].startswith('15: cow, giraffe, ')
    assert found['prompt set'] == "not recorded; the dataset's: coco15"
    assert found['setting'].startswith('not recorded') and len(found['config'].splitlines()) == 3
    strange = said(official(tmp_path / 'it.pth', CLASSES=['rose', 'tulip']))
    assert strange['dataset'] == 'none of this repository' and strange['config'].startswith('none of this repository')


def test_parts_that_a_file_lacks(said, tmp_path):
    found = said(official(tmp_path / 'it.pth', without=['text_encoder.', 'decode_head.recovery_decoder.']))
    assert found['decoder'] == '3 layers; no recovery' and found['text tower'] == 'not in it'
    assert 'model.pretrained_text' in found['text embeddings']
    configs = found['config'].splitlines()
    assert configs and all(leaves()[name].setting == 'fully_supervised' for name in configs), 'others need recovery'


# ---- our own

@pytest.mark.parametrize('setting', ['inductive', 'transductive', 'fully'])
def test_a_file_of_ours(said, tmp_path, setting):
    found = said(ours(tmp_path / 'run', f'configs/miniature/{setting}.py'))
    assert found['kind'] == 'CLIP-RC, trained by this code' and 'dead' not in found['tensors']
    assert (found['dataset'], found['protocol'], found['prompt set']) == ('Miniature', 'miniature', 'single')
    assert found['setting'].startswith(setting) and found['unseen'].startswith('5: red stripes, ')
    assert (found['prompt tokens'], found['region tokens']) == ('P = 8', 'R = 4, 2x2')
    assert (found['text embeddings'], found['text tower']) == ('in it, 20x64', 'not in it')
    assert (found['iteration'], found['seed']) == ('500', '3')
    assert found['best score'] == '0.5321 until then, of best_hIoU_iter_400.pth'
    assert found['config'] == f'configs/miniature/{setting}.py'


@pytest.mark.parametrize('options', [
    {'data.test.unseen': ['red dots']}, {'data.test.prompt_set': 'coco15'}, {'model.backbone.num_tokens': 3},
    {'model.decode_head.loss_decode.recovery_loss_weight': 0}, {'data.test.prompt_set': ['a {}', 'the {}']},
    {'data.test.type': 'ZeroShotDataset', 'data.test.classes': ['rose', 'tulip, lily'], 'data.test.unseen': ['rose']}])
def test_a_file_of_ours_that_differs_from_all_configs(said, tmp_path, options):
    path = ours(tmp_path / 'run', 'configs/miniature/inductive.py', **options)
    (path.parent / 'notes.py').write_text('import os\n')
    found = said(path)
    assert found['config'].startswith('none of this repository')
    assert found['config'].endswith(f'work folder: {path.parent / "config.py"}')
    assert found['test it'].endswith(f'test.py {path.parent / "config.py"} {path} --eval mIoU')
    if 'data.test.classes' in options:
        assert (found['dataset'], found['classes']) == ('none of this repository', '2: rose; tulip, lily')


def test_for_machines(said, tmp_path):
    path = ours(tmp_path / 'run', 'configs/miniature/inductive.py')
    found = said(path, '--json')
    assert (found['kind'], found['setting'], found['dataset']) == ('ours', 'inductive', 'Miniature')
    assert len(found['class_names']) == 20 and len(found['unseen_names']) == 5 and found['bytes'] > 1e6
    assert found['configs'] == ['configs/miniature/inductive.py'] and found['sizes']['regions'] == 4
    assert len(found['text_embeddings']['sha256']) == 64 and found['best_score'] == 0.5321


def test_from_elsewhere_the_command_names_whole_paths(run, tmp_path):
    path = ours(tmp_path / 'run', 'configs/miniature/inductive.py')
    last = run('tools/inspect_checkpoint.py', path).stdout.splitlines()[-1]
    assert last.split()[2:] == ['python', f'{REPOSITORY}/test.py', f'{REPOSITORY}/configs/miniature/inductive.py',
                                str(path), '--eval', 'mIoU']


def test_weights_alone(said, tmp_path):
    path = ours(tmp_path / 'run', 'configs/miniature/inductive.py')
    torch.save(torch.load(path, weights_only=True)['state_dict'], tmp_path / 'weights.pth')
    found = said(tmp_path / 'weights.pth')
    assert found['kind'] == 'CLIP-RC, with no word on who trained it' and found['dataset'] == 'not recorded'
    assert found['config'].splitlines() == [f'configs/miniature/{name}.py' for name in (
        'fully', 'inductive', 'transductive')]


def test_every_registered_data_set_is_known_by_its_classes():
    for leaf in leaves().values():
        if leaf.config.data.test.type != 'ZeroShotDataset':  # with class names of its own
            assert dataset_of(list(leaf.facts.split.names)) == leaf.config.data.test.type
    assert dataset_of(['cat']) is None and dataset_of(None) is None


# ---- CLIP and others

def test_clip_as_openai_saves_it(said, clip_file):
    found = said(clip_file)
    assert found['kind'] == 'CLIP, as OpenAI saves it' and found['text tower'] == 'in it, 2 layers'
    assert found['fits'] == 'the configs in configs/other_clips', 'which leave the sizes out'
    assert found['GELU'] == 'QuickGELU, as OpenAI trained it' and 'of these sizes' not in found
    assert found['belongs in'].endswith(f'model.pretrained={clip_file} model.pretrained_text={clip_file}')
    assert said(REPOSITORY / 'tools/miniature/clip.pt')['fits'] == 'the configs in configs/custom, configs/miniature'


def test_clip_vit_b_16_as_open_clip_saves_it(said, tmp_path):
    weights = {name: torch.zeros((), dtype=torch.float16).expand(tensor.shape) for name, tensor in clip_weights(
        width=768, layers=12, embed=512, resolution=224, vocabulary=64).items()}
    for name in ('input_resolution', 'context_length', 'vocab_size'):
        del weights[name]
    torch.save(weights, tmp_path / 'clip.bin')
    found = said(tmp_path / 'clip.bin')
    assert found['kind'] == 'CLIP ViT-B/16, as open_clip saves it' and '224x224' in found['image tower']
    assert all(f'configs/{name}' in found['fits'] for name in ('coco', 'context', 'voc12'))
    assert found['GELU'].startswith('not told by the file: name it') and 'model.clip_name' in found['GELU']


def test_clip_that_open_clip_names(said, tmp_path):
    torch.save(clip_by_shape(**VIT_L_14).weights, tmp_path / 'clip.bin')
    found = said(tmp_path / 'clip.bin')
    assert found['kind'] == 'CLIP ViT-L/14, as open_clip saves it'
    assert found['of these sizes'].startswith('12: ViT-L-14/openai, ViT-L-14/laion400m_e31')
    assert found['fits'] == 'the configs in configs/other_clips'
    machine = said(tmp_path / 'clip.bin', '--json')
    assert machine['gelu'] is None and 'ViT-L-14/laion2b_s32b_b82k' in machine['names']
    assert machine['configs'] == ['configs/other_clips/voc_vit-l-14.py'], '14 does not divide 512'


def test_a_checkpoint_on_another_clip(said, tmp_path):
    sizes = {'patch_size': 32, 'width': 128, 'layers': 2, 'heads': 2, 'output_dim': 64, 'gelu': 'plain'}
    path = ours(tmp_path / 'run', 'configs/other_clips/voc_vit-b-32.py',
                **{f'model.backbone.{key}': value for key, value in sizes.items()})
    found = said(path)
    assert found['config'].splitlines() == ['configs/other_clips/voc_open_clip_vit-b-16.py',
                                            'configs/other_clips/voc_vit-b-32.py']
    assert found['image tower'].startswith('width 128, 2 layers, patches of 32 pixels')


@pytest.mark.parametrize('weights', [
    {'fc.weight': torch.ones(2, 3)}, {'visual.class_embedding': torch.ones(3)},
    {'backbone.prompt_embeddings': torch.ones(3), 'decode_head.q_proj.weight': torch.ones(2, 3)}])
def test_something_else(said, tmp_path, weights):
    torch.save(weights, tmp_path / 'it.pth')
    found = said(tmp_path / 'it.pth')
    assert found['kind'] == 'neither CLIP-RC nor CLIP'
    assert found['such as'].splitlines()[0].split()[0] == next(iter(weights))
    assert 'test it' not in found


def test_clip_as_hugging_face_saves_it(said, tmp_path):
    torch.save(hugging_face_weights(vocabulary=60), tmp_path / 'pytorch_model.bin')
    found = said(tmp_path / 'pytorch_model.bin')
    assert found['kind'] == "CLIP, as Hugging Face's transformers saves it" and 'width 64' in found['image tower']
    assert found['GELU'].startswith('not told by the file')
    (tmp_path / 'config.json').write_text(json.dumps({
        'text_config': {'num_attention_heads': 4}, 'vision_config': {'num_attention_heads': 4, 'hidden_act': 'gelu'}}))
    assert said(tmp_path / 'pytorch_model.bin')['GELU'] == 'plain GELU, as config.json beside it says'


def test_a_wrapped_clip_and_parts_of_one(said, tmp_path):
    weights = clip_weights()
    torch.save({'model': {f'_orig_mod.{name}': value for name, value in weights.items()}}, tmp_path / 'clip.pt')
    assert said(tmp_path / 'clip.pt')['kind'] == 'CLIP, as OpenAI saves it'
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


# ---- errors

class Unsafe:
    def __reduce__(self):
        return eval, ('1',)


def test_files_that_cannot_be_read(fails, tmp_path):
    path = official(tmp_path / 'it.pth')
    (tmp_path / 'short.pth').write_bytes(path.read_bytes()[:5000])
    torch.save({'state_dict': Unsafe()}, tmp_path / 'unsafe.pth')
    torch.save({'state_dict': {}}, tmp_path / 'empty.pth')
    for name, words in (('nowhere.pth', 'no file'), ('', 'is a folder: name a file in it'), ('short.pth', 'truncated'),
                        ('unsafe.pth', 'cannot be read safely'), ('empty.pth', 'no state dict')):
        message = fails(tmp_path / name)
        assert words in message and str(tmp_path / name) in message


@pytest.mark.parametrize(('meta', 'words'), [
    ({'clip_rc': {'format': 2}}, 'update'), ({'clip_rc': {'format': 1}}, 'damaged'), ({'clip_rc': 'x'}, 'damaged'),
    ({'CLASSES': 3}, 'damaged'), ({'hook_msgs': [1]}, 'damaged'),
    ({'CLASSES': ['a'], 'config': 'model = dict(novel_class=[1])'}, 'damaged')], ids=str)
def test_damaged_descriptions(fails, tmp_path, meta, words):
    assert words in fails(official(tmp_path / 'it.pth', **meta))


def test_an_official_file_is_understood_in_a_moment(tmp_path, monkeypatch):
    """No model is built."""
    monkeypatch.setattr('mmseg.models.builder.build_segmentor', None)
    monkeypatch.setattr('torch.nn.Module.__init__', None)
    assert list(lines(inspect(inspect_checkpoint.files.read(official(tmp_path / 'it.pth')))))
