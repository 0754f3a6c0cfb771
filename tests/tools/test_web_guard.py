"""tools/web_page/guard.py: which requests reach the page."""
import asyncio
import json
import socket
import threading
import time
from urllib.request import urlopen

import pytest

pytest.importorskip('gradio')

import uvicorn

from tools.web_page import guard, limits, server
from tools.web_page.guard import Guard

FILE = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n%s\r\n'
PARTS = {'content-type': 'multipart/form-data; boundary=b'}
UPLOAD, JOIN = ('POST', guard.UPLOAD), ('POST', '/gradio_api/queue/join')


class Page:
    """A guarded application that records its requests."""

    def __init__(self, folder, *, host='127.0.0.1', names=()):
        self.folder, self.received = folder / 'uploads', []
        self.folder.mkdir(exist_ok=True)
        self.guard = Guard(self.application, host=host, names=list(names), folder=self.folder, file_bytes=1000,
                           kept_bytes=20_000)

    async def application(self, scope, receive, send):
        body = (await receive())['body'] if scope['method'] == 'POST' else b''
        self.received.append((dict(scope['headers']), body))
        await send({'type': 'http.response.start', 'status': 200, 'headers': []})
        await send({'type': 'http.response.body', 'body': b''})

    async def ask(self, method='GET', path='/', body=b'', *, pause=0., **headers) -> int:
        """Send a request, with a pause before each 500 bytes of its body; returns the status of the answer."""
        headers = {name.replace('_', '-'): value for name, value in headers.items()}
        headers = {'host': 'localhost:7860', 'content-length': str(len(body)), **headers}
        chunks = [body[start:start + 500] for start in range(0, len(body), 500)] or [b'']
        sent = []

        async def receive():
            await asyncio.sleep(pause)
            return {'type': 'http.request', 'body': chunks.pop(0), 'more_body': bool(chunks)}

        async def send(message):
            sent.append(message)

        await self.guard({'type': 'http', 'method': method, 'path': path, 'query_string': b'', 'headers': [
            (name.encode(), value.encode()) for name, value in headers.items() if value is not None
        ]}, receive, send)
        return sent[0]['status']

    def status(self, *args, **options) -> int:
        return asyncio.run(self.ask(*args, **options))


@pytest.fixture
def page(tmp_path):
    return Page(tmp_path)


@pytest.mark.parametrize(('host', 'names', 'accepted', 'refused'), [
    ('127.0.0.1', [], ['localhost', 'LOCALHOST:1', '127.0.0.1:7860', '[::1]:7860', '127.1.2.3'],
     ['', 'evil.example', 'localhost.evil.example', 'evil.example:7860', '192.168.1.7', '127.0.0.1.evil.example', '[',
      'me@evil.example', 'localhost@evil.example']),
    ('127.0.0.1', ['Clip.Example'], ['clip.example', 'CLIP.example:443', 'localhost'], ['evil.example', '10.0.0.1']),
    ('0.0.0.0', [], ['192.168.1.7:7860', '[fe80::1]:7860', '127.0.0.1', 'localhost', 'machine'],
     ['evil.example', '', 'machine.evil.example']),
    ('lab.example', [], ['lab.example:7860', '10.0.0.1', 'localhost'], ['evil.example'])])
def test_names(tmp_path, monkeypatch, host, names, accepted, refused):
    monkeypatch.setattr(guard.socket, 'gethostname', lambda: 'machine')
    page = Page(tmp_path, host=host, names=names)
    assert {name: page.status(host=name) for name in accepted} == dict.fromkeys(accepted, 200)
    assert {name: page.status(host=name) for name in [*refused, None]} == dict.fromkeys([*refused, None], 400)


@pytest.mark.parametrize(('origin', 'status'), [
    ('http://localhost:7860', 200), (None, 200), ('https://clip.example', 200), ('http://localhost:3000', 403),
    ('http://127.0.0.1:7860', 403), ('null', 403), ('', 403), ('http://evil.example', 403), ('http://[', 403)])
def test_origins(tmp_path, origin, status):
    page = Page(tmp_path, names=['clip.example'])
    assert page.status('GET', '/config', origin=origin) == page.status(*JOIN, b'{}', origin=origin) == status
    assert page.status('OPTIONS', '/config', origin=origin) == (404 if status == 200 else 403)


def test_unknown_paths(page):
    for path in ('/', '/config', '/assets/a/b.js', '/gradio_api/queue/data', '/gradio_api/file=/tmp/a b.png',
                 '/gradio_api/call/segment/0a1'):
        assert page.status('GET', path) == page.status('HEAD', path) == 200, path
        assert page.status('DELETE', path) == page.status('POST', path) == 404, path
    for path in ('/openapi.json', '/docs', '/redoc', '/gradio_api/openapi.json', '/gradio_api/proxy=http://a',
                 '/gradio_api/file=http://a/b.png', '/login', '/gradio_api/run/segment', '/config/x'):
        assert page.status('GET', path) == 404, path
    for way in ('run/segment', 'api/segment', 'call/v2/segment', 'run/segment/', 'vibe-edit', 'component_server'):
        assert page.status('POST', f'/gradio_api/{way}', b'{}') == 404, way


def test_proxy_headers_are_removed(page):
    assert page.status(x_forwarded_host='evil.example', x_forwarded_for='1', forwarded='host=evil.example',
                       x_gradio_server='http://evil.example', x_forwarded_proto='https', accept='*/*') == 200
    headers, _ = page.received[0]
    assert {*headers} == {b'host', b'content-length', b'x-forwarded-proto', b'accept'}


def test_size_of_the_body(page, monkeypatch):
    for length, status in ((None, 411), ('-1', 411), ('', 411), (str(10**9), 413)):
        assert page.status(*JOIN, b'{}', content_length=length) == status
    monkeypatch.setattr(limits, 'FORM_BYTES', 200)
    assert page.status(*UPLOAD, FILE % bytes(1000) + b'--b--', **PARTS) == 200
    assert page.status(*UPLOAD, FILE % bytes(1200) + b'--b--', **PARTS) == 413
    assert [body for _, body in page.received] == [FILE % bytes(1000) + b'--b--']


@pytest.mark.parametrize(('limit', 'pause'), [('TIMEOUT', 60), ('EXTRA_SECONDS', 0.05)])
def test_a_body_must_come_in_time(page, monkeypatch, limit, pause):
    """Bodies that stop, or come drop by drop, are refused."""
    monkeypatch.setattr(limits, limit, 0.2)
    assert page.status(*UPLOAD, bytes(5000), pause=pause) == 408 and page.received == []


def test_connections_without_a_request_are_closed(page, monkeypatch):
    """Otherwise a few hundred of them, opened by any website in a visitor's browser, would block the page."""
    monkeypatch.setattr(limits, 'TIMEOUT', 0.5)
    served = uvicorn.Server(uvicorn.Config(page.guard, http=server.TimeoutProtocol, ws='none', lifespan='off',
                                           limit_concurrency=4, log_level='error'))
    with socket.create_server(('127.0.0.1', 0)) as listener:
        address = listener.getsockname()
        thread = threading.Thread(target=served.run, args=([listener],))
        thread.start()
        idle = []
        try:
            idle += [socket.create_connection(address, timeout=20) for _ in range(5)]
            idle[0].sendall(b'GET / HTTP/1.1\r\nX-a: ')
            assert [connection.recv(1) for connection in idle] == [b''] * 5
            with urlopen(f'http://localhost:{address[1]}/', timeout=20) as answer:
                assert answer.status == 200
        finally:
            served.should_exit = True
            thread.join()
            for connection in idle:
                connection.close()


def test_an_upload_is_one_file_and_all_together_have_a_limit(page):
    one = FILE % b'1' + b'--b--'
    for body, parts in ((FILE % b'2' + one, PARTS), (b'nothing', PARTS),
                        (b'nothing', {'content-type': 'multipart/form-data'})):
        assert page.status(*UPLOAD, body, **parts) == 400
    assert page.status(*UPLOAD, one, **PARTS) == 200
    for number in range(5):  # small ones take a block of the disk each
        (page.folder / str(number)).mkdir()
        (page.folder / str(number) / 'a').write_bytes(b'a')
    assert page.status(*UPLOAD, one, **PARTS) == 507


def test_uploads_wait_for_each_other(tmp_path, monkeypatch):
    inside, most = [], []

    def slow(folder) -> int:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return 0

    monkeypatch.setattr(limits, 'MAX_UPLOADS', 2)
    monkeypatch.setattr(guard, '_size', slow)
    page = Page(tmp_path)

    async def many():
        return await asyncio.gather(*(page.ask(*UPLOAD, FILE % b'1' + b'--b--', **PARTS) for _ in range(7)))

    assert asyncio.run(many()) == 7 * [200] and max(most) == 2


def test_only_uploads_are_read(page, tmp_path):
    def body(path) -> bytes:
        return json.dumps({'data': [{'path': path, 'meta': {'_type': 'gradio.FileData'}}, 'cat']}).encode()

    assert page.status(*JOIN, body(str(page.folder / 'a/b.png'))) == 200
    (page.folder / 'link').symlink_to('/etc')
    for path in ('/etc/passwd', 'http://localhost/a.png', str(page.folder / '../a.png'), str(tmp_path), '',
                 f'{page.folder}2/a.png', str(page.folder / 'link/passwd')):
        assert page.status(*JOIN, body(path)) == 403, path
    nested = json.dumps({'data': [None, [{'a': [{'path': '/etc/passwd'}], 'path': str(page.folder / 'a.png')}]]})
    assert page.status(*JOIN, nested.encode()) == 403
    for broken in (b'{', b'\xff', body(3), body(None), body('\0'), b'[' * 100_000):
        assert page.status(*JOIN, broken) == 400, broken[:20]
    good = str(page.folder / 'a.png')
    assert page.status(*JOIN, f'{{"data": [{{"path": "/etc/passwd", "path": "{good}"}}]}}'.encode()) == 200
    headers, passed = page.received[-1]
    assert b'passwd' not in passed and int(headers[b'content-length']) == len(passed)
