#!/usr/bin/env python3
"""Serves a web page that segments images with any class names: `python tools/webapp.py --checkpoint FILE`.

Without a checkpoint it serves the miniature's model, which knows only its own drawn world. It listens on this machine
only, unless --host is given, and contacts no other machine. Requests are processed one after the other from a queue.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # so that this repository's packages come first
from tools.engine.arguments import positive_int
from tools.engine.errors import run
from tools.engine.model_arguments import add_model_arguments

MINIATURE = Path(__file__).resolve().parent / 'miniature/model.safetensors'


def port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number from 0 to 65535')
    return int(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Segment images with any class names in the browser.')
    add_model_arguments(parser, MINIATURE)
    parser.add_argument('--host', default='127.0.0.1',
                        help='address to listen on; 0.0.0.0 opens the page to other machines (default: 127.0.0.1)')
    parser.add_argument('--allowed-host', action='append', default=[], metavar='NAME',
                        help='accept another host name, such as that of a proxy in front of the page; may be given '
                             'several times. localhost and --host are always accepted and, if --host opens the page '
                             'to other machines, also the host name and addresses of this machine')
    parser.add_argument('--port', type=port, default=7860, help='0: any free one (default: 7860)')
    limits = parser.add_argument_group('limits')
    for name, default, text in (
            ('--max-upload-mb', 32, 'size of an image file in MB'),
            ('--max-kept-mb', 1024, 'size of all uploads in MB, which are kept for one to two hours'),
            ('--max-pixels', 16_000_000, 'pixels of an image'),
            ('--max-classes', 200, 'class names in all lists of a request, synonyms included'),
            ('--max-seconds', 60, 'computing time of a request in seconds'),
            ('--max-waiting', 16, 'requests in the queue; further ones are refused')):
        limits.add_argument(name, type=positive_int, default=default, metavar='N', help=f'{text} (default: {default})')
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    from importlib.util import find_spec

    from models.errors import UserError
    if find_spec('gradio') is None:
        requirements = Path(__file__).with_name('webapp_requirements.txt')
        raise UserError(f'the page needs Gradio:\n    pip install -r {requirements}')
    if args.checkpoint == str(MINIATURE) and not MINIATURE.is_file():
        raise UserError(f'{MINIATURE}, the model that ships with the project, is missing: restore it with '
                        '`git checkout`, or name another one with --checkpoint FILE.')
    from tools.web_page import server
    server.main(args)


if __name__ == '__main__':
    run(main)
