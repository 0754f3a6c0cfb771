#!/usr/bin/env python3
"""Your images, your words: `python tools/demo.py IMAGE_OR_FOLDER_OR_VIDEO --words "cat, sofa" --checkpoint CKPT`.

Of each image: an overlay with a legend, the labels as an index PNG, and JSON with area and mean score of each word.
Of a folder a contact sheet, too; of a video a video. What is there already is not made again.
"""
import argparse
import fcntl
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, whoever else has one
import cv2
import numpy as np
from mmseg.utils import get_root_logger
from PIL import Image, ImageOps

from models.class_names import lines_of, templates_of
from models.errors import UserError
from models.image_io import ENDINGS, MOST_PIXELS
from models.inference import Result, Segmenter, drawing, load_model, parse_words, read_image
from tools.engine import process
from tools.engine.config import IS_RUN, read_config
from tools.engine.progress import Progress

VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')
RESULT = re.compile(r'\.(overlay|labels)\.png$|^contact_sheet(_\d+)?\.png$')
AT_ONCE = 8  # images whose windows a GPU is given together
THUMBNAIL, COLUMNS, ROWS = 256, 6, 8  # of a contact sheet


class Source(NamedTuple):
    """An image, and the name of its results, relative to --out."""
    file: Path
    name: str


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Segment your images with your words.')
    parser.add_argument('source', type=Path, metavar='IMAGE_OR_FOLDER_OR_VIDEO')
    add_model_arguments(parser)
    add_word_arguments(parser)
    parser.add_argument('--out', metavar='DIR', default='work_dirs/demo', help='(default: %(default)s)')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the colours, from 0 to 1 (default: 0.5)')
    parser.add_argument('--every', type=process.at_least_one, default=1, metavar='N',
                        help='of a video, every Nth frame (default: 1)')
    args = parser.parse_args()
    if not 0 <= args.opacity <= 1:
        raise UserError(f'--opacity {args.opacity} is not from 0 to 1.')
    return args


def add_model_arguments(parser: argparse.ArgumentParser, checkpoint: str | None = None) -> None:
    """The arguments that `load` reads."""
    parser.add_argument('--checkpoint', metavar='CKPT', required=checkpoint is None, default=checkpoint,
                        help='of ours, of the authors, or a slim one of tools/export.py'
                             + (' (default: the miniature\'s model)' if checkpoint else ''))
    parser.add_argument('--config', help=f'config of its training; {IS_RUN} (default: the one in the checkpoint, which '
                                         'is read as data)')
    parser.add_argument('--clip', metavar='FILE', help='CLIP file for new words, where the checkpoint holds no text '
                                                       'tower (default: the config\'s)')
    parser.add_argument('--device', default=None, help='such as cuda:1 or cpu (default: a GPU where there is one)')
    parser.add_argument('--amp', choices=['bfloat16', 'float16'], help='products in this type (default: float32)')


def add_word_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `asked_for` reads."""
    parser.add_argument('--words', help='"cat, sofa|couch, potted plant": commas part words, | parts names of one '
                                        'thing; or a text file, a word a line, "sofa, couch" being one (default: the '
                                        'classes of the training)')
    parser.add_argument('--anything-else', default='', metavar='WORDS',
                        help='words for what is not looked for, such as "background": their pixels take no word')
    parser.add_argument('--threshold', type=float, metavar='SCORE', help='pixels with a lower score take no word')
    parser.add_argument('--prompts', metavar='SET', help='a prompt set, or a text file of prompts (default: the '
                                                         'training\'s)')


def load(args: argparse.Namespace) -> Segmenter:
    return load_model(args.checkpoint, None if args.config is None else read_config(args.config), clip=args.clip,
                      device=args.device, amp=args.amp)


def asked_for(args: argparse.Namespace) -> dict:
    """The options of `Segmenter.segment`."""
    words = args.words
    if words is not None:
        if words.endswith('.txt'):
            if not Path(words).is_file():
                raise UserError(f'no file {words} of words.')
            words = [line.replace('|', ',') for line in lines_of(words, 'words')]
        else:
            words = parse_words(words)
    return {'words': words, 'prompts': args.prompts, 'anything_else': args.anything_else, 'threshold': args.threshold}


def images_of(folder: Path, out: Path) -> list[Source]:
    """All images in a folder and below, but for results; names that only differ in their ending keep it.

    Raises:
        UserError: there is none.
    """
    files = sorted(Path(place) / name for place, _, names in os.walk(folder, followlinks=False) for name in names
                   if name[0] != '.' and Path(name).suffix.lower() in ENDINGS)
    files = [file for file in files if not RESULT.search(file.name) and
             (out.resolve() == folder.resolve() or not file.resolve().is_relative_to(out.resolve()))]
    if not files:
        raise UserError(f'{folder} holds no images ({", ".join(ENDINGS)}). Name an image, a video, or the folder '
                        'that holds them.')
    stems = Counter(file.with_suffix('') for file in files)
    names = [file.with_suffix('') if stems[file.with_suffix('')] == 1 else file for file in files]
    names = names if len({*names}) == len(names) else files  # there is an a.png.jpg beside an a.png and an a.jpg
    return [Source(file, str(name.relative_to(folder))) for file, name in zip(files, names, strict=True)]


def origin(file: Path, args: argparse.Namespace) -> dict:
    """What a result depends on beside its words, plain values: who finds the same in a result makes it not again."""
    def stamp(path: str | Path) -> list:
        stat = os.stat(path)
        return [Path(path).name, stat.st_size, stat.st_mtime_ns]
    prompts = args.prompts and list(templates_of(args.prompts))
    return {'image': stamp(file), 'checkpoint': stamp(args.checkpoint), 'config': args.config and stamp(args.config),
            'clip': args.clip and stamp(args.clip), 'amp': args.amp, 'opacity': args.opacity, **asked_for(args),
            'prompts': prompts}


def is_made(folder: Path, name: str, made_of: dict, parts: Sequence[str] = ('labels.png', 'overlay.png')) -> bool:
    """Whether the results of an image are there, with the same words and options."""
    files = [folder / f'{name}.{part}' for part in parts]
    try:
        return all(file.is_file() for file in files) and summary_of(folder, name).get('made_of') == made_of
    except (OSError, ValueError, AttributeError):
        return False


def segment_all(model: Segmenter, sources: Sequence[Source], args: argparse.Namespace, folder: Path) -> list[Source]:
    """Makes the results that are not there; returns the images that cannot be read, after a warning for each."""
    logger, broken = get_root_logger(), []
    origins = {}
    for source in sources:
        try:
            origins[source] = origin(source.file, args)
        except OSError as error:  # a link to nowhere
            logger.warning('%s cannot be read: %s', source.file, error.strerror)
            broken.append(source)
    waiting = [source for source in origins if not is_made(folder, source.name, origins[source])]
    sources = list(origins)
    if len(waiting) < len(sources):
        logger.info('%d of %d are there already', len(sources) - len(waiting), len(sources))
    rest, options = iter(waiting), asked_for(args)
    at_once = AT_ONCE if model.device.type == 'cuda' else 1
    done = 0
    with Progress(0, len(waiting), 'images') as progress:
        while group := list(islice(rest, at_once)):
            readable = []
            for source in group:
                try:
                    readable.append((source, read_image(source.file)))
                except UserError as error:
                    Progress.end_line()
                    logger.warning('%s', error)
                    broken.append(source)
            for (source, _), result in zip(readable, model.segment([image for _, image in readable], **options),
                                           strict=True):
                keep(result, folder, source.name, origins[source], args.opacity)
            done += len(group)
            progress.update(done)
    return broken


def keep(result: Result, folder: Path, name: str, made_of: dict, opacity: float | None = None) -> None:
    """Writes a result, without an overlay if no opacity is named; the JSON comes last: half of it is not the whole."""
    (folder / f'{name}.json').unlink(missing_ok=True)
    result.settings['made_of'] = made_of
    result.save((folder / name).parent, Path(name).name, opacity=opacity)


def contact_sheets(sources: Sequence[Source], folder: Path) -> list[Path]:
    """All overlays of a folder, small, with their names, and one legend: `contact_sheet.png`, or several."""
    files, margin, line = [], 6, 20
    height = THUMBNAIL + line + margin
    for start in range(0, len(sources), COLUMNS * ROWS):
        some = sources[start:start + COLUMNS * ROWS]
        columns = min(COLUMNS, len(some))
        sheet = Image.new('RGB', (columns * (THUMBNAIL + margin) + margin, -(-len(some) // columns) * height + margin),
                          'white')
        for place, source in enumerate(some):
            left, top = margin + place % columns * (THUMBNAIL + margin), margin + place // columns * height
            summary = summary_of(folder, source.name)
            with Image.open(folder / f'{source.name}.overlay.png') as image:
                image = image.crop((0, 0, summary['width'], summary['height']))  # without its legend
            image = ImageOps.contain(image, (THUMBNAIL, THUMBNAIL))
            sheet.paste(image, (left + (THUMBNAIL - image.width) // 2, top + (THUMBNAIL - image.height) // 2))
            drawing.write(sheet, (left, top + THUMBNAIL + 2), source.name, THUMBNAIL)
        number = '' if len(sources) <= COLUMNS * ROWS else f'_{start // (COLUMNS * ROWS) + 1}'
        files.append(folder / f'contact_sheet{number}.png')
        drawing.under(sheet, drawing.legend(entries_of(summary), sheet.width)).save(files[-1])
    return files


def summary_of(folder: Path, name: str) -> dict:
    return json.loads((folder / f'{name}.json').read_text(encoding='utf-8'))


def tell_doubts(summaries: Sequence[dict]) -> None:
    """Warns of results that mean little."""
    warnings = [summary['warning'] for summary in summaries if summary.get('warning')]
    if warnings:
        count = f'{len(warnings)} of {len(summaries)}: ' if len(summaries) > 1 else ''
        get_root_logger().warning('%s%s', count, warnings[0])


def entries_of(summary: dict) -> list[tuple[str, list[int]]]:
    """All words beside their colours, for a legend."""
    return [(word['word'], word['colour']) for word in summary['words']]


# ---- videos

def frames_of(file: Path, every: int) -> Iterator[tuple[int, np.ndarray]]:
    """(index, frame (H, W, 3) RGB) of every Nth frame."""
    video = cv2.VideoCapture(str(file))
    try:
        index = 0
        while video.grab():
            if index % every == 0:
                read, frame = video.retrieve()
                if not read:
                    return
                yield index, np.ascontiguousarray(frame[..., ::-1])
            index += 1
    finally:
        video.release()


def segment_video(model: Segmenter, file: Path, args: argparse.Namespace, folder: Path) -> Path:
    """Labels of the frames into `NAME.frames/`, then `NAME.overlay.mp4` with a legend, and `NAME.json`.

    Raises:
        UserError: no frame can be read.
    """
    video = cv2.VideoCapture(str(file))
    total, rate = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS) or 25
    pixels = video.get(cv2.CAP_PROP_FRAME_WIDTH) * video.get(cv2.CAP_PROP_FRAME_HEIGHT)
    video.release()
    if pixels > MOST_PIXELS:
        raise UserError(f'{file} has frames of more than {MOST_PIXELS:,} pixels, the most that are taken: make it '
                        'smaller.')
    made_of, options = {**origin(file, args), 'every': args.every}, asked_for(args)
    frames, count, summaries, writer = folder / f'{file.stem}.frames', 0, [], None
    part, whole = folder / f'.{file.stem}.part.mp4', folder / f'{file.stem}.overlay.mp4'
    with Progress(0, max(total, 1), 'frames') as progress:
        for index, frame in frames_of(file, args.every):
            name = f'{index:06d}'
            if not is_made(frames, name, made_of, ('labels.png',)):
                keep(model.segment(frame, **options), frames, name, made_of)
            summaries.append(summary_of(frames, name))
            colours = [word['colour'] for word in summaries[0]['words']]
            with Image.open(frames / f'{name}.labels.png') as labels:
                drawn = drawing.overlay(frame, np.asarray(labels), colours, args.opacity)
            if writer is None:
                size = max(12, frame.shape[1] // 40)
                note = drawing.legend(entries_of(summaries[0]), frame.shape[1], size)
                writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*'mp4v'), rate / args.every,
                                         (even(max(note.width, frame.shape[1])), even(frame.shape[0] + note.height)))
            writer.write(padded(drawing.under(drawn, note)))
            count += 1
            progress.update(min(index + 1, max(total, 1)))
    if writer is None:
        raise UserError(f'{file} is no video that can be read here, or it has no frames.')
    writer.release()
    part.replace(whole)
    tell_doubts(summaries)
    words = [{'word': word['word'], 'colour': word['colour'],
              'area': round(float(np.mean([summary['words'][place]['area'] for summary in summaries])), 6)}
             for place, word in enumerate(summaries[0]['words'])]
    (folder / f'{file.stem}.json').write_text(json.dumps({'frames': count, 'words': words}, indent=1,
                                                         ensure_ascii=False) + '\n', encoding='utf-8')
    return whole


def even(length: int) -> int:
    """Video codecs want even sides."""
    return length + length % 2


def padded(image: Image.Image) -> np.ndarray:
    """(H, W, 3) BGR with even sides."""
    return np.pad(np.asarray(image)[..., ::-1], ((0, image.height % 2), (0, image.width % 2), (0, 0)))


def main() -> None:
    args = parse_arguments()
    if not args.source.exists():
        raise UserError(f'no image, folder or video {args.source}.')
    is_folder = args.source.is_dir()
    sources = images_of(args.source, Path(args.out)) if is_folder else [Source(args.source, args.source.stem)]
    model = load(args)
    model.warned = True  # `tell_doubts` does, in the end
    folder, logger = process.make_folder(args.out), get_root_logger()
    lock = (folder / '.lock').open('w')  # held until this process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f'another run writes into {folder}: wait for it, or name another: --out DIR.') from error
    if args.source.suffix.lower() in VIDEOS and args.source.is_file():
        logger.info('video: %s', segment_video(model, args.source, args, folder))
        return
    if not is_folder:
        read_image(args.source)  # or a message that says what is wrong
    broken = segment_all(model, sources, args, folder)
    whole = [source for source in sources if source not in broken]
    if len(sources) == 1 and whole:
        summary = summary_of(folder, whole[0].name)
        for word in sorted(summary['words'], key=lambda word: -word['pixels']):
            score = '   -' if word['mean_score'] is None else f'{word["mean_score"]:.2f}'
            logger.info('%5.1f %%  mean score %s  %s', 100 * word['area'], score, word['word'])
        logger.info('%5.1f %%  no word', 100 * summary['nothing']['area'])
    tell_doubts([summary_of(folder, source.name) for source in whole])
    if is_folder and whole:
        logger.info('contact sheet: %s', ', '.join(map(str, contact_sheets(whole, folder))))
    logger.info('%d image%s: %s', len(whole), '' if len(whole) == 1 else 's', folder)
    if broken:
        raise UserError(f'{len(broken)} of {len(sources)} images could not be read; they are named above.')


if __name__ == '__main__':
    process.run(main)
