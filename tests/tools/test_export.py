"""tools/export.py: slim checkpoints of each type in every tool that loads them, and ONNX models in onnxruntime."""
import json
import re
import runpy
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
from mmcv import Config
from PIL import Image

from models.inference import load_model, read_image
from models.weights import files
from models.weights.clip import holds_text_tower
from models.weights.cliprc import DEAD
from models.weights.names import TEXT_TOWER
from tests.clip_files import clip_weights
from tests.conftest import REPOSITORY
from tests.models.test_image_io import save_kinds
from tools.engine import process
from tools.engine.config import load_config
from tools.exporting import checked_export, onnx_models, slim
from tools.results.inspection import inspect
from tools.training.start import initial_model, starting_point

MINIATURE = REPOSITORY / 'tools/miniature/model.safetensors'


@pytest.fixture
def exports(call):
    return lambda *arguments: call('tools/export.py', *arguments)


@pytest.fixture(scope='session')
def checkpoint(trained):
    return trained / 'latest.pth'


@pytest.fixture(scope='session')
def slim_file(run, checkpoint, tmp_path_factory):
    """The tiny model without a text tower, in float16, made by the command."""
    file = tmp_path_factory.mktemp('slim') / 'new/model.safetensors'
    log = run('tools/export.py', checkpoint, '--slim', '--out', file.parent, '--no-text-tower').stderr
    assert f'{file.stat().st_size / 1e6:.1f} MB' in log and f'{checkpoint.stat().st_size / 1e6:.1f} MB' in log
    assert '% of the pixels of 2 images keep their label' in log
    assert 'comparing labels with those of the checkpoint: image 2 of 2' in log
    return file


@pytest.fixture(scope='session')
def image(voc_root):
    return voc_root / 'JPEGImages/val_000.jpg'


def paths_in(meta: dict) -> list[str]:
    """Texts that name a place on this machine, except base64 data."""
    return re.findall(r'(?<!"base64": )"[/~][^"]*"', json.dumps(meta))


# ---- slim checkpoints

@pytest.mark.parametrize('dtype', slim.DTYPES)
def test_a_slim_file_segments_as_its_checkpoint(exports, checkpoint, image, tmp_path, dtype):
    file = tmp_path / 'model.safetensors'
    exports(checkpoint, '--slim', '--out', tmp_path, '--dtype', dtype)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    original, again = load_model(checkpoint), load_model(file)
    first, second = original.segment(image), again.segment(image)
    largest = float(np.abs(first.scores - second.scores).max())
    assert largest == 0 if dtype == 'float32' else 0 < largest < {'float16': 2e-3, 'bfloat16': 2e-2}[dtype]
    new = ['zebra', 'potted plant']  # by its own text tower: the CLIP file is not where the config says
    assert torch.allclose(original.embed(new), again.embed(new), atol=1e-6)
    assert (again.class_names, again.seen_names, again.prompts) == (
        original.class_names, original.seen_names, original.prompts)


def test_contents_of_a_slim_file(slim_file, checkpoint):
    read, before = files.read(slim_file), files.read(checkpoint)
    assert set(read.weights) == {name for name in before.weights if 'recovery' not in name}
    for name, tensor in read.weights.items():
        exact = torch.equal(before.weights[name].half().float(), before.weights[name])
        assert tensor.dtype is (torch.float16 if exact or tensor.ndim > 1 else torch.float32), name
        assert torch.allclose(tensor.float(), before.weights[name], rtol=1e-3, atol=1e-7), name
    assert read.meta['iter'] == 3 and read.meta['clip_rc']['slim'] == 'float16'
    assert paths_in(before.meta['clip_rc']) and not paths_in(read.meta)
    assert read.meta['clip_rc']['config']['model']['pretrained_text'] == 'tiny.pt'
    assert slim_file.stat().st_size < 0.4 * checkpoint.stat().st_size


def test_files_of_another_checkout_are_named_from_the_repository():
    found = slim._portable({'a': '/else/where/tools/miniature/clip.pt', 'data_root': '/data',
                            'b': [str(REPOSITORY / 'test.py'), '/x/y.npy', 1], 'c': 'pretrained/ViT-B-16.pt'})
    assert found == {'a': 'tools/miniature/clip.pt', 'b': ['test.py', 'y.npy', 1], 'c': 'pretrained/ViT-B-16.pt'}


def test_a_slim_file_is_tested(run, tiny_configs, slim_file, tmp_path):
    log = run('test.py', tiny_configs['inductive'], slim_file, '--eval', 'mIoU', '--work-dir', tmp_path).stderr
    assert 'text embeddings: those in' in log and 'setting, the config is' not in log
    found = json.loads(next(tmp_path.glob('*.json')).read_text())
    assert found['iteration'] == 4 and found['metric']['aAcc'] is not None


def test_training_starts_from_a_slim_file(tiny_configs, slim_file, checkpoint, tmp_path):
    config = load_config(tiny_configs['inductive'])
    place = process.Place(torch.device('cpu'))
    args = Namespace(resume_from=None, auto_resume=False, load_from=str(slim_file))
    model = initial_model(config, starting_point(args, config, tmp_path, place, None)[0])
    trained = files.read(checkpoint).weights
    for name, value in model.state_dict().items():
        if 'recovery' not in name:
            assert torch.allclose(value, trained[name], rtol=1e-3, atol=1e-7), name
    assert float(model.decode_head.recovery_decoder.linear_q_in.weight.std()) == pytest.approx(0.02, rel=0.1)
    args = Namespace(resume_from=str(slim_file), auto_resume=False, load_from=None)
    with pytest.raises(ValueError, match='no optimizer state .* --load-from'):
        starting_point(args, config, tmp_path, place, None)


def test_what_the_miniature_is():
    read = files.read(MINIATURE)
    found = inspect(read)
    assert found['kind'] == 'CLIP-RC, exported for inference' and found['configs'] == ['configs/miniature/inductive.py']
    assert found['sizes']['recovery_layers'] == 0 and not paths_in(read.meta)
    assert read.meta['clip_rc']['config']['model']['pretrained_text'] == 'tools/miniature/clip.pt'


@pytest.fixture(scope='module')
def official(tiny_configs, checkpoint, tmp_path_factory):
    """As the published code writes it: text tower, unused tensors, the config as text, none of our metadata."""
    read, tower = files.read(checkpoint), clip_weights()
    weights = {**read.weights, **{f'text_encoder.{name}': value.float() for name, value in tower.items()
                                  if name.startswith(TEXT_TOWER)},
               'decode_head.decoder_q.layers.0.norm1.bias': torch.zeros(32)}
    config = Config.fromfile(str(tiny_configs['inductive']))
    config.model.update(load_text_embedding='/away/voc.npy', pretrained='/away/ViT.pt', pretrained_text='/away/ViT.pt')
    file = tmp_path_factory.mktemp('official') / 'it.pth'
    meta = {'CLASSES': read.meta['CLASSES'], 'config': config.pretty_text, 'iter': 9}
    torch.save({'state_dict': weights, 'meta': meta, 'optimizer': {}}, file)
    torch.save({'state_dict': weights, 'meta': {}}, file.with_name('bare.pth'))
    return file


def test_an_official_file_gets_metadata(exports, official, checkpoint, image, tmp_path):
    exports(official, '--slim', '--out', tmp_path)
    read = files.read(tmp_path / 'model.safetensors')
    assert not any(DEAD.match(name) for name in read.weights)
    assert holds_text_tower(read) and not paths_in(read.meta)
    entry = read.meta['clip_rc']
    assert (entry['setting'], entry['prompt_set'], len(entry['split']['unseen'])) == ('inductive', 'single', 5)
    original, again = load_model(checkpoint), load_model(tmp_path / 'model.safetensors')
    assert again.seen_names == original.seen_names, 'though its config does not list them'
    assert torch.allclose(original.embed(original.class_names), again.embed(again.class_names), atol=1e-5)
    assert (original.segment(image).labels == again.segment(image).labels).mean() > 0.98
    exports(tmp_path / 'model.safetensors', '--slim', '--out', tmp_path / 'again', '--dtype', 'float32')
    assert files.read(tmp_path / 'again/model.safetensors').meta['clip_rc']['config'] == entry['config']


def test_an_official_file_without_meta_needs_its_config(exports, fails, official, tiny_configs, tmp_path):
    command = official.with_name('bare.pth'), '--slim', '--out', tmp_path
    assert 'name the config of its training' in fails('tools/export.py', *command)
    exports(*command, '--config', tiny_configs['inductive'])
    model = load_model(tmp_path / 'model.safetensors')
    assert len(model.class_names) == 20 and len(model.seen_names) == 15


# ---- ONNX

@pytest.fixture(scope='module')
def onnx_file(run, tmp_path_factory):
    """The miniature's model and its text tower."""
    folder = tmp_path_factory.mktemp('onnx')
    log = run('tools/export.py', MINIATURE, '--onnx', '--onnx-text', '--out', folder).stderr
    places = [log.index(words) for words in (
        'model.onnx: tracing', 'comparing scores of 4 windows', '41 classes: of ', 'text.onnx: tracing',
        'comparing the embeddings of 20 texts', 'embeddings differ by at most')]
    assert places == sorted(places), 'what it does is said before'
    assert sorted(path.name for path in folder.iterdir()) == ['model.json', 'model.onnx', 'text.onnx']
    return folder / 'model.onnx'


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
    assert (np.array(Image.open(tmp_path / 'labels.png')) == expected.labels).mean() > 0.95  # resized by pillow
    shares = dict(line.split('%  ') for line in done.stdout.splitlines())
    assert f'  {sum(map(float, shares)):.0f}'.strip() == '100' and set(shares.values()) <= set(expected.class_names)


def test_the_example_reads_images_as_the_project_does(onnx_file, tmp_path):
    """The labels of a file of each kind are those of the RGB image that the project reads from it."""
    def labels_of(path) -> np.ndarray:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, 'argv', ['onnx_example.py', str(onnx_file), str(path), str(tmp_path / 'labels.png')])
            runpy.run_path(str(REPOSITORY / 'tools/exporting/onnx_example.py'))
        return np.asarray(Image.open(tmp_path / 'labels.png'))

    files = {path.name: path for path in save_kinds(tmp_path, drawn_image())}
    with pytest.raises(SystemExit, match='^0$'):
        labels_of('--help')
    with pytest.raises(SystemExit, match='contains floats'):
        labels_of(files['float.tif'])
    for name in ('deep.png', 'long.tif', 'rgba.png', 'la.png', 'palette_clear.png', 'cmyk.jpg', 'turned.jpg'):
        Image.fromarray(read_image(files[name])).save(tmp_path / 'plain.png')
        assert np.array_equal(labels_of(files[name]), labels_of(tmp_path / 'plain.png')), name


def test_new_class_names_by_onnx_alone(onnx_file):
    """Both ONNX models together give the scores of load_model, for another number of classes than at export."""
    onnxruntime = pytest.importorskip('onnxruntime')
    names, model = ['red paint', 'blue paint', 'green stuff'], load_model(MINIATURE)
    tokens = onnx_models.tokenize([f'a photo of a {name}' for name in names])
    rows, = onnxruntime.InferenceSession(onnx_file.with_name('text.onnx')).run(None, {'tokens': tokens.numpy()})
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.abs(rows - model.embed(names).numpy()).max() < 1e-5
    image = drawn_image()[:64, :64]
    facts = json.loads(onnx_file.with_suffix('.json').read_text())
    window = ((image - np.array(facts['mean'])) / facts['std']).transpose(2, 0, 1)[None].astype(np.float32)
    penalty = np.array([0.1, 0.1, 0], np.float32)
    scores, = onnxruntime.InferenceSession(onnx_file).run(None, {'image': window, 'text': rows, 'penalty': penalty})
    assert scores.shape == (1, 3, 64, 64)
    assert np.abs(scores[0] - model.segment(image, names).scores).max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize('strict', [True, False])
def test_torch_export(strict):
    """Not by the command, which writes ONNX: the module that it exports is one for torch.export too, traced or run."""
    scores = onnx_models.WindowScores(load_model(MINIATURE).model).eval()
    space, any_number = scores.head.class_head.embed_dims, {0: torch.export.Dim.DYNAMIC}

    def inputs(windows: int, classes: int) -> tuple[torch.Tensor, ...]:
        return torch.randn(windows, 3, 64, 64), torch.randn(classes, space), torch.rand(classes)

    program = torch.export.export(scores, inputs(2, 3), dynamic_shapes=(any_number,) * 3, strict=strict).module()
    for windows, classes in (2, 3), (1, 20), (5, 1):
        example = inputs(windows, classes)
        assert torch.allclose(program(*example), scores(*example), atol=1e-6)


def test_the_json_beside_an_onnx_model(onnx_file):
    facts = json.loads(onnx_file.with_suffix('.json').read_text())
    model = load_model(MINIATURE)
    assert facts['class_names'] == list(model.class_names) and facts['prompts'] == ['a photo of a {}']
    assert [name for name, value in zip(facts['class_names'], facts['penalty']) if value] == list(model.seen_names)
    assert set(facts['penalty']) == {0, 0.1} and (facts['window'], facts['stride'], facts['short_side']) == (64, 64, 64)
    assert np.array_equal(np.array(facts['text'], np.float32), model.embed(model.class_names).numpy())


def test_the_comparison_finds_a_wrong_model(onnx_file):
    model = load_model(MINIATURE)
    windows = onnx_models.windows_of([drawn_image()], model)
    scores = onnx_models.WindowScores(model.model).eval()
    text = model.embed(model.class_names)
    model.model.class_head.set_classes(len(text), text, seen=[])
    right = [*onnx_models.compare_windows(scores, onnx_file, windows, text)]
    assert [classes for classes, *_ in right] == [1, 2, 20, 41], 'the export saw 3'
    assert all(others == 0 and difference < 1e-5 for _, others, difference in right)
    with torch.no_grad():
        model.model.decode_head.lateral_proj.bias += 0.3
    _, _, (_, others, difference), _ = onnx_models.compare_windows(scores, onnx_file, windows, text)
    assert others > 0 and difference > 1e-3


# ---- errors

def test_no_file_is_left_if_labels_differ(fails, monkeypatch, tmp_path):
    monkeypatch.setattr(checked_export, 'MIN_AGREEMENT', 1.01)
    error = fails('tools/export.py', MINIATURE, '--slim', '--out', tmp_path, '--dtype', 'bfloat16')
    assert 'keep their label' in error and 'nothing is written' in error and not [*tmp_path.iterdir()]
    monkeypatch.setattr(onnx_models, 'export_windows', lambda model, file: file.write_bytes(b'no model'))
    monkeypatch.setattr(onnx_models, 'compare_windows', lambda *_: [(2, 1, 0.)])
    error = fails('tools/export.py', MINIATURE, '--onnx', '--out', tmp_path)
    assert 'with 2 classes: of ' in error and ' pixels, 1 labels differ' in error
    assert not [*tmp_path.iterdir()]


def test_without_checks(run, call, monkeypatch, tmp_path):
    """Nothing is compared, and nothing says that it was."""
    monkeypatch.setattr(checked_export, '_agreement', None)
    monkeypatch.setattr(onnx_models, 'compare_windows', None)
    monkeypatch.setattr(onnx_models, 'compare_text', None)
    for name in ('export_windows', 'export_text'):
        monkeypatch.setattr(onnx_models, name, lambda model, file: file.write_bytes(b'a model'))
    said = call('tools/export.py', MINIATURE, '--slim', '--onnx', '--onnx-text', '--no-check', '--out', tmp_path).stderr
    for name in ('model.safetensors', 'model.onnx', 'text.onnx'):
        assert f'{name} is not compared with the checkpoint (--no-check)' in said and (tmp_path / name).exists()
    assert 'keep their label' not in said and 'differ' not in said and 'comparing' not in said
    again = call('tools/export.py', MINIATURE, '--onnx', '--no-check', '--out', tmp_path).stderr
    assert 'text.onnx is of an earlier export' in again and 'is of an earlier export' not in said
    done = run('tools/export.py', MINIATURE, '--slim', '--no-check', '--image', 'it.jpg', check=False)
    assert done.returncode == 2 and '--image: --no-check compares nothing' in done.stderr


def test_values_that_a_type_cannot_hold():
    model = load_model(MINIATURE).model
    with torch.no_grad():
        model.backbone.proj[0, 0] = 1e6
    with pytest.raises(ValueError, match='backbone.proj .*--dtype bfloat16'):
        slim.slim_weights(model, None, torch.float16)
    assert slim.slim_weights(model, None, torch.bfloat16)['backbone.proj'].dtype is torch.bfloat16


def test_nothing_to_write(run):
    done = run('tools/export.py', MINIATURE, check=False)
    assert done.returncode == 2 and 'nothing to write: give --slim' in done.stderr


def test_bad_files(fails, clip_file, slim_file, tmp_path):
    damaged, out = tmp_path / 'damaged.safetensors', tmp_path / 'out'
    damaged.write_bytes(MINIATURE.read_bytes()[:-9])
    for message, *arguments in (
            ('no CLIP file nowhere.pt', MINIATURE, '--clip', 'nowhere.pt'),
            ('no config file nowhere.py', MINIATURE, '--config', 'nowhere.py'),
            ('nowhere.jpg', MINIATURE, '--image', 'nowhere.jpg'), ('truncated or damaged', damaged),
            ('no file', tmp_path / 'nowhere.pth'), ('is CLIP itself, not a CLIP-RC checkpoint', clip_file),
            ('no CLIP file tiny.pt', slim_file), ('--no-text-tower', slim_file)):
        assert message in fails('tools/export.py', '--slim', '--out', out, *arguments)
        assert not [*out.glob('*')]


def test_missing_packages(fails, monkeypatch, tmp_path):
    monkeypatch.setattr(checked_export, 'find_spec', lambda name: None if name == 'onnxscript' else True)
    error = fails('tools/export.py', MINIATURE, '--onnx', '--out', tmp_path)
    assert 'ONNX needs onnxscript' in error and 'tools/export_requirements.txt' in error
