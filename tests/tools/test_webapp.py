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
from models.inference import load_model, parse_class_names
from tests.conftest import REPOSITORY
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
        end = time.monotonic() + 60
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
    ('drawn.png', ', '.join(map(str, range(10_000))), r'10,000 class names are too many: the limit is 300'),
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
                           (12 * f'{long} ', ' characters are too many: the limit is 20,000 in all lists together.')):
        assert message in reply('cat', background=names)['error']
    assert time.monotonic() - began < 3


def test_two_lists_and_background(reply):
    first, second = (result['summary'] for result in reply('blue stripes', 'yellow checks',
                                                           background='yellow stripes')['results'])
    assert first['class_names'] == ['blue stripes'] and second['class_names'] == ['yellow checks']
    assert first['unlabelled']['pixels'] and second['unlabelled']['pixels']
    assert reply()['results'] == []


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
        self.tab.set_default_timeout(20_000)
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
        self.tab.locator('#image button[aria-label="Clear"]').click()
        self.tab.locator('#image input[type=file]').set_input_files(file)
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
    x, y = places(1000)['blue stripes']
    bare = page.pixel(x, y)
    page.segment('blue stripes, yellow stripes')
    page.opacity(100)
    blue = page.colours()['blue stripes']
    assert page.pixel(x, y) == blue
    assert re.fullmatch(r'blue stripes · 0\.\d\d', *page.hover(x, y))
    page.opacity(0)
    assert page.pixel(x, y) == bare
    page.opacity(50)
    assert np.abs(np.array(page.pixel(x, y)) - (np.array(bare) + blue) / 2).max() <= 2
    box = page.tab.get_by_label('blue stripes').first
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
    assert page.pixel(x, y, 1) == page.colours(1)['yellow stripes'] != page.pixel(x, y)
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
    assert page.tab.locator('#viewer .view img').count() == 0
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


def test_images_dropped_anywhere(page, files):
    page.tab.evaluate('''(content) => {
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], 'dropped.jpg', { type: 'image/jpeg' }));
        document.querySelector('#viewer canvas').dispatchEvent(
            new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: data }));
    }''', base64.b64encode((files / 'turned.jpg').read_bytes()).decode())
    page.tab.wait_for_function('document.querySelector("#viewer canvas")?.height === 100')
    assert 'dropped' in page.tab.inner_text('#image')


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_on_a_phone(browser, served, scheme):
    page = Page(browser, served.url, viewport={'width': 390, 'height': 844}, has_touch=True, color_scheme=scheme)
    assert page.tab.evaluate('document.documentElement.scrollWidth <= innerWidth')
    page.tab.locator('#viewer canvas').tap()
    assert page.tab.locator('#viewer .tip').is_visible()
    page.context.close()
