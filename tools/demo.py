#!/usr/bin/env python3
"""Segments your images: `python tools/demo.py IMAGE_OR_FOLDER_OR_VIDEO --classes "cat, sofa" --checkpoint CKPT`.

For each image it writes an overlay with a legend, the labels as a PNG, and a JSON file with the area and mean score of
each class; for a folder also a contact sheet, for a video a video. Run it again to continue: results that are up to
date are kept.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # so that this repository's packages come first
from tools.engine.arguments import positive_int
from tools.engine.errors import run
from tools.engine.model_arguments import (
    add_class_arguments,
    add_model_arguments,
    fraction,
    load_segmenter,
    segment_options,
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Segment images or a video with any class names.')
    parser.add_argument('source', type=Path, metavar='IMAGE_OR_FOLDER_OR_VIDEO',
                        help='an image, a folder with images (also in folders below), or a video')
    add_model_arguments(parser)
    add_class_arguments(parser)
    parser.add_argument('--out', type=Path, metavar='FOLDER', default='work_dirs/demo', help='(default: %(default)s)')
    parser.add_argument('--opacity', type=fraction, default=0.5, help='of the colours, from 0 to 1 (default: 0.5)')
    parser.add_argument('--every', type=positive_int, default=1, metavar='N',
                        help='use every Nth frame of a video (default: 1)')
    parser.add_argument('--top', type=positive_int, metavar='K',
                        help='add to the JSON file the K best classes and their scores in each cell of a grid, of at '
                             'most 64 cells a side; --background and --threshold do not apply to them')
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    from mmseg.utils import get_root_logger

    from models.errors import UserError
    from models.image_io import read_image
    from models.inference.result import check_top
    from tools.demonstration import images, videos
    from tools.engine.files import lock_folder, make_folder
    if not args.source.exists():
        raise UserError(f'no image, folder or video {args.source}.')
    options = segment_options(args)
    is_folder = args.source.is_dir()
    files = images.find_images(args.source, args.out) if is_folder else {args.source.stem: args.source}
    model = load_segmenter(args)
    if args.top is not None:
        check_top(args.top, len(options['class_names'] or model.class_names))
    model.warned = True  # unreliable results are reported at the end
    folder, logger = make_folder(args.out), get_root_logger()
    with lock_folder(folder, '--out'):
        if videos.is_video(args.source):
            logger.info('video: %s', videos.segment_video(model, args.source, args, options, folder))
            return
        if not is_folder:
            read_image(args.source)  # raises if it is not an image
        outlines = images.segment_images(model, files, args, options, folder)
        if len(files) == len(outlines) == 1:
            images.log_classes(images.read_summary(folder, *outlines))
        images.warn_of_unreliable([*outlines.values()])
        if is_folder and outlines:
            logger.info('contact sheet: %s', ', '.join(map(str, images.contact_sheets(outlines, folder))))
        logger.info('%d image%s: %s', len(outlines), '' if len(outlines) == 1 else 's', folder)
        if len(outlines) < len(files):
            raise UserError(f'{len(files) - len(outlines)} of {len(files)} images could not be read; they are named '
                            'above.')


if __name__ == '__main__':
    run(main)
