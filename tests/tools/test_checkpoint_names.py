"""Commands take the names of tools/download.py where they take a checkpoint or a CLIP file."""
import json
import shutil

import pytest
from PIL import Image

from models.inference import load_model
from models.weights import files
from models.weights.published_files import FILES
from tests.conftest import REPOSITORY, logged

NAME = 'voc12-inductive'


@pytest.fixture
def pretrained(trained, clip_file, tmp_path, monkeypatch):
    """The folder of downloads, with a checkpoint and a CLIP file in it."""
    monkeypatch.setattr(files, 'REPOSITORY', tmp_path / 'repository')
    folder = tmp_path / 'repository/pretrained'
    folder.mkdir(parents=True)
    shutil.copy(trained / 'iter_4.pth', folder / FILES[NAME])
    shutil.copy(clip_file, folder / FILES['ViT-B-16'])
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_name_is_the_downloaded_file_unless_there_is_a_file_of_that_name(pretrained, tmp_path):
    assert files.locate(NAME) == pretrained / 'voc12-inductive.pth'
    assert files.read(NAME).path == str(pretrained / 'voc12-inductive.pth')
    assert str(files.locate('other.pth')) == 'other.pth'
    (tmp_path / NAME).mkdir()
    assert files.locate(NAME) == pretrained / 'voc12-inductive.pth', 'a folder is no checkpoint'
    (tmp_path / NAME).rmdir()
    shutil.copy(pretrained / FILES['ViT-B-16'], tmp_path / NAME)
    assert str(files.locate(NAME)) == NAME
    assert 'visual.proj' in files.read(NAME).weights


@pytest.mark.parametrize('command', [
    ['test.py', 'CONFIG', 'NAME', '--eval', 'mIoU'], ['tools/inspect_checkpoint.py', 'NAME'],
    ['tools/calibrate.py', 'CONFIG', 'NAME'], ['tools/train.py', 'CONFIG', '--load-from', 'NAME'],
    ['tools/demo.py', 'IMAGE', '--checkpoint', 'NAME'], ['tools/export.py', 'NAME', '--slim'],
    ['tools/explain.py', 'IMAGE', '--class', 'cat', '--checkpoint', 'NAME'],
    ['tools/webapp.py', '--checkpoint', 'NAME']], ids=lambda command: command[0])
def test_without_the_file_one_line_says_how_to_get_it(fails, tiny_configs, voc_root, pretrained, command):
    name = 'coco-transductive'
    stand_in = {'CONFIG': tiny_configs['inductive'], 'NAME': name,
                'IMAGE': voc_root / 'JPEGImages/val_000.jpg'}
    error = fails(*(stand_in.get(word, word) for word in command))
    assert error == f'error: {name} is not downloaded: python {files.REPOSITORY}/tools/download.py {name}'


def test_commands_use_it(call, tiny_configs, voc_root, pretrained, tmp_path):
    image, config = voc_root / 'JPEGImages/val_000.jpg', tiny_configs['inductive']
    assert f'file               {pretrained / FILES[NAME]}\n' in call('tools/inspect_checkpoint.py', NAME).stdout
    call('test.py', config, NAME, '--eval', 'mIoU')
    [scores] = (pretrained / 'eval_results').glob('*.json')
    assert json.loads(scores.read_text())['checkpoint'] == str(pretrained / FILES[NAME])
    call('tools/train.py', config, '--load-from', NAME, '--work-dir', tmp_path / 'run', '--no-validate',
         '--cfg-options', 'runner.max_iters=1')
    assert f'weights: {pretrained / FILES[NAME]}' in max((tmp_path / 'run').glob('*.log')).read_text()
    assert len(logged(tmp_path / 'run')) == 1
    call('tools/explain.py', image, '--class', 'cat', '--checkpoint', NAME, '--out', tmp_path / 'explained')
    call('tools/export.py', NAME, '--slim', '--out', tmp_path / 'exported')
    assert load_model(NAME).class_names == load_model(tmp_path / 'exported/model.safetensors').class_names


def test_results_of_another_checkpoint_are_not_up_to_date(call, voc_root, pretrained, trained, tmp_path):
    """A name is no path, so its file is what counts."""
    image = voc_root / 'JPEGImages/val_000.jpg'
    demo = ['tools/demo.py', image, '--checkpoint', NAME, '--out', tmp_path / 'out']
    call(*demo)
    assert '1 of 1 are up to date' in call(*demo).stderr
    shutil.copy(trained / 'iter_2.pth', pretrained / FILES[NAME])
    assert 'up to date' not in call(*demo).stderr


def test_a_clip_by_its_name(call, fails, voc_root, tiny_configs, pretrained, tmp_path):
    image = voc_root / 'JPEGImages/val_000.jpg'
    call('tools/demo.py', image, '--checkpoint', NAME, '--clip', 'ViT-B-16', '--classes', 'zebra, kiwi', '--out',
         tmp_path / 'out')
    assert Image.open(tmp_path / 'out/val_000.labels.png').size == Image.open(image).size
    call('tools/text_embeddings.py', 'voc12', '--clip', 'ViT-B-16', '--file', tmp_path / 'voc12.npy')
    call('tools/train.py', tiny_configs['inductive'], '--work-dir', tmp_path / 'run', '--no-validate', '--cfg-options',
         'runner.max_iters=1', 'model.pretrained=ViT-B-16', 'model.pretrained_text=ViT-B-16')
    error = fails('tools/demo.py', image, '--checkpoint', NAME, '--clip', 'ViT-L-14', '--classes', 'zebra, kiwi')
    assert f'Fetch it with\n    python {REPOSITORY}/tools/download.py ViT-L-14\n' in error
