"""tools/webapp.py: answers, limits, the running server, and the page in a real browser."""
import base64
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('gradio')

import torch
from gradio_client import Client, handle_file

from datasets.miniature import Miniature
from models.colours import heat_table
from models.inference import load_model, parse_class_names
from tests.conftest import REPOSITORY
from tools.engine.model_arguments import THRESHOLD
from tools.explaining import explanation
from tools.miniature.world import SIZE, draw_scene
from tools.web_page import answers, server
from tools.web_page.answers import Deadline, Limits, answer
from tools.web_page.server import SCENES

MINIATURE = REPOSITORY / 'tools/miniature/model.safetensors'
LIMITS = Limits(pixels=4_000_000, names=300, seconds=20)
WAITING, UPLOAD_MB = 8, 4
ALL_CLASSES = ', '.join(Miniature.CLASSES)


class Served(NamedTuple):
    url: str
    pid: int


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    """The page without a checkpoint, on a free port, with small limits."""
    log = tmp_path_factory.mktemp('server') / 'log'
    uploads = log.parent / 'uploads'
    uploads.mkdir()
    with log.open('w') as out:
        process = subprocess.Popen(
            [sys.executable, str(REPOSITORY / 'tools/webapp.py'), '--port', '0', '--device', 'cpu', '--max-pixels',
             str(LIMITS.pixels), '--max-classes', str(LIMITS.names), '--max-seconds', str(LIMITS.seconds),
             '--max-waiting', str(WAITING), '--max-upload-mb', str(UPLOAD_MB)],
            stdout=out, stderr=subprocess.STDOUT, cwd=log.parent, env={**os.environ, 'TMPDIR': str(uploads)})
    try:
        end = time.monotonic() + 180
        while not (found := re.search(r'http://127\.0\.0\.1:\d+', log.read_text())):
            assert time.monotonic() < end and process.poll() is None, log.read_text()
            time.sleep(0.25)
        yield Served(found[0], process.pid)
        assert any(uploads.iterdir())
        process.terminate()
        process.wait(30)
        assert not any(uploads.iterdir())
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope='module')
def segmenter():
    return load_model(MINIATURE, device='cpu')


@pytest.fixture(scope='module')
def files(tmp_path_factory) -> Path:
    """Images of a scene, and broken files."""
    folder = tmp_path_factory.mktemp('files')
    drawn = Image.fromarray(draw_scene(1000).image)
    drawn.save(folder / 'drawn.png')
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter, clockwise
    wide = drawn.crop((0, 0, SIZE, 100))
    wide.transpose(Image.Transpose.ROTATE_90).save(folder / 'turned.jpg', exif=turned, quality=95)
    (folder / 'text.jpg').write_text('no image at all')
    Image.new('1', (2500, 2500)).save(folder / 'large.png')
    return folder


@pytest.fixture
def reply(segmenter, files):
    """Calls `answer` for lists of class names and the drawn image, or another."""
    return lambda *lists, file='drawn.png', limits=LIMITS, **options: answer(
        segmenter, limits, file and str(files / file), list(lists), **options)


def decoded(url: str) -> np.ndarray:
    """The image of a data URL."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(',')[2]))))


# ---- answers

@pytest.mark.parametrize('count', [3, 256], ids=['bytes', 'two bytes a label'])
def test_the_answer_holds_the_result(reply, segmenter, files, count):
    names = [*parse_class_names(SCENES[1000]), *(f'thing {number}' for number in range(count - 3))]
    answered = reply(', '.join(names), threshold=0.1)
    expected = segmenter.segment(files / 'drawn.png', names, threshold=0.1)
    maps = zlib.decompress(base64.b64decode(answered['results'][0]['maps']))  # as the browser does
    kind = np.dtype('u1' if count < 256 else '<u2')
    labels, scores = np.frombuffer(maps, kind, SIZE**2), np.frombuffer(maps, np.uint8, -1, SIZE**2 * kind.itemsize)
    assert (labels == expected.labels.ravel()).all() and len(np.unique(labels)) > 3
    assert np.abs(scores / 255 - expected.best.clip(0, 1).ravel()).max() <= 0.5 / 255 + 1e-6
    heat = answered['results'][0]['heat']
    heats = np.frombuffer(zlib.decompress(base64.b64decode(heat['maps'])), np.uint8).reshape(-1, SIZE, SIZE)
    assert (heat['height'], heat['width']) == (SIZE, SIZE)
    assert np.abs(heats / 255 - expected.scores.clip(0, 1)).max() <= 0.5 / 255 + 1e-6
    assert (decoded(answered['results'][0]['labels']) == expected.labels).all()
    assert answered['results'][0]['summary'] == json.loads(json.dumps(expected.summary()))
    assert (answered['name'], answered['width'], answered['height']) == ('drawn', SIZE, SIZE)
    assert np.abs(decoded(answered['image']).astype(int) - draw_scene(1000).image).mean() < 6


@pytest.mark.parametrize(('file', 'names', 'message'), [
    ('text.jpg', 'cat', r'text\.jpg is not an image'),
    ('gone.png', 'cat', r'^gone\.png is no longer on the server: choose it again'),
    ('large.png', 'cat', r'large\.png has more than 4,000,000 pixels'),
    (None, 'cat', r'No image: drop one'),
    ('drawn.png', '', r'No class names: name what to look for'),
    ('drawn.png', ', '.join(map(str, range(10_000))),
     r'10,000 class names are too many: the limit is 300 in all lists together. tools/demo.py takes more'),
    ('drawn.png', '|'.join(map(str, range(10_000))), r'10,000 class names are too many: the limit is 300'),
    ('drawn.png', ['cat'], r'Class names must be text'),
])
def test_errors(reply, files, file, names, message):
    answered = reply(names, file=file)
    assert set(answered) == {'error'} and re.search(message, answered['error']), answered
    assert str(files) not in answered['error']  # the place on the server is not shown


def test_an_image_that_decodes_for_minutes_is_stopped(reply, tmp_path, monkeypatch):
    """A JPEG of few bytes that repeats its last scan; each scan is decoded over all pixels."""
    file = tmp_path / 'slow.jpg'
    Image.new('RGB', (2000, 2000), (90, 120, 40)).save(file, progressive=True)
    whole = file.read_bytes()
    file.write_bytes(whole[:-2] + 20_000 * whole[whole.rindex(b'\xff\xda'):-2] + whole[-2:])
    monkeypatch.setattr(answers, 'DECODING', 1)
    began = time.monotonic()
    assert reply('cat', file=file) == {'error': 'slow.jpg takes more than 1 seconds to decode, the limit: open it in a '
                                                'viewer and save it again.'}
    assert time.monotonic() - began < 3
    assert multiprocessing.active_children() == []


def test_a_decoder_that_dies(reply, monkeypatch):
    monkeypatch.setattr(answers, 'read_image', lambda *args, **options: os.kill(os.getpid(), 9))
    assert reply() == {'error': 'drawn.png cannot be decoded here: make it smaller, or save it as PNG.'}


def test_long_names_do_not_block_the_page(reply):
    long = ''.join(random.Random(0).choices('abcdefghijklmnopqrstuvwxyz', k=1800))
    began = time.monotonic()
    for names, message in ((', '.join(long[start:] for start in range(8)), 'is too long: CLIP reads 77 tokens'),
                           (12 * f'{long} ', ' characters are too many: the limit is 20,000 in all lists together. '
                                             'tools/demo.py takes more.')):
        assert message in reply('cat', background=names)['error']
    assert time.monotonic() - began < 3


def test_prompts_name_no_file(reply):
    assert reply('blue stripes', prompts='/etc/passwd') == {'error': 'There is no such prompt set.'}


def test_two_lists_and_background(reply):
    first, second = (result['summary'] for result in reply('blue stripes', 'yellow checks',
                                                           background='yellow stripes')['results'])
    assert first['class_names'] == ['blue stripes'] and second['class_names'] == ['yellow checks']
    assert first['unlabelled']['pixels'] and second['unlabelled']['pixels']
    assert reply()['results'] == []


# ---- explanations

@pytest.fixture
def explain(segmenter, files):
    """Calls `explanation` for a class of the drawn image, with the request that the page makes, or another."""
    def call(asked=None, *, file='drawn.png', limits=LIMITS, **changed):
        usual = {'names': 'red dots, blue stripes, yellow stripes', 'background': '', 'prompts': '', 'label': 1}
        asked = {**usual, **changed} if asked is None else asked
        return answers.explanation(segmenter, limits, str(files / file), asked)
    return call


def test_an_explanation(explain, segmenter, files):
    answered = explain()
    assert set(answered) == {'text', 'figure'}
    summary = explanation.explain(segmenter, files / 'drawn.png', 'blue stripes',
                                  ['red dots', 'yellow stripes']).summary()
    found = [float(number) for number in re.findall(r'-?[\d.]+\d', answered['text'])]
    before, after = summary['with_regions'], summary['ablated']['everywhere']
    wanted = [100 * before['area'], 100 * after['area'], before['mean_score'], after['mean_score_in_mask_with_regions']]
    assert found == pytest.approx(wanted, abs=0.06)
    assert decoded(answered['figure']).shape[1] == 1400
    assert 'Other classes score higher at every pixel' in explain(names=ALL_CLASSES, label=0)['text']
    assert explain(background='white wall', prompts='coco15')['text'] != answered['text']


@pytest.mark.parametrize(('changed', 'message'), [
    ({'asked': 3}, 'There is no such prompt set'), ({'asked': {}}, 'There is no such prompt set'),
    ({'prompts': '/etc/passwd'}, 'There is no such prompt set'), ({'prompts': ['{}']}, 'There is no such prompt set'),
    ({'label': 3}, 'There is no such class'), ({'label': -1}, 'There is no such class'),
    ({'label': '1'}, 'There is no such class'), ({'label': True}, 'There is no such class'),
    ({'names': None}, 'Class names must be text'), ({'background': ['cat']}, 'Class names must be text'),
    ({'names': ', '.join(map(str, range(400)))}, '400 class names are too many'),
    ({'names': 'blue stripes', 'label': 0}, "Nothing competes with 'blue stripes'"),
    ({'file': 'text.jpg'}, 'is not an image'), ({'file': 'large.png'}, 'has more than 4,000,000 pixels'),
    ({'limits': LIMITS._replace(seconds=0.001)}, 'Stopped after 0.001 seconds')])
def test_an_explanation_has_the_limits_of_every_request(explain, changed, message):
    answered = explain(**changed)
    assert set(answered) == {'error'} and message in answered['error']


def test_the_time_limit_stops_this_thread_only(reply, segmenter):
    large, began = np.zeros((1500, 1500, 3), np.uint8), time.monotonic()
    with pytest.raises(ValueError, match='stopped after 0.5 seconds'), torch.no_grad(), Deadline(0.5):
        segmenter.segment(large, [f'thing {number}' for number in range(100)])
    assert time.monotonic() - began < 5
    assert reply('blue stripes', limits=LIMITS._replace(seconds=0.001)) == {
        'error': 'Stopped after 0.001 seconds, the limit of a request: use fewer class names or a smaller image.'}
    assert torch.is_grad_enabled(), 'the thread is as it was, whichever operation was stopped'
    assert 'results' in reply('blue stripes')
    done = []
    with Deadline(-1):
        other = threading.Thread(target=lambda: done.append(torch.ones(2) + 1))
        other.start()
        other.join()
    assert len(done) == 1
    assert segmenter.segment(large, ['blue stripes']).labels.shape == (1500, 1500)  # the model still works


# ---- start

def test_start_errors(fails, run, tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        message = f'port {port} is in use: choose another one, such as --port {port + 1}'
        assert message in fails('tools/webapp.py', '--port', port)
    assert re.search(r'no file .*none\.pth\.', fails('tools/webapp.py', '--port', 0, '--checkpoint',
                                                     tmp_path / 'none.pth'))
    done = run('tools/webapp.py', '--port', 70000, check=False)
    assert done.returncode == 2 and "argument --port: '70000' is not a number from 0 to 65535" in done.stderr
    with pytest.raises(ValueError, match=r'^cannot listen on 203\.0\.113\.7: .* Choose an address of this machine'):
        server.listen('203.0.113.7', 0)


def test_an_unexpected_error_is_reported(reply, segmenter, monkeypatch):
    monkeypatch.setattr(segmenter, 'segment', lambda *args, **options: {}['secret'])
    assert reply('cat') == {'error': 'The request failed because of an error in the server; its log has the details.'}


# ---- the server

@pytest.fixture(scope='module')
def ask(served):
    """Sends an image file and class names as the page does; returns the answer."""
    client = Client(served.url, verbose=False, analytics_enabled=False, download_files=False)
    return lambda file, names: client.predict(handle_file(file), names, '', '', '', 0.1, api_name='/segment')


def read(served: Served, path: str, body: object = None, **headers: str) -> str:
    """Read a page of the server, or what it answers to JSON."""
    headers = {'Content-Type': 'application/json', **{name.replace('_', '-'): text for name, text in headers.items()}}
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(served.url + path, content, headers), timeout=20) as answered:
        assert answered.headers['Access-Control-Allow-Origin'] in (None, served.url)
        return answered.read().decode()


@pytest.mark.parametrize(('data', 'message'), [
    ([], 'receive enough input values'), ([None, {'a': [1]}, '', '', '', 0], 'No image: drop one'),
    ([None, 'cat', '', '', str(REPOSITORY / 'README.md'), 0], 'is not in the list of choices')])
def test_invalid_data_gets_a_clear_error(served, data, message):
    """Prompts, too, are only those of the list; elsewhere they may be a file."""
    event = json.loads(read(served, '/gradio_api/call/segment', {'data': data}))['event_id']
    answered = read(served, f'/gradio_api/call/segment/{event}')
    assert message in answered and '{"error": null}' not in answered


def test_the_guard_is_in_place(served, files):
    """All that it refuses: test_web_guard.py."""
    upload = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nx\r\n--b--\r\n'
    kind = {'Content_Type': 'multipart/form-data; boundary=b'}
    assert 'evil' not in read(served, '/config', X_Forwarded_Host='evil.example', X_Forwarded_Proto='https',
                              X_Gradio_Server='http://evil.example', Forwarded='host=evil.example')
    assert read(served, '/gradio_api/upload', upload, Origin=served.url, **kind)
    foreign = {'data': [{'path': '/etc/passwd', 'meta': {'_type': 'gradio.FileData'}}, 'cat', '', '', '', 0]}
    for status, path, body, headers in (
            (400, '/config', None, {'Host': 'evil.example', 'Origin': 'http://evil.example'}),
            (403, '/gradio_api/upload', upload, {'Origin': 'http://evil.example', **kind}),
            (413, '/gradio_api/upload', b'x', {'Content_Length': str((UPLOAD_MB + 1) * 2**20), **kind}),
            (403, '/gradio_api/call/segment', foreign, {}),
            (403, '/gradio_api/file=/etc/passwd', None, {}), (403, f'/gradio_api/file={files}/drawn.png', None, {})):
        with pytest.raises(urllib.error.HTTPError) as refused:
            read(served, path, body, **headers)
        assert refused.value.code == status and 'evil' not in refused.value.read().decode()


def test_twenty_requests_together(served, ask, files, tmp_path):
    """They are answered one after the other, or refused because the queue is full."""
    file = tmp_path / 'larger.png'
    Image.open(files / 'drawn.png').resize((1500, 1500)).save(file)

    def peak_mb() -> float:
        return int(re.search(r'VmHWM:\s+(\d+)', Path(f'/proc/{served.pid}/status').read_text())[1]) / 1024

    def request(number: int) -> str:
        try:
            names = ask(file, f'{ALL_CLASSES}, thing {number}')['results'][0]['summary']['class_names']
        except Exception as error:  # of any type
            return str(error)
        return 'done' if names[-1] == f'thing {number}' else f'answered another request: {names}'

    ask(file, ALL_CLASSES)
    before = peak_mb()
    with ThreadPoolExecutor(20) as pool:
        ends = list(pool.map(request, range(20)))
    assert WAITING <= ends.count('done') < 20, 'the queue has no limit'
    assert all(re.search('(?i)queue is full|too many|busy', end) for end in ends if end != 'done'), ends
    assert peak_mb() - before < 400  # side by side they would take some gigabytes
    assert ask(files / 'drawn.png', 'blue stripes')['results']


# ---- the page

@pytest.fixture(scope='module')
def browser():
    chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if chromium is None:
        pytest.skip('no Chromium on PATH')
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        yield started
        started.close()


class Page:
    """The page in a browser's tab, once its example is shown."""

    def __init__(self, browser, url: str, **options):
        self.context = browser.new_context(viewport=options.pop('viewport', {'width': 1280, 'height': 800}), **options)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(60_000)
        self.requests, self.errors = [], []
        self.tab.on('request', lambda request: self.requests.append(request.url))
        self.tab.on('pageerror', lambda error: self.errors.append(str(error)))
        self.tab.goto(url)
        self.tab.wait_for_selector('#viewer .legend li')

    def clear(self) -> None:
        """Remove what is shown, so that the next result can be waited for."""
        self.tab.evaluate('''() => { document.querySelector('#viewer .views').replaceChildren();
            document.querySelector('#viewer .message').hidden = true; }''')

    def upload(self, file: Path) -> None:
        self.clear()
        with self.tab.expect_file_chooser() as chooser:
            self.tab.get_by_role('button', name='Choose an image').click()
        chooser.value.set_files(file)
        self.tab.wait_for_selector('#viewer .message:visible, #viewer .view:not(:has(.legend))')

    def segment(self, names: str) -> None:
        """Type the class names and wait for their result or a message."""
        self.clear()
        self.tab.locator('#class_names textarea').fill(names)
        self.tab.locator('#segment').click()
        self.tab.wait_for_selector('#viewer .message:visible, #viewer .legend')

    def opacity(self, percent: int) -> None:
        self.tab.locator('#viewer .opacity').fill(str(percent))

    def pixel(self, x: int, y: int, view: int = 0) -> list[int]:
        """Of the canvas, [red, green, blue]."""
        return self.tab.evaluate('''([view, x, y]) => Array.from(document.querySelectorAll('#viewer canvas')[view]
            .getContext('2d').getImageData(x, y, 1, 1).data).slice(0, 3)''', [view, x, y])

    def colours(self, view: int = 0) -> dict[str, list[int]]:
        """Of the classes in the legend."""
        return {name: [int(part) for part in re.findall(r'\d+', colour)] for name, colour in self.tab.evaluate(
            '''(view) => Array.from(document.querySelectorAll('#viewer .view')[view].querySelectorAll('.legend li'),
            (line) => [line.querySelector('span').textContent, line.querySelector('i').style.background])''', view)}

    def hover(self, x: int, y: int, view: int = 0) -> list[str]:
        """Put the pointer on a pixel of the image -> the text that each view shows."""
        canvas = self.tab.locator('#viewer canvas').nth(view)
        width, height = canvas.evaluate('(canvas) => [canvas.width, canvas.height]')
        box = canvas.bounding_box()
        canvas.hover(position={'x': (x + 0.5) / width * box['width'], 'y': (y + 0.5) / height * box['height']})
        return self.tab.locator('#viewer .tip').all_inner_texts()

    def download(self, kind: str) -> tuple[str, bytes]:
        with self.tab.expect_download() as started:
            self.tab.locator(f'#viewer .downloads .{kind}').click()
        return started.value.suggested_filename, Path(started.value.path()).read_bytes()


@pytest.fixture
def page(browser, served):
    opened = Page(browser, served.url)
    yield opened
    opened.context.close()
    assert opened.errors == []


def places(seed: int) -> dict[str, tuple[int, int]]:
    """Class -> (x, y) in the middle of its largest object."""
    labels = draw_scene(seed).labels
    found = {}
    for label in np.unique(labels[labels > 0]):
        depth = cv2.distanceTransform((labels == label).astype(np.uint8), cv2.DIST_L2, 3)
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        found[Miniature.CLASSES[label - 1]] = (int(x), int(y))
    return found


def test_the_page_opens_with_an_example_and_contacts_nobody_else(page, served):
    assert 'It is useless on photographs' in page.tab.inner_text('.heading')
    for seed in (1000, 1003):
        page.opacity(100)
        colours = page.colours()
        for name, (x, y) in places(seed).items():
            assert page.pixel(x, y) == colours[name], name
        page.tab.locator('#examples button').nth(1).click()
        page.tab.wait_for_function('document.querySelector("#viewer .legend")?.innerText.includes("red paint")')
    assert [url for url in page.requests if not url.startswith((served.url, 'data:', 'blob:'))] == []


def test_upload_pointer_switches_and_opacity(page, files):
    page.upload(files / 'turned.jpg')
    assert page.tab.locator('#viewer canvas').evaluate('(canvas) => [canvas.width, canvas.height]') == [SIZE, 100]
    assert page.tab.locator('#viewer .next').is_visible() and not page.tab.locator('#viewer .bar').is_visible()
    x, y = places(1000)['blue stripes']
    bare = page.pixel(x, y)
    page.segment('blue stripes, yellow stripes')
    assert page.tab.locator('#viewer .bar').is_visible() and not page.tab.locator('#viewer .next').is_visible()
    page.opacity(100)
    blue = page.colours()['blue stripes']
    assert page.pixel(x, y) == blue
    assert re.fullmatch(r'blue stripes · 0\.\d\d', *page.hover(x, y))
    page.opacity(0)
    assert page.pixel(x, y) == bare
    page.opacity(50)
    assert np.abs(np.array(page.pixel(x, y)) - (np.array(bare) + blue) / 2).max() <= 2
    box = page.tab.get_by_label('Show blue stripes')
    box.uncheck()
    assert page.pixel(x, y) == bare
    page.opacity(100)
    box.check()
    assert page.pixel(x, y) == blue


def test_two_lists_side_by_side(page):
    page.tab.locator('#options button').first.click()
    page.tab.locator('#compared_names textarea').fill('yellow stripes, blue stripes|cobalt bands')
    page.segment(SCENES[1000])
    page.opacity(100)
    x, y = places(1000)['yellow stripes']
    assert page.pixel(x, y) == page.colours()['yellow stripes']
    assert page.pixel(x, y, 1) == page.colours(1)['yellow stripes'] == page.pixel(x, y)
    assert set(page.colours(1)) == {'yellow stripes', 'blue stripes, cobalt bands'}
    assert [text.partition(' · ')[0] for text in page.hover(x, y, 1)] == 2 * ['yellow stripes']


def test_downloads(page, segmenter, files):
    page.upload(files / 'drawn.png')
    page.segment(SCENES[1000])
    page.opacity(100)
    expected = segmenter.segment(files / 'drawn.png', parse_class_names(SCENES[1000]), threshold=0.1)
    name, content = page.download('overlay')
    overlay = np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))
    assert name == 'drawn.overlay.png' and overlay.shape[0] > SIZE  # there is a legend
    for label, colour in enumerate(expected.palette):
        assert (overlay[:SIZE, :SIZE][expected.labels == label] == colour).all()
        assert (overlay[SIZE:] == colour).all(-1).sum() > 100
    name, content = page.download('labels')
    assert name == 'drawn.labels.png' and (np.asarray(Image.open(io.BytesIO(content))) == expected.labels).all()
    name, content = page.download('json')
    assert name == 'drawn.json' and json.loads(content) == json.loads(json.dumps(expected.summary()))


def test_names_in_all_scripts_are_text_only(page):
    names = ['<img src=x onerror="window.hacked=1">', '😀', '猫', 'قطة', '${1+1}', '{{value}}', 'blue stripes']
    page.segment(', '.join(names))
    assert set(page.colours()) == set(names)
    page.tab.locator('#viewer .legend button', has_text='<img').click()
    assert page.tab.inner_text('#viewer .heat b') == names[0]
    assert page.tab.locator('#viewer .view img:not(.figure img)').count() == 0
    assert page.tab.evaluate('window.hacked') is None


def test_an_unreliable_result_has_a_warning(page):
    assert not page.tab.locator('#viewer .warning').is_visible()  # of the example
    page.segment('potted plant, sofa')
    warning = page.tab.inner_text('#viewer .warning')
    assert 'recognises none of these classes in this image' in warning and "the miniature's model" in warning
    assert set(page.colours()) == {'potted plant', 'sofa'}


def test_the_page_shows_errors_and_continues(page, files):
    page.upload(files / 'text.jpg')
    assert 'is not an image' in page.tab.inner_text('#viewer .message')
    page.upload(files / 'drawn.png')
    page.segment('')
    assert 'No class names: name what to look for' in page.tab.inner_text('#viewer .message')
    page.segment('blue stripes')
    assert list(page.colours()) == ['blue stripes']
    assert not page.tab.locator('#viewer .message').is_visible()


# ---- replacing the image

GIVE = """([content, kind]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], 'given.png', { type: 'image/png' }));
    document.querySelector('#viewer canvas').dispatchEvent(kind === 'drop'
        ? new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: data })
        : new ClipboardEvent('paste', { bubbles: true, cancelable: true, clipboardData: data }));
}"""


def test_an_image_is_replaced_at_any_time(page, files):
    """By dropping another on it, by pasting, by choosing a file or an example, as often as one likes."""
    for number, kind in enumerate(['drop', 'paste', 'drop', 'paste']):
        content = io.BytesIO()
        Image.new('RGB', (64, 40 + number)).save(content, 'PNG')
        page.tab.evaluate(GIVE, [base64.b64encode(content.getvalue()).decode(), kind])
        page.tab.wait_for_function(f'document.querySelector("#viewer canvas")?.height === {40 + number}')
    page.upload(files / 'turned.jpg')
    assert page.tab.locator('#viewer canvas').get_attribute('height') == '100'
    page.tab.locator('#examples button').nth(2).click()
    page.tab.wait_for_function('document.querySelector("#viewer .legend")?.innerText.includes("green dots")')
    page.upload(files / 'turned.jpg')  # the same file again
    assert page.tab.locator('#viewer canvas').get_attribute('height') == '100'


def test_dragging_over_the_page_is_shown(page):
    page.tab.evaluate("document.body.dispatchEvent(new DragEvent('dragover', { bubbles: true }))")
    page.tab.wait_for_selector('#viewer .dropping')
    page.tab.evaluate("document.body.dispatchEvent(new DragEvent('dragleave', { bubbles: true }))")
    assert page.tab.locator('#viewer .dropping').count() == 0


# ---- score maps and explanations

def test_a_click_on_a_class_shows_its_scores(page, segmenter):
    """As a heat map with a colour bar; a second click shows the classes again."""
    scores = segmenter.segment(draw_scene(1000).image, parse_class_names(SCENES[1000])).scores[1].clip(0, 1)
    page.opacity(100)
    x, y = places(1000)['blue stripes']
    overlay = [page.pixel(x, y), page.pixel(x, 5)]
    line = page.tab.locator('#viewer .legend button', has_text='blue stripes')
    line.click()
    assert line.get_attribute('aria-pressed') == 'true' and page.tab.inner_text('#viewer .heat b') == 'blue stripes'
    top = float(page.tab.inner_text('#viewer .top'))
    table = heat_table()
    for column, row in ((x, y), (x, 5), (100, 40)):
        wanted = table[round(255 * float(scores[row, column]) / top)].astype(int)
        assert np.abs(page.pixel(column, row) - wanted).max() <= 6
        assert page.hover(column, row) == [f'blue stripes · {round(255 * float(scores[row, column])) / 255:.2f}']
    name, content = page.download('overlay')
    assert name == 'drawn_1.scores.png' and Image.open(io.BytesIO(content)).height > SIZE
    line.click()
    assert [page.pixel(x, y), page.pixel(x, 5)] == overlay and line.get_attribute('aria-pressed') == 'false'
    line.click()
    page.tab.locator('#viewer .all').click()
    assert page.pixel(x, y) == overlay[0] and not page.tab.locator('#viewer .heat').is_visible()


def test_a_class_is_explained_on_the_page(page):
    line = page.tab.locator('#viewer .legend button', has_text='yellow stripes')
    for _ in range(2):  # the second time from memory
        line.click()
        page.tab.locator('#viewer .explain').click()
        page.tab.wait_for_selector('#viewer .explanation:visible')
        assert 'With region tokens it is the best class of' in page.tab.inner_text('#viewer .explanation p')
        assert page.tab.get_by_role('img', name='Region clues for yellow stripes').evaluate(
            'async (image) => { await image.decode(); return image.naturalWidth; }') == 1400
        line.click()
        assert not page.tab.locator('#viewer .explanation').is_visible()
    page.segment('blue stripes')
    page.tab.locator('#viewer .legend button').click()
    page.tab.locator('#viewer .explain').click()
    page.tab.wait_for_selector('#viewer .explanation:visible')
    assert "Nothing competes with 'blue stripes'" in page.tab.inner_text('#viewer .explanation p')
    assert page.colours(), 'the result stays'


# ---- threshold, phone, keyboard

def test_pixels_below_the_minimum_score_are_not_painted(page, segmenter):
    scene = draw_scene(1000)
    best = segmenter.segment(scene.image, parse_class_names(SCENES[1000])).best
    page.opacity(100)
    x, y = places(1000)['blue stripes']
    row, column = np.argwhere(best[20:] < THRESHOLD)[0] + (20, 0)
    page.hover(column, row)
    assert page.tab.inner_text('#viewer .tip').startswith('unlabelled')
    assert np.abs(page.pixel(int(column), int(row)) - scene.image[row, column].astype(int)).max() < 40
    assert page.pixel(x, y) == page.colours()['blue stripes']
    page.tab.locator('#options button').first.click()
    assert float(page.tab.locator('#threshold input[type=number]').input_value()) == THRESHOLD
    page.clear()
    box = page.tab.locator('#threshold input[type=range]').bounding_box()
    page.tab.mouse.click(box['x'] + box['width'] - 2, box['y'] + box['height'] / 2)  # applies at once
    page.tab.wait_for_selector('#viewer .legend')
    assert page.tab.inner_text('#viewer .unlabelled') == 'Unlabelled: 100.0 %'


def test_on_a_phone(browser, served, files):
    """The result comes before the examples, and nothing is wider than the screen."""
    page = Page(browser, served.url, viewport={'width': 390, 'height': 844}, has_touch=True)
    page.tab.locator('#options button').first.click()
    page.segment(f'{SCENES[1000]}, {60 * "long"}')
    page.tab.locator('#viewer .legend button', has_text='blue stripes').tap()
    page.tab.locator('#viewer .explain').tap()
    page.tab.wait_for_selector('#viewer .explanation:visible')
    places = [page.tab.locator(name).bounding_box() for name in ('#segment', '#viewer .stage', '#viewer .legend',
                                                                 '#examples')]
    assert [place['y'] for place in places] == sorted(place['y'] for place in places)
    assert all(place['x'] >= 0 and place['x'] + place['width'] <= 390 for place in places)
    assert page.tab.evaluate('document.documentElement.scrollWidth') == 390
    page.context.close()
    assert page.errors == []


def test_by_keyboard_alone(page):
    """Tab reaches everything, the focus is visible, and screen readers get a name for it."""
    reached = []
    for _ in range(25):
        page.tab.keyboard.press('Tab')
        name, outlined = page.tab.evaluate("""() => { const one = document.activeElement, style = getComputedStyle(one);
            return [one.ariaLabel ?? one.closest('label')?.innerText ?? one.innerText ?? '',
            style.outlineStyle !== 'none' || style.boxShadow !== 'none']; }""")
        reached.append(' '.join(name.split()))
        assert outlined, reached[-1]
        if reached[-1].startswith('yellow stripes'):
            page.tab.keyboard.press('Enter')
            assert page.tab.inner_text('#viewer .heat b') == 'yellow stripes'
        elif reached[-1].startswith('Image.'):
            page.tab.keyboard.press('ArrowRight')
            assert re.search(r' · 0\.\d\d$', page.tab.inner_text('#viewer .tip'))
        elif reached[-1] == 'Explain by region clues':
            page.tab.keyboard.press('Enter')
            page.tab.wait_for_selector('#viewer .explanation:visible')
    lines = ['blue stripes', 'yellow stripes', 'yellow checks', 'red dots']
    wanted = ['Choose an image', 'Class names', 'Segment', 'Minimum score and other options', 'Opacity', 'Image.',
              'All classes', 'None', *(f'{show}{name}' for name in lines for show in ('Show ', '')),
              'Explain by region clues', 'Score map', 'Labels', 'JSON', 'Figure', SCENES[1000]]
    rest = iter(reached)
    assert all(any(name.startswith(each) for name in rest) for each in wanted), reached
    assert page.tab.get_by_role('img', name='Scores of yellow stripes').count() == 1
