"""tools/demo.py as users call it: images, folders, videos; up-to-date results are kept; errors are clear."""
import json
import logging
import os
import re
import time
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image

from models.inference import load_model
from models.inference.drawing import legend
from tests.conftest import REPOSITORY
from tools.demonstration.images import log_classes, outline
from tools.engine.files import lock_folder
from tools.engine.model_arguments import THRESHOLD
from tools.miniature.world import draw_scene

MODEL = REPOSITORY / 'tools/miniature/model.safetensors'
NAMES = 'red dots, blue paint, green stripes'


@pytest.fixture
def demo(call):
    """Runs the command; returns what it writes to stderr."""
    return lambda *arguments, check=True: call('tools/demo.py', '--checkpoint', MODEL, *arguments, check=check).stderr


@pytest.fixture(scope='module')
def scenes():
    return [draw_scene([12, index]).image for index in range(3)]


@pytest.fixture
def image(tmp_path, scenes):
    Image.fromarray(scenes[0]).save(tmp_path / 'it.png')
    return tmp_path / 'it.png'


@pytest.fixture
def folder(tmp_path, scenes):
    """Three images, of which two have one stem, and one lies deeper."""
    (tmp_path / 'in/deep').mkdir(parents=True)
    for name, scene in zip(('a.png', 'b.png', 'deep/a.bmp'), scenes, strict=True):
        Image.fromarray(scene).save(tmp_path / 'in' / name)
    Image.fromarray(scenes[0]).save(tmp_path / 'in/a.bmp')
    (tmp_path / 'in/notes.txt').write_text('no image')
    return tmp_path / 'in'


def summary_of(out, name='it') -> dict:
    return json.loads((out / f'{name}.json').read_text())


def test_an_image(run, image, tmp_path):
    log = run('tools/demo.py', image, '--classes', NAMES, '--out', tmp_path / 'out', '--checkpoint', MODEL).stderr
    result = load_model(MODEL).segment(image, NAMES.split(', '), threshold=THRESHOLD)
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'out/it.labels.png')), result.labels)
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'out/it.overlay.png')), np.asarray(result.overlay()))
    assert summary_of(tmp_path / 'out')['classes'] == json.loads(json.dumps(result.summary()['classes']))
    assert 'mean score' in log and '1 image' in log
    assert not (tmp_path / 'out/contact_sheet.png').exists()


def test_shares_are_rounded_once(caplog, monkeypatch):
    """As in the legend, not from the rounded fraction of the JSON file, whose 0.0755 would give 7.5 %."""
    monkeypatch.setattr(logging.getLogger('mmseg'), 'propagate', True)
    entry = {'name': 'cat', 'pixels': 1237, 'area': 0.0755, 'mean_score': 0.5}
    log_classes({'width': 128, 'height': 128, 'classes': [entry], 'unlabelled': {'pixels': 15147, 'area': 0.9245}})
    assert caplog.messages == ['  7.6 %  mean score 0.50  cat', ' 92.4 %  unlabelled']


def test_every_class_has_a_line_and_unreliable_results_are_warned_of(demo, scenes, tmp_path):
    (tmp_path / 'photos').mkdir()
    for number, image in enumerate(np.random.default_rng(0).integers(90, 110, (2, 60, 80, 3), dtype=np.uint8)):
        Image.fromarray(image).save(tmp_path / f'photos/{number}.png')
    for _ in range(2):  # new, and up to date
        log = demo(tmp_path / 'photos/0.png', '--classes', 'potted plant, sofa, cat', '--out', tmp_path / 'out')
        assert log.count('the highest score is 0.0') == 1
        assert re.search(r'   0\.0 %  mean score    -  (sofa|cat|potted plant)$', log, re.MULTILINE)
    file, names = tmp_path / 'photos/drawn.png', f'{NAMES}, potted plant'
    Image.fromarray(scenes[2]).save(file)  # with green stripes
    log = demo(file, '--classes', names, '--out', tmp_path / 'out')
    for name in names.split(', '):
        assert re.search(rf' [ \d]+\.\d %  mean score (-?\d\.\d\d|   -)  {name}$', log, re.MULTILINE), name
    assert "miniature's model, which knows only its own drawn world" in log and 'recognises none' not in log
    log = demo(tmp_path / 'photos', '--classes', names, '--out', tmp_path / 'more')
    assert log.count('2 of 3: the highest score is 0.0') == log.count('the highest score') == 1


def test_a_folder_is_continued(demo, folder, tmp_path):
    out = tmp_path / 'out'
    log = demo(folder, '--classes', NAMES, '--out', out, '--threshold', 0.2)
    names = ['a.bmp', 'a.png', 'b', 'deep/a']  # without the ending where that is unambiguous
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
    summary = summary_of(out, 'b')
    assert len(summary['classes']) == 1
    sheet = np.asarray(Image.open(out / 'contact_sheet.png'))
    with Image.open(out / 'b.overlay.png') as overlay:
        b = np.asarray(overlay.crop((0, 0, summary['width'], summary['height'])).resize((256, 256)))
    left = 6 + 2 * (256 + 6)  # a.bmp, a.png, b
    assert np.abs(sheet[6:262, left:left + 256].astype(int) - b).mean() < 8
    assert sheet.shape[1] == 6 + 4 * (256 + 6)


def test_results_inside_the_folder_are_no_images(demo, folder):
    for out in (folder / 'results', folder / 'results', folder, folder):
        assert 'INFO - 4 images' in demo(folder, '--classes', NAMES, '--out', out)


def test_many_classes(demo, folder, tmp_path, monkeypatch):
    """Log and contact sheet name the largest and count the others; names that come twice are said."""
    monkeypatch.setattr('models.inference.result.MAX_LEGEND_LINES', 2)
    kinds = 'dots', 'stripes', 'checks', 'paint'
    world = [f'{colour} {kind}' for colour in ('red', 'blue', 'green') for kind in kinds]
    (tmp_path / 'names.txt').write_text('\n'.join([*world, 'Red  dots', 'blue paint', 'Red dots']))
    options = ('--classes', tmp_path / 'names.txt', '--out', tmp_path / 'out', '--threshold', 0)
    log = demo(folder / 'a.png', *options)
    assert 'classes that come more than once, and count once (2): red dots; blue paint\n' in log
    entries = sorted(summary_of(tmp_path / 'out', 'a')['classes'], key=lambda entry: -entry['pixels'])
    size, (first, second, *rest) = 128 * 128, entries
    shares = re.findall(r'(\d+\.\d) %  (?:mean score \d\.\d\d  )?(.*)$', log, re.MULTILINE)
    assert shares == [(f'{100 * pixels / size:.1f}', name) for pixels, name in (
        (first['pixels'], first['name']), (second['pixels'], second['name']),
        (sum(entry['pixels'] for entry in rest), '10 more classes'), (0, 'unlabelled'))]
    drawn = []
    monkeypatch.setattr('tools.demonstration.images.drawing.legend', lambda entries, width, size=15, real=legend: (
        drawn.append([text for text, _ in entries]), real(entries, width, size))[1])
    demo(folder, *options)
    areas = Counter()
    for name in ('a.bmp', 'a.png', 'b', 'deep/a'):
        areas.update({entry['name']: entry['area'] for entry in summary_of(tmp_path / 'out', name)['classes']})
    assert len(drawn[-1]) == 3 and drawn[-1][0] == areas.most_common(1)[0][0] and drawn[-1][2] == '(10 more classes)'


def test_what_is_kept_of_a_result_does_not_grow_with_its_classes():
    entry = {'name': 'cat', 'pixels': 3, 'area': 0.1}
    kept = outline({'width': 9, 'height': 9, 'warning': None, 'class_names': 4000 * ['cat'], 'classes': 4000 * [entry],
                    'inputs': {'class_names': 4000 * ['cat']}, 'top': {}})
    assert len(json.dumps(kept)) < 3000 and kept['count'] == 4000


def test_the_best_classes_of_each_cell(demo, image, scenes, tmp_path):
    """--top K in the JSON files of images and of the frames of a video; another K is another result."""
    command = (image, '--classes', NAMES, '--out', tmp_path / 'out')
    demo(*command, '--top', 1)
    assert 'up to date' not in demo(*command, '--top', 2) and 'up to date' in demo(*command, '--top', 2)
    labels, scores = load_model(MODEL).segment(scenes[0], NAMES.split(', ')).top(2, longest=64)
    found = summary_of(tmp_path / 'out')['top']
    assert np.array_equal(found['labels'], labels) and np.allclose(found['scores'], scores, atol=1e-4)
    assert labels.shape == (2, 64, 64)
    writer = cv2.VideoWriter(str(tmp_path / 'it.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 5, (128, 128))
    writer.write(scenes[0][..., ::-1].copy())
    writer.release()
    demo(tmp_path / 'it.mp4', *command[1:], '--top', 3)
    assert np.array_equal(np.sort(summary_of(tmp_path / 'out/it.frames', '000000')['top']['labels'], axis=0)[:, 0, 0],
                          [0, 1, 2])


def test_a_video(demo, scenes, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / 'it.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 5, (128, 128))
    for index in range(7):
        writer.write(scenes[index % 3][..., ::-1].copy())
    writer.release()
    arguments = (tmp_path / 'it.mp4', '--classes', NAMES, '--out', tmp_path / 'out', '--every', 2, '--threshold', 0)
    demo(*arguments)
    video = cv2.VideoCapture(str(tmp_path / 'out/it.overlay.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 4 and video.get(cv2.CAP_PROP_FPS) == pytest.approx(2.5)
    frame, frames = video.read()[1][:128, :128, ::-1].astype(int), tmp_path / 'out/it.frames'
    biggest = max(summary_of(frames, '000000')['classes'], key=lambda entry: entry['pixels'])
    labels = np.asarray(Image.open(frames / '000000.labels.png'))
    assert (labels != 255).all(), '--threshold 0 labels every pixel'
    where = labels == biggest['label']
    wanted = (scenes[0][where].astype(float) + biggest['colour']) / 2
    assert np.abs(frame[where] - wanted).mean() < 20
    assert summary_of(tmp_path / 'out')['frames'] == 4
    before = {path: path.stat().st_mtime_ns for path in frames.iterdir()}
    demo(*arguments)
    assert before == {path: path.stat().st_mtime_ns for path in frames.iterdir()}


def test_options(demo, image, tmp_path):
    """Class names of a file, of the training, and by the older names of the options."""
    (tmp_path / 'names.txt').write_text('red dots, red spots\n\nblue paint\n')
    for options, expected in (
            (['--classes', tmp_path / 'names.txt'], {'class_names': ['red dots, red spots', 'blue paint']}),
            (['--words', 'red dots', '--anything-else', 'blue paint'],
             {'class_names': ['red dots'], 'background': ['blue paint']}),
            (['--background', 'red paint, Red dots', '--prompts', 'coco15'], {'prompts': 'coco15', 'background': []})):
        demo(image, '--out', tmp_path / 'out', *options)
        assert expected.items() <= summary_of(tmp_path / 'out').items()
    assert len(summary_of(tmp_path / 'out')['classes']) == 20


@pytest.mark.parametrize('line', ['red dots, blue paint', 'red dots; blue paint'])
def test_several_names_in_a_file_of_one_line(demo, image, tmp_path, line):
    (tmp_path / 'names.txt').write_text(f'{line}\n')
    log = demo(image, '--classes', tmp_path / 'names.txt', '--out', tmp_path / 'out')
    assert 'names.txt has one line, and so one class' in log
    assert summary_of(tmp_path / 'out')['class_names'] == [line]


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
        assert summary_of(tmp_path / 'out', name[:-4])['inputs']['image'][0] == name


def test_outdated_results_are_replaced(demo, image, tmp_path):
    """A missing overlay, or other prompts in the same file; | separates synonyms in a file, too."""
    (tmp_path / 'names.txt').write_text('red dots|red spots\nblue paint\n')
    (tmp_path / 'prompts.txt').write_text('a photo of a {}\n')
    command = (image, '--classes', tmp_path / 'names.txt', '--prompts', tmp_path / 'prompts.txt', '--out',
               tmp_path / 'out')
    demo(*command)
    assert summary_of(tmp_path / 'out')['class_names'][0] == 'red dots, red spots'
    assert 'up to date' in demo(*command)
    (tmp_path / 'out/it.overlay.png').unlink()
    assert 'up to date' not in demo(*command) and (tmp_path / 'out/it.overlay.png').is_file()
    (tmp_path / 'prompts.txt').write_text('the {} here\n')
    assert 'up to date' not in demo(*command)


def test_two_runs_do_not_share_a_folder(run, image, tmp_path):
    with lock_folder(tmp_path, ''):
        done = run('tools/demo.py', image, '--checkpoint', MODEL, '--out', tmp_path, check=False)
    assert done.returncode == 1 and 'another run writes to' in done.stderr


def test_a_broken_image_does_not_stop_the_others(demo, folder, tmp_path):
    (folder / 'broken.jpg').write_text('this is no image')
    (folder / 'long.png').write_bytes(b'')
    Image.new('RGB', (2000, 3)).save(folder / 'thread.png')
    (folder / 'link.png').symlink_to(folder / 'nowhere.png')
    log = demo(folder, '--classes', NAMES, '--out', tmp_path / 'out', check=False)
    assert 'INFO - 4 images' in log
    assert log.splitlines()[-1] == 'error: 4 of 8 images could not be read; they are named above.'
    for text in ('broken.jpg is not an image', f'no file {folder}/link.png', 'long.png is empty',
                 'thread.png is 2000x3 pixels'):
        assert text in log


@pytest.mark.parametrize(('arguments', 'message'), [
    (['missing.jpg'], 'no image, folder or video missing.jpg'),
    (['{folder}/notes.txt'], 'is not an image of a supported kind'), (['{empty}'], 'contains no images (.jpg, '),
    (['{folder}/b.png', '--classes', ' , ,'], 'no class names: name what to look for'),
    (['{folder}/b.png', '--classes', 'names.txt'], 'no file names.txt of class names'),
    (['{folder}/b.png', '--classes', 'x' * 500], 'too long: CLIP reads 77 tokens'),
    (['{folder}/b.png', '--classes', '{many}', '--checkpoint', 'missing.pth'], '70,000 classes: 65,535 at most.'),
    (['{folder}/b.png', '--classes', '{nothing}'], 'nothing.txt is empty: write class names in it, one a line.'),
    (['{folder}/b.png', '--classes', 'cat, dog', '--top', 3], 'the 3 best of 2 classes: from 1 to 2 are possible.'),
    (['{folder}/b.png', '--checkpoint', 'missing.pth'], 'no file missing.pth'),
    (['{folder}/b.png', '--checkpoint', 'voc-inductive'], 'no file voc-inductive. `python tools/download.py --list`'),
    (['{folder}/b.png', '--classes', ''], 'no class names: name what to look for'),
    (['{folder}/b.png', '--config', 'missing.py'], 'no config file missing.py'),
    (['{folder}/b.png', '--classes', 'cat', '--clip', 'missing.pt'], 'no CLIP file missing.pt'),
    (['{folder}/b.png', '--prompts', 'many'], "no prompt set and no text file 'many'"),
    (['{folder}/b.png', '--device', 'cuda:77'], 'cuda:77 was asked for'), (['{folder}/film.mp4'], 'is not a video'),
    (['{folder}/b.png', '--out', '{folder}/notes.txt'], 'cannot write')])
def test_errors(fails, folder, tmp_path, arguments, message):
    (tmp_path / 'empty').mkdir()
    (folder / 'film.mp4').write_text('no film')
    many, nothing = tmp_path / 'many.txt', tmp_path / 'nothing.txt'
    nothing.touch()
    if '{many}' in arguments:
        many.write_text('\n'.join(map(str, range(70_000))))
    arguments = [str(text).format(folder=folder, empty=tmp_path / 'empty', many=many, nothing=nothing)
                 for text in arguments]
    if '--out' not in arguments:
        arguments += ['--out', tmp_path / 'out']
    assert message in fails('tools/demo.py', '--checkpoint', MODEL, *arguments)


@pytest.mark.parametrize('option', ['--opacity', '--threshold'])
def test_numbers_out_of_range(demo, option):
    log = demo('it.png', option, '2', check=False)
    assert f"argument {option}: '2' is not a number between 0 and 1" in log
