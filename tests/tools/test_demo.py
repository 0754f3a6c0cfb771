"""tools/demo.py as users call it: images, folders, videos; up-to-date results are kept; errors are clear."""
import json
import os
import re
import sys
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from models.inference import load_model
from tests.conftest import REPOSITORY, forget_loggers
from tools import demo as command
from tools.engine import errors
from tools.engine.files import lock_folder
from tools.miniature.world import draw_scene

MODEL = REPOSITORY / 'tools/miniature/model.safetensors'
NAMES = 'red dots, blue paint, green stripes'


@pytest.fixture
def demo(monkeypatch, capfd):
    """Runs the command in this process; returns what it writes to stderr, and its error if it may fail."""
    def demo(*arguments, check: bool = True) -> str:
        forget_loggers()
        monkeypatch.setattr(sys, 'argv', ['demo.py', '--checkpoint', *map(str, (MODEL, *arguments))])
        error = ''
        try:
            errors.run(command.main)
        except SystemExit as end:
            assert not check, end.code
            error = str(end.code)
        return capfd.readouterr().err + error
    yield demo
    forget_loggers()


@pytest.fixture(scope='module')
def scenes():
    return [draw_scene([12, index]).image for index in range(3)]


@pytest.fixture
def folder(tmp_path, scenes):
    """Three images, of which two have one stem, and one lies deeper."""
    (tmp_path / 'in/deep').mkdir(parents=True)
    for name, scene in zip(('a.png', 'b.png', 'deep/a.bmp'), scenes, strict=True):
        Image.fromarray(scene).save(tmp_path / 'in' / name)
    Image.fromarray(scenes[0]).save(tmp_path / 'in/a.bmp')
    (tmp_path / 'in/notes.txt').write_text('no image')
    return tmp_path / 'in'


def test_an_image(run, scenes, tmp_path):
    Image.fromarray(scenes[0]).save(tmp_path / 'it.png')
    log = run('tools/demo.py', tmp_path / 'it.png', '--classes', NAMES, '--out', tmp_path / 'out', '--checkpoint',
              MODEL).stderr
    result = load_model(MODEL).segment(scenes[0], NAMES.split(', '))
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'out/it.labels.png')), result.labels)
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'out/it.overlay.png')), np.asarray(result.overlay()))
    summary = json.loads((tmp_path / 'out/it.json').read_text())
    assert summary['classes'] == json.loads(json.dumps(result.summary()['classes']))
    assert 'mean score' in log and '1 image' in log
    assert not (tmp_path / 'out/contact_sheet.png').exists()


def test_every_class_has_a_line_and_unreliable_results_are_warned_of(demo, scenes, tmp_path):
    Image.fromarray(scenes[2]).save(tmp_path / 'drawn.png')  # with green stripes
    log = demo(tmp_path / 'drawn.png', '--classes', f'{NAMES}, potted plant', '--out', tmp_path / 'out')
    for name in [*NAMES.split(', '), 'potted plant']:
        assert re.search(rf' [ \d]+\.\d %  mean score (-?\d\.\d\d|   -)  {name}$', log, re.MULTILINE), name
    assert "miniature's model, which knows only its own drawn world" in log
    assert 'recognises none' not in log
    noise = np.random.default_rng(0).integers(90, 110, (2, 60, 80, 3), dtype=np.uint8)
    (tmp_path / 'photos').mkdir()
    for number, image in enumerate(noise):
        Image.fromarray(image).save(tmp_path / f'photos/{number}.png')
    for _ in range(2):  # new, and up to date
        log = demo(tmp_path / 'photos/0.png', '--classes', 'potted plant, sofa, cat', '--out', tmp_path / 'out')
        assert log.count('no pixel scores above 0.0') == 1
        assert re.search(r'   0\.0 %  mean score    -  (sofa|cat|potted plant)$', log, re.MULTILINE)
    Image.fromarray(scenes[2]).save(tmp_path / 'photos/drawn.png')
    log = demo(tmp_path / 'photos', '--classes', f'potted plant, {NAMES}', '--out', tmp_path / 'more')
    assert log.count('2 of 3: no pixel scores above 0.0') == log.count('no pixel') == 1


def test_a_folder_is_continued(demo, folder, tmp_path):
    out = tmp_path / 'out'
    log = demo(folder, '--classes', NAMES, '--out', out, '--threshold', 0.2)
    names = ['a.bmp', 'a.png', 'b', 'deep/a']
    assert sorted(str(path.relative_to(out)) for path in out.rglob('[!.]*') if path.is_file()) == sorted(
        ['contact_sheet.png', *(f'{name}.{part}' for name in names for part in ('json', 'labels.png', 'overlay.png'))])
    assert '4 images' in log
    before = {name: (out / f'{name}.json').stat().st_mtime_ns for name in names}
    (out / 'b.json').unlink()
    Image.open(folder / 'a.png').transpose(Image.Transpose.ROTATE_90).save(folder / 'a.png')
    time.sleep(0.02)
    log = demo(folder, '--classes', NAMES, '--out', out, '--threshold', 0.2)
    assert '2 of 4 are up to date' in log
    made_again = {name for name in names if (out / f'{name}.json').stat().st_mtime_ns != before[name]}
    assert made_again == {'b', 'a.png'}
    log = demo(folder, '--classes', 'red dots', '--out', out)  # other classes: all again
    assert 'up to date' not in log
    assert len(json.loads((out / 'b.json').read_text())['classes']) == 1


def test_the_contact_sheet_shows_all_overlays(demo, folder, tmp_path):
    demo(folder, '--classes', NAMES, '--out', tmp_path / 'out')
    sheet = np.asarray(Image.open(tmp_path / 'out/contact_sheet.png'))
    summary = json.loads((tmp_path / 'out/b.json').read_text())
    with Image.open(tmp_path / 'out/b.overlay.png') as overlay:
        b = np.asarray(overlay.crop((0, 0, summary['width'], summary['height'])).resize((256, 256)))
    left = 6 + 2 * (256 + 6)  # a.bmp, a.png, b
    assert np.abs(sheet[6:262, left:left + 256].astype(int) - b).mean() < 8
    assert sheet.shape[1] == 6 + 4 * (256 + 6)


def test_results_inside_the_folder_are_no_images(demo, folder):
    for out in (folder / 'results', folder):
        for _ in range(2):
            log = demo(folder, '--classes', NAMES, '--out', out)
            assert 'INFO - 4 images' in log


def test_a_video(demo, scenes, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / 'it.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 5, (128, 128))
    for index in range(7):
        writer.write(scenes[index % 3][..., ::-1].copy())
    writer.release()
    arguments = (tmp_path / 'it.mp4', '--classes', NAMES, '--out', tmp_path / 'out', '--every', 2)
    demo(*arguments)
    video = cv2.VideoCapture(str(tmp_path / 'out/it.overlay.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 4 and video.get(cv2.CAP_PROP_FPS) == pytest.approx(2.5)
    frame = video.read()[1][:128, :128, ::-1].astype(int)
    labels = np.asarray(Image.open(tmp_path / 'out/it.frames/000000.labels.png'))
    summary = json.loads((tmp_path / 'out/it.frames/000000.json').read_text())
    biggest = max(summary['classes'], key=lambda entry: entry['pixels'])
    where = labels == biggest['label']
    wanted = (scenes[0][where].astype(float) + biggest['colour']) / 2
    assert np.abs(frame[where] - wanted).mean() < 20
    assert json.loads((tmp_path / 'out/it.json').read_text())['frames'] == 4
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'out/it.frames').iterdir()}
    demo(*arguments)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / 'out/it.frames').iterdir()}


def test_class_names_of_a_file_and_of_the_training(demo, scenes, tmp_path):
    Image.fromarray(scenes[0]).save(tmp_path / 'it.png')
    (tmp_path / 'names.txt').write_text('red dots, red spots\n\nblue paint\n')
    demo(tmp_path / 'it.png', '--classes', tmp_path / 'names.txt', '--out', tmp_path / 'out')
    assert json.loads((tmp_path / 'out/it.json').read_text())['class_names'] == ['red dots, red spots', 'blue paint']
    demo(tmp_path / 'it.png', '--out', tmp_path / 'out', '--background', 'red paint, Red dots', '--prompts',
         'coco15')
    summary = json.loads((tmp_path / 'out/it.json').read_text())
    assert len(summary['classes']) == 20 and summary['prompts'] == 'coco15' and summary['background'] == []


def test_names_that_would_be_one(demo, scenes, tmp_path):
    (tmp_path / 'in').mkdir()
    for name in ('a.png', 'a.bmp', 'a.png.bmp'):
        Image.fromarray(scenes[0]).save(tmp_path / 'in' / name)
    demo(tmp_path / 'in', '--classes', NAMES, '--out', tmp_path / 'out')
    assert {path.name for path in (tmp_path / 'out').glob('*.json')} == {'a.png.json', 'a.bmp.json', 'a.png.bmp.json'}


def test_a_file_name_that_is_not_utf_8(run, scenes, tmp_path):
    """As in an archive made on Windows: processed like all others, and recognised when it is up to date."""
    (tmp_path / 'in').mkdir()
    names = ['a.png', os.fsdecode(b'na\xefve.png'), 'naïve.png']
    for name in names:
        Image.fromarray(scenes[0]).save(tmp_path / 'in' / name)
    (tmp_path / 'in' / os.fsdecode(b'br\xf6ken.png')).write_bytes(b'no image')
    for _ in range(2):
        log = run('tools/demo.py', tmp_path / 'in', '--checkpoint', MODEL, '--classes', NAMES, '--out',
                  tmp_path / 'out', check=False).stderr
        assert 'br\\udcf6ken.png is not an image' in log and 'contact_sheet.png' in log
        assert 'INFO - 3 images' in log and 'Traceback' not in log and 'Logging' not in log
    assert '3 of 4 are up to date' in log
    for name in names:
        file = tmp_path / 'out' / f'{name[:-4]}.json'
        assert json.loads(file.read_text(encoding='utf-8'))['inputs']['image'][0] == name


def test_outdated_results_are_replaced(demo, scenes, tmp_path):
    """A missing overlay, or other prompts in the same file; | separates synonyms in a file, too."""
    Image.fromarray(scenes[0]).save(tmp_path / 'it.png')
    (tmp_path / 'names.txt').write_text('red dots|red spots\nblue paint\n')
    (tmp_path / 'prompts.txt').write_text('a photo of a {}\n')
    command = (tmp_path / 'it.png', '--classes', tmp_path / 'names.txt', '--prompts', tmp_path / 'prompts.txt', '--out',
               tmp_path / 'out')
    demo(*command)
    assert json.loads((tmp_path / 'out/it.json').read_text())['class_names'][0] == 'red dots, red spots'
    assert 'up to date' in demo(*command)
    (tmp_path / 'out/it.overlay.png').unlink()
    assert 'up to date' not in demo(*command) and (tmp_path / 'out/it.overlay.png').is_file()
    (tmp_path / 'prompts.txt').write_text('the {} here\n')
    assert 'up to date' not in demo(*command)


def test_two_runs_do_not_share_a_folder(run, scenes, tmp_path):
    Image.fromarray(scenes[0]).save(tmp_path / 'it.png')
    with lock_folder(tmp_path, ''):
        done = run('tools/demo.py', tmp_path / 'it.png', '--checkpoint', MODEL, '--out', tmp_path, check=False)
    assert done.returncode == 1 and 'another run writes to' in done.stderr


def test_a_broken_image_does_not_stop_the_others(demo, folder, tmp_path):
    (folder / 'broken.jpg').write_text('this is no image')
    (folder / 'long.png').write_bytes(b'')
    Image.new('RGB', (2000, 3)).save(folder / 'thread.png')
    (folder / 'link.png').symlink_to(folder / 'nowhere.png')
    log = demo(folder, '--classes', NAMES, '--out', tmp_path / 'out', check=False)
    assert 'INFO - 4 images' in log
    assert log.splitlines()[-1] == 'error: 4 of 8 images could not be read; they are named above.'
    for text in ('broken.jpg is not an image', 'link.png cannot be read', 'long.png is empty',
                 'thread.png is 2000x3 pixels'):
        assert text in log


@pytest.mark.parametrize(('arguments', 'message'), [
    (['missing.jpg'], 'no image, folder or video missing.jpg'),
    (['{folder}/notes.txt'], 'is not an image of a supported kind'), (['{empty}'], 'contains no images (.jpg, '),
    (['{folder}/b.png', '--classes', ' , ,'], 'no class names: name what to look for'),
    (['{folder}/b.png', '--classes', 'names.txt'], 'no file names.txt of class names'),
    (['{folder}/b.png', '--classes', 'x' * 500], 'too long: CLIP reads 77 tokens'),
    (['{folder}/b.png', '--checkpoint', 'missing.pth'], 'no file missing.pth'),
    (['{folder}/b.png', '--config', 'missing.py'], 'no config file missing.py'),
    (['{folder}/b.png', '--classes', 'cat', '--clip', 'missing.pt'], 'no CLIP file missing.pt'),
    (['{folder}/b.png', '--prompts', 'many'], "no prompt set and no text file 'many'"),
    (['{folder}/b.png', '--device', 'cuda:77'], 'cuda:77 was asked for'), (['{folder}/film.mp4'], 'is not a video'),
    (['{folder}/b.png', '--out', '{folder}/notes.txt'], 'cannot write')])
def test_errors(fails, folder, tmp_path, arguments, message):
    (tmp_path / 'empty').mkdir()
    (folder / 'film.mp4').write_text('no film')
    arguments = [text.format(folder=folder, empty=tmp_path / 'empty') for text in arguments]
    if '--out' not in arguments:
        arguments += ['--out', tmp_path / 'out']
    assert message in fails('tools/demo.py', '--checkpoint', MODEL, *arguments)


@pytest.mark.parametrize('option', ['--opacity', '--threshold'])
def test_numbers_out_of_range(demo, option):
    log = demo('it.png', option, '2', check=False)
    assert f"argument {option}: '2' is not a number between 0 and 1" in log


def test_older_names_of_options(demo, scenes, tmp_path):
    Image.fromarray(scenes[0]).save(tmp_path / 'it.png')
    demo(tmp_path / 'it.png', '--words', 'red dots', '--anything-else', 'blue paint', '--out', tmp_path)
    summary = json.loads((tmp_path / 'it.json').read_text())
    assert (summary['class_names'], summary['background']) == (['red dots'], ['blue paint'])
