"""A web server on this host that can misbehave in the ways real ones do."""
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Serves the server's `files`, with the faults that the server's attributes ask for."""

    def do_GET(self):
        asked = self.headers['Range']
        self.server.ranges.append(asked)
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = int(re.fullmatch(r'bytes=(\d+)-', asked)[1]) if asked and self.server.supports_range else 0
        if start >= len(content):
            return self.send_error(416)
        body = content[start:]
        self.send_response(206 if start else 200)
        for name, value in self.server.headers.get(self.path, {}).items():
            self.send_header(name, value)
        if self.server.sends_length:
            self.send_header('Content-Length', str(len(body)))
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        self.end_headers()
        if self.server.drops:
            self.server.drops -= 1
            body = body[:len(body) // 2]
        self.server.sent.append(len(body))
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[ThreadingHTTPServer]:
    """A server of `files`, path -> content, with its address as `url`."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.files, server.supports_range, server.sends_length, server.drops = files, True, True, 0
    server.headers = {}  # path -> headers of its answer
    server.ranges, server.sent = [], []  # the Range header and the number of body bytes of each request
    server.url = f'http://127.0.0.1:{server.server_port}'
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
