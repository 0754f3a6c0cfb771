"""Runs the server of tools/webapp.py: its socket, its temporary folder, Gradio behind the guard."""
import asyncio
import errno
import os
import signal
import socket
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from mmseg.utils import get_root_logger
from PIL import Image
from uvicorn.protocols.http.h11_impl import H11Protocol

from datasets.miniature import Miniature
from models.errors import UserError
from tools.engine.files import make_folder
from tools.engine.model_arguments import load_segmenter
from tools.miniature.world import draw_scene
from tools.web_page import limits
from tools.web_page.answers import Limits
from tools.web_page.guard import Guard

SCENES = {  # examples for the miniature's model: seed -> class names
    1000: 'red dots, blue stripes, yellow stripes, yellow checks',
    1003: 'red paint, purple stripes, green dots, purple checks',
    1014: 'red paint, blue dots, green dots, purple checks, blue stripes',
    1020: 'red stripes, purple stripes, yellow paint, purple checks',
}


class TimeoutProtocol(H11Protocol):
    """uvicorn's connection, closed if no request comes in time: the number of connections is limited."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.loop.call_later(limits.TIMEOUT, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def main(args: Namespace) -> None:
    """Serve the page until Ctrl-C or SIGTERM, then delete all uploads."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the folder is deleted
    with listen(args.host, args.port) as listener, tempfile.TemporaryDirectory(prefix='clip-rc-') as folder:
        serve(args, listener, Path(folder))


def listen(host: str, port: int) -> socket.socket:
    """Open the socket to serve on.

    Raises:
        UserError: the address does not belong to this machine, or the port is in use or not permitted.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return listener
    except OSError as error:
        remedies = {errno.EADDRINUSE: f'port {port} is in use: choose another one, such as --port {port + 1}, or '
                                      '--port 0 for any free one.',
                    errno.EACCES: f'you may not use port {port}: choose one from 1024 up.'}
        raise UserError(remedies.get(error.errno, f'cannot listen on {host}: {error.strerror}. Choose an '
                                     'address of this machine.')) from error


def serve(args: Namespace, listener: socket.socket, folder: Path) -> None:
    """Build the page and serve it.

    Args:
        folder: for uploads and examples.
    """
    os.environ['GRADIO_TEMP_DIR'] = str(folder)
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # Gradio reads both when it is imported
    import gradio
    import uvicorn
    from fastapi import FastAPI

    from tools.web_page import layout

    name = Path(args.checkpoint).name
    segmenter, examples = load_segmenter(args), {}
    if segmenter.class_names == Miniature.CLASSES:
        for number, (seed, class_names) in enumerate(SCENES.items(), 1):
            file = make_folder(folder / 'examples') / f'drawn_{number}.png'
            Image.fromarray(draw_scene(seed).image).save(file)
            examples[str(file)] = class_names
    page = layout.build(segmenter, Limits(args.max_pixels, args.max_classes, args.max_seconds), name=name,
                        examples=examples).queue(max_size=args.max_waiting, api_open=False)
    app = gradio.mount_gradio_app(FastAPI(openapi_url=None), page, '/', footer_links=[], show_error=True,
                                  max_file_size=f'{args.max_upload_mb}mb', ssr_mode=False, enable_monitoring=False,
                                  run_history=False, mcp_server=False, app_kwargs={'openapi_url': None},
                                  theme=layout.THEME, css=layout.CSS)
    guarded = Guard(app, host=args.host, names=args.allowed_host, folder=folder,
                    file_bytes=args.max_upload_mb * 2**20, kept_bytes=args.max_kept_mb * 2**20)
    host, port = listener.getsockname()[:2]
    get_root_logger().info('%s is served at http://%s:%d until Ctrl-C', name, f'[{host}]' if ':' in host else host,
                           port)
    config = uvicorn.Config(guarded, log_level='warning', timeout_graceful_shutdown=1, ws='none', proxy_headers=False,
                            limit_concurrency=limits.MAX_CONNECTIONS, http=TimeoutProtocol, server_header=False)
    uvicorn.Server(config).run(sockets=[listener])
