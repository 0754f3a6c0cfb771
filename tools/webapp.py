#!/usr/bin/env python3
"""A page in the browser: an image, any words, and what the model sees. `python tools/webapp.py --checkpoint FILE`.

Without a checkpoint it serves the miniature's model, which knows its own drawn world only. It listens on this machine
alone unless --host says otherwise, and asks nothing of any other machine. One request after the other is worked on;
those that wait are queued.
"""
import argparse
import errno
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, whoever else has one
from importlib.util import find_spec

from mmseg.utils import get_root_logger

from datasets.miniature import Miniature
from models.errors import UserError
from tools import demo
from tools.engine import process
from tools.engine.config import REPOSITORY
from tools.web_page.answers import Limits

CONNECTIONS = 256  # at once; a visitor's browser has up to six
MINIATURE = Path(REPOSITORY) / 'tools/miniature/model.safetensors'


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Segment images with any words in the browser.')
    demo.add_model_arguments(parser, str(MINIATURE))
    parser.add_argument('--host', default='127.0.0.1',
                        help='address to listen on; 0.0.0.0 lets other machines in (default: 127.0.0.1)')
    parser.add_argument('--allowed-host', action='append', default=[], metavar='NAME',
                        help='another name under which the page is visited, such as that of a proxy in front of it; '
                             'may be given several times. Known without it: localhost, --host, and, if --host lets '
                             'other machines in, this machine\'s own name and addresses')
    parser.add_argument('--port', type=int, default=7860, help='0: any that is free (default: 7860)')
    limits = parser.add_argument_group('limits of a request')
    limits.add_argument('--max-upload-mb', type=process.at_least_one, default=32, metavar='N',
                        help='size of the image\'s file (default: 32)')
    limits.add_argument('--max-kept-mb', type=process.at_least_one, default=1024, metavar='N',
                        help='size of all uploaded files, which are kept for an hour or two; more are refused '
                             '(default: 1024)')
    limits.add_argument('--max-pixels', type=process.at_least_one, default=16_000_000, metavar='N',
                        help='of the image (default: 16000000)')
    limits.add_argument('--max-words', type=process.at_least_one, default=200, metavar='N',
                        help='of all lists together, each synonym counted (default: 200)')
    limits.add_argument('--max-seconds', type=process.at_least_one, default=60, metavar='N',
                        help='the model\'s work is stopped then (default: 60)')
    limits.add_argument('--max-waiting', type=process.at_least_one, default=16, metavar='N',
                        help='requests in the queue; more are refused (default: 16)')
    args = parser.parse_args()
    if args.checkpoint == str(MINIATURE) and not MINIATURE.is_file():
        raise UserError(f'no {MINIATURE}, the model that ships with the project: restore it (git checkout), or name '
                        'another one with --checkpoint FILE.')
    if not 0 <= args.port <= 65535:
        raise UserError(f'--port {args.port}: a number from 0 to 65535 is needed.')
    return args


def listen(host: str, port: int) -> socket.socket:
    """The socket to serve on.

    Raises:
        UserError: the address is none of this machine, or the port is in use or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return listener
    except OSError as error:
        remedy = {errno.EADDRINUSE: f'port {port} is in use: name another one, such as --port {port + 1}, or --port 0 '
                                    'for any that is free.',
                  errno.EACCES: f'port {port} is not allowed to you: name one from 1024 up.'}
        raise UserError(remedy.get(error.errno, f'cannot listen on {host}: {error.strerror}. Name an '
                                    'address of this machine.')) from error


def serve(args: argparse.Namespace, listener: socket.socket, folder: Path) -> None:
    """Builds the page and serves it until Ctrl-C.

    Args:
        folder: for examples, and for uploads, which are kept for a while.
    """
    uploads = process.make_folder(folder / 'uploads')
    os.environ['GRADIO_TEMP_DIR'] = str(uploads)
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # Gradio reads both when it is imported
    import gradio
    import uvicorn
    from fastapi import FastAPI

    from tools.web_page import examples, layout
    from tools.web_page.guard import Guard, Impatient

    name = Path(args.checkpoint).name
    segmenter = demo.load(args)
    drawn = []
    if segmenter.class_names == Miniature.CLASSES:
        drawn = examples.draw(process.make_folder(folder / 'examples'))
    page = layout.build(segmenter, Limits(args.max_pixels, args.max_words, args.max_seconds),
                        name=name, examples=drawn).queue(max_size=args.max_waiting, api_open=False)
    app = gradio.mount_gradio_app(FastAPI(openapi_url=None), page, '/', footer_links=[], show_error=False,
                                  max_file_size=f'{args.max_upload_mb}mb', ssr_mode=False, enable_monitoring=False,
                                  run_history=False, mcp_server=False, app_kwargs={'openapi_url': None},
                                  theme=layout.THEME, css=layout.CSS)
    guarded = Guard(app, host=args.host, names=args.allowed_host, folder=uploads,
                    file_bytes=args.max_upload_mb * 2**20, kept_bytes=args.max_kept_mb * 2**20)
    host, port = listener.getsockname()[:2]
    get_root_logger().info('%s is served at http://%s:%d until Ctrl-C', name, f'[{host}]' if ':' in host else host,
                           port)
    config = uvicorn.Config(guarded, log_level='warning', timeout_graceful_shutdown=1, limit_concurrency=CONNECTIONS,
                            ws='none', http=Impatient, proxy_headers=False, server_header=False)
    uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    args = parse_arguments()
    if find_spec('gradio') is None:
        raise UserError(f'the page needs Gradio:\n    pip install -r {REPOSITORY / "tools/webapp_requirements.txt"}')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the folder of uploads goes, too
    with listen(args.host, args.port) as listener, tempfile.TemporaryDirectory(prefix='clip-rc-') as folder:
        serve(args, listener, Path(folder))


if __name__ == '__main__':
    process.run(main)
