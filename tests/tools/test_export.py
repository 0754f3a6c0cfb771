"""Exports: slim checkpoints in each type, loaded by all that loads checkpoints, and ONNX models run by onnxruntime."""
import json
import runpy
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
from mmcv import Config
from PIL import Image

from datasets.loading import LoadImage
from models.inference import load_model, read_image
from models.weights import files
from tests.clip_files import clip_weights
from tests.conftest import REPOSITORY
from tests.models.test_image_io import save_kinds
from tools import export, inspect_checkpoint
from tools.engine import process
from tools.engine.build import build_model, load_weights
from tools.engine.config import load_config
from tools.exporting import onnx_models, slim
from tools.train import initial_model, starting_point

MINIATURE = REPOSITORY / 'tools/miniature/model.safetensors'


@pytest.fixture
def exports(monkeypatch, cache):
    """Runs the script in this process."""
    def exports(*arguments) -> None:
        monkeypatch.setenv('CLIPRC_CACHE', str(cache))
        monkeypatch.setattr(sys, 'argv', ['export.py', *map(str, arguments)])
        export.main()
    return exports


@pytest.fixture
def fails(exports, monkeypatch):
    """Runs the script; the error that it ends with."""
    def fails(*arguments) -> str:
        monkeypatch.setattr(process.time, 'sleep', lambda _: None)
        with pytest.raises(SystemExit) as caught:
            process.run(lambda: exports(*arguments))
        assert str(caught.value.code).startswith('error: '), caught.value.code
        return caught.value.code
    return fails


@pytest.fixture(scope='session')
def checkpoint(trained):
    return trained / 'latest.pth'


@pytest.fixture(scope='session')
def slim_file(run, checkpoint, tmp_path_factory):
    """The tiny model without a text tower, in float16, made as users make it."""
    file = tmp_path_factory.mktemp('slim') / 'new' / 'tiny.safetensors'
    said = run('tools/export.py', checkpoint, '--slim', file, '--no-text-tower').stderr
    assert f'{file.stat().st_size / 1e6:.1f} MB' in said and f'{checkpoint.stat().st_size / 1e6:.1f} MB' in said
    assert '% of the pixels of 2 images keep their label' in said
    return file


@pytest.fixture(scope='session')
def image(voc_root):
    return voc_root / 'JPEGImages/val_000.jpg'


def texts_of(value):
    """All texts in plain values, but data in base64."""
    if isinstance(value, dict):
        yield from (text for name, item in value.items() if name != 'base64' for text in texts_of(item))
    elif isinstance(value, list):
        yield from (text for item in value for text in texts_of(item))
    elif isinstance(value, str):
        yield value


# ---- slim checkpoints

@pytest.mark.parametrize('dtype', slim.DTYPES)
def test_a_slim_file_segments_as_its_checkpoint(exports, checkpoint, image, tmp_path, dtype):
    file = tmp_path / 'it.safetensors'
    exports(checkpoint, '--slim', file, '--dtype', dtype)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    original, again = load_model(checkpoint), load_model(file)
    first, second = original.segment(image), again.segment(image)
    largest = float(np.abs(first.scores - second.scores).max())
    assert largest == 0 if dtype == 'float32' else 0 < largest < {'float16': 2e-3, 'bfloat16': 2e-2}[dtype]
    new = ['zebra', 'potted plant']  # by the text tower in it: CLIP's file is not where the config says
    assert torch.allclose(original.embed(new), again.embed(new), atol=1e-6)
    assert (again.class_names, again.seen_names, again.prompts) == (
        original.class_names, original.seen_names, original.prompts)


def test_what_a_slim_file_holds(slim_file, checkpoint):
    read, before = files.read(slim_file), files.read(checkpoint)
    assert set(read.weights) == {name for name in before.weights if 'recovery' not in name}
    for name, tensor in read.weights.items():
        exact = torch.equal(before.weights[name].half().float(), before.weights[name])
        assert tensor.dtype is (torch.float16 if exact or tensor.ndim > 1 else torch.float32), name
        assert torch.allclose(tensor.float(), before.weights[name], rtol=1e-3, atol=1e-7), name
    assert read.meta['iter'] == 3 and read.meta['clip_rc']['slim'] == 'float16'
    assert slim_file.stat().st_size < 0.4 * checkpoint.stat().st_size


@pytest.mark.parametrize('name', ['tiny', 'miniature'])
def test_no_path_of_a_machine_is_left(name, slim_file):
    meta = files.read(MINIATURE if name == 'miniature' else slim_file).meta
    texts = list(texts_of(meta))
    assert len(texts) > 50 and not [text for text in texts if text.startswith(('/', '~'))]
    clip = meta['clip_rc']['config']['model']['pretrained_text']
    assert clip == ('tools/miniature/clip.pt' if name == 'miniature' else 'tiny.pt')


def test_files_of_another_checkout_are_named_from_the_repository():
    found = slim._portable({'a': '/else/where/tools/miniature/clip.pt', 'data_root': '/data',
                            'b': [str(REPOSITORY / 'test.py'), '/x/y.npy', 1], 'c': 'pretrained/ViT-B-16.pt'})
    assert found == {'a': 'tools/miniature/clip.pt', 'b': ['test.py', 'y.npy', 1], 'c': 'pretrained/ViT-B-16.pt'}


def test_a_slim_file_is_tested(run, tiny_configs, slim_file, tmp_path):
    said = run('test.py', tiny_configs['inductive'], slim_file, '--eval', 'mIoU', '--work-dir', tmp_path).stderr
    assert 'text embeddings: those in' in said and 'setting, the config is' not in said
    found = json.loads(next(tmp_path.glob('*.json')).read_text())
    assert found['iteration'] == 4 and found['metric']['aAcc'] is not None


def test_training_starts_from_a_slim_file(tiny_configs, slim_file, checkpoint, tmp_path):
    config = load_config(Namespace(config=str(tiny_configs['inductive']), data_root=None, options=[], cfg_options=[]))
    args = Namespace(resume_from=None, auto_resume=False, load_from=str(slim_file))
    model = initial_model(config, starting_point(args, config, tmp_path, process.Place(torch.device('cpu')), None)[0])
    trained = files.read(checkpoint).weights
    for name, value in model.state_dict().items():
        if 'recovery' not in name:
            assert torch.allclose(value, trained[name], rtol=1e-3, atol=1e-7), name
    assert float(model.decode_head.recovery_decoder.linear_q_in.weight.std()) == pytest.approx(0.02, rel=0.1)
    args = Namespace(resume_from=str(slim_file), auto_resume=False, load_from=None)
    with pytest.raises(ValueError, match='no optimizer state .* --load-from'):
        starting_point(args, config, tmp_path, process.Place(torch.device('cpu')), None)


def test_a_slim_file_must_be_whole(tiny_configs, slim_file):
    read = files.read(slim_file)
    config = load_config(Namespace(config=str(tiny_configs['inductive']), data_root=None, options=[], cfg_options=[]))
    name = 'decode_head.decoder_v.layers.2.norm3.bias'
    for weights, words in (({key: value for key, value in read.weights.items() if key != name}, f'missing: {name}'),
                           ({**read.weights, 'more': torch.zeros(1)}, 'not known here: more')):
        with pytest.raises(ValueError, match=words):
            load_weights(build_model(config), read._replace(weights=weights))


def test_inspect_tells_what_the_miniature_is():
    found = inspect_checkpoint.inspect(files.read(MINIATURE))
    assert found['kind'] == 'slim' and found['configs'] == ['configs/miniature/inductive.py']
    assert dict(inspect_checkpoint.lines(found))['decoder'] == '3 layers; recovery left out'


def test_the_miniature_that_ships_knows_new_words_by_the_clip_that_ships():
    model = load_model(MINIATURE)
    result = model.segment(np.full((64, 64, 3), (220, 30, 30), np.uint8), ['red paint', 'a blue thing, blue paint'])
    assert (result.labels == 0).mean() > 0.9


@pytest.fixture(scope='module')
def official(tiny_configs, checkpoint, tmp_path_factory):
    """As the published code leaves one: text tower, dead tensors, the config as text, no word of ours."""
    read, tower = files.read(checkpoint), clip_weights()
    weights = {**read.weights, **{f'text_encoder.{name}': value.float() for name, value in tower.items()
                                  if name.startswith(files.TEXT_TOWER)},
               'decode_head.decoder_q.layers.0.norm1.bias': torch.zeros(32)}
    config = Config.fromfile(str(tiny_configs['inductive']))
    config.model.update(load_text_embedding='/away/voc.npy', pretrained='/away/ViT.pt', pretrained_text='/away/ViT.pt')
    file = tmp_path_factory.mktemp('official') / 'it.pth'
    meta = {'CLASSES': read.meta['CLASSES'], 'config': config.pretty_text, 'iter': 9}
    torch.save({'state_dict': weights, 'meta': meta, 'optimizer': {}}, file)
    torch.save({'state_dict': weights, 'meta': {}}, file.with_name('untold.pth'))
    return file


def test_an_official_file_is_told_what_it_is(exports, official, checkpoint, image, tmp_path):
    exports(official, '--slim', tmp_path / 'it.safetensors')
    read = files.read(tmp_path / 'it.safetensors')
    assert not any(files.DEAD.match(name) for name in read.weights)
    assert files.holds_text_tower(read) and not [text for text in texts_of(read.meta) if text[0:1] == '/']
    entry = read.meta['clip_rc']
    assert (entry['setting'], entry['prompt_set'], len(entry['split']['unseen'])) == ('inductive', 'single', 5)
    original, again = load_model(checkpoint), load_model(tmp_path / 'it.safetensors')
    assert again.seen_names == original.seen_names, 'though its config does not list them'
    assert torch.allclose(original.embed(original.class_names), again.embed(again.class_names), atol=1e-5)
    assert (original.segment(image).labels == again.segment(image).labels).mean() > 0.98
    exports(tmp_path / 'it.safetensors', '--slim', tmp_path / 'again.safetensors', '--dtype', 'float32')
    assert files.read(tmp_path / 'again.safetensors').meta['clip_rc']['config'] == entry['config']


def test_an_official_file_without_meta_needs_its_config(fails, official, tmp_path):
    assert 'name the config of its training' in fails(official.with_name('untold.pth'), '--slim',
                                                      tmp_path / 'it.safetensors')


def test_an_official_file_without_meta_with_its_config(exports, official, tiny_configs, tmp_path):
    exports(official.with_name('untold.pth'), '--config', tiny_configs['inductive'], '--slim',
            tmp_path / 'it.safetensors')
    model = load_model(tmp_path / 'it.safetensors')
    assert len(model.class_names) == 20 and len(model.seen_names) == 15


# ---- ONNX

@pytest.fixture(scope='module')
def onnx_file(tmp_path_factory):
    """The miniature's model and its text tower."""
    file = tmp_path_factory.mktemp('onnx') / 'it.onnx'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['export.py', str(MINIATURE), '--onnx', str(file), '--onnx-text',
                                    str(file.with_name('text.onnx'))])
        export.main()
    assert sorted(path.name for path in file.parent.iterdir()) == ['it.json', 'it.onnx', 'text.onnx']
    return file


def drawn_image():
    image = np.empty((128, 176, 3), np.uint8)
    image[:], image[20:90, 30:100], image[60:120, 110:170] = (40, 170, 60), (220, 40, 40), (60, 70, 210)
    return np.clip(image + np.random.default_rng(0).normal(0, 8, image.shape), 0, 255).astype(np.uint8)


def test_the_example_gives_the_labels_of_pytorch(onnx_file, tmp_path):
    Image.fromarray(drawn_image()).save(tmp_path / 'it.png')
    done = subprocess.run([sys.executable, REPOSITORY / 'tools/exporting/onnx_example.py', onnx_file,
                           tmp_path / 'it.png', tmp_path / 'labels.png'], cwd=tmp_path, text=True, capture_output=True,
                          check=True)
    expected = load_model(MINIATURE).segment(tmp_path / 'it.png')
    labels = np.array(Image.open(tmp_path / 'labels.png'))
    assert (labels == expected.labels).mean() > 0.95  # it resizes by pillow, and labels instead of scores
    shares = dict(line.split('%  ') for line in done.stdout.splitlines())
    assert f'  {sum(map(float, shares)):.0f}'.strip() == '100' and set(shares.values()) <= set(expected.words)


def test_the_example_reads_images_as_the_project_does(onnx_file, tmp_path):
    """Of each kind: the labels of the file are those of the plain image that the project reads from it."""
    def labels_of(path) -> np.ndarray:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, 'argv', ['onnx_example.py', str(onnx_file), str(path), str(tmp_path / 'labels.png')])
            runpy.run_path(str(REPOSITORY / 'tools/exporting/onnx_example.py'))
        return np.asarray(Image.open(tmp_path / 'labels.png'))

    files = {path.name: path for path in save_kinds(tmp_path, drawn_image())}
    with pytest.raises(SystemExit, match='holds floats'):
        labels_of(files['float.tif'])
    model, step = load_model(MINIATURE), LoadImage()
    for name in ('deep.png', 'long.tif', 'rgba.png', 'la.png', 'palette_clear.png', 'cmyk.jpg', 'turned.jpg'):
        Image.fromarray(read_image(files[name])).save(tmp_path / 'plain.png')
        labels = labels_of(files[name])
        assert np.array_equal(labels, labels_of(tmp_path / 'plain.png')), name
        loaded = step({'img_prefix': str(tmp_path), 'img_info': {'filename': name}})['img'][..., ::-1]
        by_path, by_loader = model.segment([files[name], loaded])
        assert np.array_equal(by_path.labels, by_loader.labels), name
        assert (by_path.labels == labels).mean() > 0.95, name  # the example resizes by pillow


def test_new_words_by_onnx_alone(onnx_file):
    """Both models, tokens between: what load_model makes of new words, for a number of them that no export saw."""
    onnxruntime = pytest.importorskip('onnxruntime')
    words, model = ['red paint', 'blue paint', 'green stuff'], load_model(MINIATURE)
    tokens = onnx_models.tokenize([f'a photo of a {word}' for word in words])
    rows, = onnxruntime.InferenceSession(onnx_file.with_name('text.onnx')).run(None, {'tokens': tokens.numpy()})
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.abs(rows - model.embed(words).numpy()).max() < 1e-5
    image = drawn_image()[:64, :64]
    about = json.loads(onnx_file.with_suffix('.json').read_text())
    window = ((image - np.array(about['mean'])) / about['std']).transpose(2, 0, 1)[None].astype(np.float32)
    penalty = np.array([0.1, 0.1, 0], np.float32)
    scores, = onnxruntime.InferenceSession(onnx_file).run(None, {'image': window, 'text': rows, 'penalty': penalty})
    assert scores.shape == (1, 3, 64, 64)
    assert np.abs(scores[0] - model.segment(image, words).scores).max() < 1e-5


def test_what_stands_beside_an_onnx_model(onnx_file):
    about = json.loads(onnx_file.with_suffix('.json').read_text())
    model = load_model(MINIATURE)
    assert about['classes'] == list(model.class_names) and about['prompts'] == ['a photo of a {}']
    assert [name for name, value in zip(about['classes'], about['penalty']) if value] == list(model.seen_names)
    assert set(about['penalty']) == {0, 0.1} and (about['window'], about['stride'], about['short_side']) == (64, 64, 64)
    assert np.array_equal(np.array(about['text'], np.float32), model.embed(model.class_names).numpy())


def test_a_model_that_segments_otherwise_is_found_out(onnx_file):
    model = load_model(MINIATURE)
    windows = onnx_models.windows_of([drawn_image()], model)
    scores = onnx_models.WindowScores(model.model).eval()
    text = model.embed(model.class_names)
    model.model.class_head.set_classes(len(text), text, seen=[])
    right = onnx_models.compare_windows(scores, onnx_file, windows, text)
    assert [*right] == [1, 2, 20, 41], 'the export saw 3'
    assert all(found.other_labels == 0 and found.difference < 1e-5 for found in right.values())
    with torch.no_grad():
        model.model.decode_head.lateral_proj.bias += 0.3
    wrong = onnx_models.compare_windows(scores, onnx_file, windows, text)
    assert wrong[20].other_labels > 0 and wrong[20].difference > 1e-3


# ---- what cannot be

def test_nothing_is_left_of_what_segments_otherwise(fails, monkeypatch, tmp_path):
    monkeypatch.setattr(export, 'LEAST_AGREEMENT', 1.01)
    words = fails(MINIATURE, '--slim', tmp_path / 'it.safetensors', '--dtype', 'bfloat16')
    assert 'keep their label' in words and 'nothing is written' in words and not [*tmp_path.iterdir()]
    monkeypatch.setattr(onnx_models, 'export_windows', lambda model, file: file.write_bytes(b'no model'))
    monkeypatch.setattr(onnx_models, 'compare_windows', lambda *_: {2: onnx_models.Comparison(9, 1, 0.)})
    assert '2 classes: 9 pixels, 1 labels differ' in fails(MINIATURE, '--onnx', tmp_path / 'it.onnx')
    assert not [*tmp_path.iterdir()]


def test_values_that_a_type_cannot_hold():
    model = load_model(MINIATURE).model
    with torch.no_grad():
        model.backbone.proj[0, 0] = 1e6
    with pytest.raises(ValueError, match='backbone.proj .*--dtype bfloat16'):
        slim.slim_weights(model, None, torch.float16)
    assert slim.slim_weights(model, None, torch.bfloat16)['backbone.proj'].dtype is torch.bfloat16


@pytest.mark.parametrize(('arguments', 'words'), [
    ([], 'nothing to write: use --slim'),
    (['--slim', 'it.pth'], 'must end in .safetensors'),
    (['--onnx', 'it.pt'], 'must end in .onnx'),
    (['--onnx', 'it.onnx', '--onnx-text', 'it.onnx'], 'two files'),
    (['--slim', 'it.safetensors', '--clip', 'nowhere.pt'], 'no CLIP file nowhere.pt'),
    (['--slim', 'it.safetensors', '--config', 'nowhere.py'], 'no config file nowhere.py'),
    (['--slim', 'it.safetensors', '--image', 'nowhere.jpg'], 'nowhere.jpg'),
])
def test_bad_arguments(fails, monkeypatch, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert words in fails(MINIATURE, *arguments) and not [*tmp_path.iterdir()]


def test_bad_files(fails, clip_file, slim_file, tmp_path):
    damaged = tmp_path / 'damaged.safetensors'
    damaged.write_bytes(MINIATURE.read_bytes()[:-9])
    wanted = '--slim', tmp_path / 'it.safetensors'
    assert 'truncated or damaged' in fails(damaged, *wanted)
    assert 'no file' in fails(tmp_path / 'nowhere.pth', *wanted)
    assert 'is CLIP itself, no CLIP-RC checkpoint' in fails(clip_file, *wanted)
    words = fails(slim_file, *wanted)
    assert 'no CLIP file tiny.pt' in words and '--no-text-tower' in words
    assert [path.name for path in tmp_path.iterdir()] == ['damaged.safetensors']


def test_absent_packages_are_named(fails, monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_models, 'find_spec', lambda name: None if name == 'onnxscript' else True)
    words = fails(MINIATURE, '--onnx', tmp_path / 'it.onnx')
    assert 'ONNX needs onnxscript' in words and 'tools/export_requirements.txt' in words
