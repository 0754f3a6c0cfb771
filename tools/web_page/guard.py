"""What reaches the page at all: requests of its own visitors, of the kinds that it makes, and no larger than allowed.

Gradio takes any host name and, under most of them, any origin: without this, a page of elsewhere could read and use
this one through its visitor's browser, also by a name of its own that it points at this machine (DNS rebinding).
"""
import asyncio
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

UPLOAD = '/gradio_api/upload'
POST = re.compile(r'/gradio_api/(upload|queue/join|call/\w+|cancel|reset)')
GET = re.compile(r'/(|config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|(assets|static|svelte)/.*|gradio_api/'
                 r'(info|config|theme\.css|startup-events|heartbeat/\w+|queue/data|call/\w+/\w+|upload_progress|'
                 r'app_id|file=/.*))')
HIDDEN = re.compile(rb'forwarded|x-forwarded-(?!proto$).*|x-gradio-server')  # Gradio believes what they say
MOST_TEXT = 2 * 2**20  # bytes of a request that is no upload
AROUND = 2**16  # bytes around the file of an upload
SILENT = 5  # seconds without a byte, after which a request has ended
SLOWEST = 2**18  # bytes a second of a body, which has 10 seconds more
UPLOADS_AT_ONCE = 8  # which are in memory until they are whole; others wait


class Refused(Exception):
    """A request that is not answered: status and message."""


class Guard:
    """Passes on to an ASGI application what is allowed.

    Args:
        host: address or name that is listened on. Names are only those of this machine and the `names`; addresses are
            all taken if others than this machine may come: no one can point an address elsewhere.
        names: more names of this machine.
        folder: of uploads; requests can name no other file.
        file_bytes, kept_bytes: most that an upload, and that all of them together may have.
    """

    def __init__(self, app: ASGIApp, *, host: str, names: list[str], folder: Path, file_bytes: int, kept_bytes: int):
        self.app, self.folder, self.file_bytes, self.kept_bytes = app, folder.resolve(), file_bytes, kept_bytes
        self.names = {name.lower() for name in names}
        self.own = {'localhost', host.lower(), *self.names}
        self.open = not _is_loopback(host)
        if self.open:
            self.own.add(socket.gethostname().lower())
        self.uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] == 'lifespan':
            return await self.app(scope, receive, send)
        if scope['type'] != 'http':
            return
        try:
            self._check(scope)
            if scope['method'] == 'POST':
                body = await self._body(scope, receive)
                headers = [pair for pair in scope['headers'] if pair[0] != b'content-length']
                scope['headers'] = [*headers, (b'content-length', str(len(body)).encode())]
                receive = _once(body, receive)
        except Refused as refusal:
            status, message = refusal.args
            return await PlainTextResponse(message, status)(scope, receive, send)
        except ClientDisconnect:
            return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Raises `Refused` for a stranger's name or page, and for what the page never asks; drops what Gradio would
        believe about proxies."""
        headers = Headers(scope=scope)
        host, origin = headers.get('host', ''), headers.get('origin')
        if not self._is_own(_name(host)):
            raise Refused(400, 'This page is not served under this name: start it with --allowed-host NAME.')
        same = origin is None or origin.partition('://')[2].lower() == host.lower()
        if not same and _name(origin) not in self.names:
            raise Refused(403, 'Other pages may not use this one.')
        allowed = {'GET': GET, 'HEAD': GET, 'POST': POST}.get(scope['method'])
        if allowed is None or not allowed.fullmatch(scope['path']):
            raise Refused(404, 'Not found.')
        scope['headers'] = [pair for pair in scope['headers'] if not HIDDEN.fullmatch(pair[0])]

    def _is_own(self, name: str) -> bool:
        if name in self.own or _is_loopback(name):
            return True
        try:
            return self.open and bool(ip_address(name))
        except ValueError:
            return False

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, if it is no larger than it says and may be, and holds what may be in it: a file, or JSON
        that names no file but uploads."""
        upload, length = scope['path'] == UPLOAD, Headers(scope=scope).get('content-length', '')
        if not length.isdecimal():
            raise Refused(411, 'A request says how long it is.')
        if int(length) > (self.file_bytes + AROUND if upload else MOST_TEXT):
            raise Refused(413, f'Too large: a file has {self.file_bytes / 2**20:g} MB at most.' if upload else
                          'Too large: give fewer words.')
        async with self.uploads if upload else nullcontext():
            body = await _whole(receive, 10 + int(length) / SLOWEST)
            if not upload:
                return self._only_uploads(body)
            await self._check_upload(scope, body)
            return body

    def _only_uploads(self, body: bytes) -> bytes:
        """The JSON, written anew: what is read here is what is read later."""
        try:
            value = json.loads(body)
            strange = any(not Path(path).resolve().is_relative_to(self.folder) for path in _paths(value))
        except (ValueError, TypeError, RecursionError):
            raise Refused(400, 'No JSON of this page.') from None
        if strange:
            raise Refused(403, 'Only images that are uploaded are read.')
        return json.dumps(value).encode()

    async def _check_upload(self, scope: Scope, body: bytes) -> None:
        if await asyncio.to_thread(_size, self.folder) + len(body) > self.kept_bytes:
            raise Refused(507, 'There is no room for more images now: try again in an hour.')
        try:
            async with Request(scope, _once(body)).form(max_files=1, max_fields=0):
                pass
        except (MultiPartException, KeyError):
            raise Refused(400, 'An upload is one file.') from None


async def _whole(receive: Receive, seconds: float) -> bytes:
    """A body that arrives within so many seconds, and never pauses for long."""
    parts, end = [], time.monotonic() + seconds
    try:
        while True:
            message = await asyncio.wait_for(receive(), max(0, min(SILENT, end - time.monotonic())))
            if message['type'] == 'http.disconnect':
                raise ClientDisconnect
            parts.append(message.get('body', b''))
            if not message.get('more_body'):
                return b''.join(parts)
    except asyncio.TimeoutError:
        raise Refused(408, 'Not sent in time: try again.') from None


class Impatient(H11Protocol):
    """uvicorn's connection, closed if its first request does not come: open connections are limited."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.loop.call_later(SILENT, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def _name(host: str) -> str:
    """The name or address in a Host or an Origin, without port and brackets; '' for none."""
    try:
        return urlsplit(host if '//' in host else f'//{host}').hostname or ''
    except ValueError:
        return ''


def _is_loopback(name: str) -> bool:
    try:
        return name.lower() == 'localhost' or ip_address(name).is_loopback
    except ValueError:
        return False


def _paths(value: Any) -> Iterator[str]:
    """All files that a JSON value names, at any depth."""
    if isinstance(value, dict):
        if 'path' in value:
            yield value['path']
        value = list(value.values())
    if isinstance(value, list):
        for inside in value:
            yield from _paths(inside)


def _size(folder: Path) -> int:
    """Bytes of all files in a folder and below, each counted as a block of the disk at least."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # Gradio deletes old ones
                total += max(4096, os.stat(os.path.join(place, name)).st_size)
    return total


def _once(body: bytes, after: Receive | None = None) -> Receive:
    """Receives the body, then what comes after it."""
    messages: list[Message] = [{'type': 'http.request', 'body': body, 'more_body': False}]

    async def receive() -> Message:
        return messages.pop() if messages else await after()
    return receive
