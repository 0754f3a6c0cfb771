"""Guards the page: only requests of its own visitors, of the kinds that it makes, within the size limits, reach it.

Gradio accepts any host name and, under most of them, any origin. Without this guard, another website could read and use
the page through a visitor's browser, even under a host name of its own that it points at this machine (DNS rebinding).
"""
import asyncio
import json
import os
import re
import socket
from contextlib import nullcontext, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tools.web_page import limits

UPLOAD = '/gradio_api/upload'
POST = re.compile(r'/gradio_api/(upload|queue/join|call/\w+|cancel|reset)')
GET = re.compile(r'/(|config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|(assets|static|svelte)/.*|gradio_api/'
                 r'(info|config|theme\.css|startup-events|heartbeat/\w+|queue/data|call/\w+/\w+|upload_progress|'
                 r'app_id|file=/.*))')
HIDDEN = re.compile(rb'forwarded|x-forwarded-(?!proto$).*|x-gradio-server')  # which Gradio trusts


class Guard:
    """Passes allowed requests on to an ASGI application.

    Args:
        host: the address or name that the server listens on. Requests must be addressed to a name of this machine or
            one of `names`; if the server is open to other machines, any address will do, as addresses cannot be faked.
        names: more host names to accept.
        folder: of uploads; requests can refer to no other file.
        file_bytes, kept_bytes: maximum size of one upload, and of all uploads together.
    """

    def __init__(self, app: ASGIApp, *, host: str, names: list[str], folder: Path, file_bytes: int, kept_bytes: int):
        self.app, self.folder, self.file_bytes, self.kept_bytes = app, folder.resolve(), file_bytes, kept_bytes
        self.names = {name.lower() for name in names}
        self.own = {'localhost', host.lower(), *self.names}
        self.open = not _is_loopback(host)
        if self.open:
            self.own.add(socket.gethostname().lower())
        self.uploads = asyncio.Semaphore(limits.MAX_UPLOADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] == 'lifespan':
            return await self.app(scope, receive, send)
        messages: list[Message] = []  # the checked body, which the application receives first

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        try:
            self._check(scope)
            if scope['method'] == 'POST':
                body = await self._body(scope, receive)
                headers = [pair for pair in scope['headers'] if pair[0] != b'content-length']
                scope['headers'] = [*headers, (b'content-length', str(len(body)).encode())]
                messages.append({'type': 'http.request', 'body': body, 'more_body': False})
        except HTTPException as refusal:
            return await PlainTextResponse(refusal.detail, refusal.status_code)(scope, receive, send)
        except ClientDisconnect:
            return
        await self.app(scope, replay, send)

    def _check(self, scope: Scope) -> None:
        """Refuse other host names, other websites and unknown paths; remove the proxy headers that Gradio trusts."""
        headers = Headers(scope=scope)
        host, origin = headers.get('host', ''), headers.get('origin')
        name = _name(host)
        if not (name in self.own or _is_loopback(name) or (self.open and _address(name) is not None)):
            raise HTTPException(400, 'The page is not served under this host name: start it with --allowed-host NAME.')
        same = origin is None or origin.partition('://')[2].lower() == host.lower()
        if not same and _name(origin) not in self.names:
            raise HTTPException(403, 'Requests from other websites are refused.')
        allowed = {'GET': GET, 'HEAD': GET, 'POST': POST}.get(scope['method'])
        if allowed is None or not allowed.fullmatch(scope['path']):
            raise HTTPException(404, 'Not found.')
        scope['headers'] = [pair for pair in scope['headers'] if not HIDDEN.fullmatch(pair[0])]

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Receive and check the body: one file, or JSON that refers to no file but uploads, within the size limits."""
        upload, length = scope['path'] == UPLOAD, Headers(scope=scope).get('content-length', '')
        if not length.isdecimal():
            raise HTTPException(411, 'The request must have a Content-Length.')
        if int(length) > (self.file_bytes + limits.FORM_BYTES if upload else limits.MAX_JSON):
            raise HTTPException(413, 'Too large: use fewer class names.' if not upload else
                                f'Too large: the limit for a file is {self.file_bytes / 2**20:g} MB.')

        async def without_pauses() -> Message:
            return await asyncio.wait_for(receive(), limits.TIMEOUT)

        async with self.uploads if upload else nullcontext():
            request = Request(scope, without_pauses)
            try:
                body = await asyncio.wait_for(request.body(), limits.EXTRA_SECONDS + int(length) / limits.MIN_SPEED)
            except asyncio.TimeoutError:
                raise HTTPException(408, 'The request was too slow: try again.') from None
            if not upload:
                return self._check_json(body)
            if await asyncio.to_thread(_size, self.folder) + len(body) > self.kept_bytes:
                raise HTTPException(507, 'There is no space for more images now: try again in an hour.')
            try:
                async with request.form(max_files=1, max_fields=0):
                    return body
            except (MultiPartException, KeyError):
                raise HTTPException(400, 'An upload must be one file.') from None

    def _check_json(self, body: bytes) -> bytes:
        """Check the JSON and write it again, so that duplicate keys cannot hide a path from the check."""
        def check(entry: dict) -> dict:
            if 'path' in entry and not Path(entry['path']).resolve().is_relative_to(self.folder):
                raise HTTPException(403, 'Only uploaded files are read.')
            return entry

        try:
            return json.dumps(json.loads(body, object_hook=check)).encode()
        except (ValueError, TypeError, RecursionError):
            raise HTTPException(400, 'The request is not valid JSON of this page.') from None


def _name(host: str) -> str:
    """Return the name or address in a Host or Origin header, without port and brackets; '' if it has none."""
    try:
        return urlsplit(host if '//' in host else f'//{host}').hostname or ''
    except ValueError:
        return ''


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def _is_loopback(name: str) -> bool:
    address = _address(name)
    return name.lower() == 'localhost' if address is None else address.is_loopback


def _size(folder: Path) -> int:
    """Sum the sizes of all files in a folder and below in bytes, each at least one disk block."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # Gradio deletes old uploads
                total += max(4096, os.stat(os.path.join(place, name)).st_size)
    return total
