"""Segments videos for tools/demo.py, frame by frame."""
import json
from argparse import Namespace
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from models.errors import UserError
from models.image_io import MAX_PIXELS
from models.inference import Segmenter, drawing
from tools.demonstration.images import (
    inputs_of,
    is_up_to_date,
    legend_entries,
    outline,
    read_summary,
    save,
    warn_of_unreliable,
)
from tools.engine.files import atomic_path

ENDINGS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')


def is_video(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and path.is_file()


def segment_video(model: Segmenter, file: Path, args: Namespace, options: dict, folder: Path) -> Path:
    """Write the labels of the frames to `NAME.frames/`, then `NAME.overlay.mp4` with a legend, and `NAME.json`.

    Raises:
        UserError: no frame can be read, or frames are too large.
    """
    video = cv2.VideoCapture(str(file))
    total, rate = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS) or 25
    if video.get(cv2.CAP_PROP_FRAME_WIDTH) * video.get(cv2.CAP_PROP_FRAME_HEIGHT) > MAX_PIXELS:
        raise UserError(f'{file} has frames of more than {MAX_PIXELS:,} pixels, the maximum: make it smaller.')
    inputs = {**inputs_of(file, args, options), 'every': args.every}
    frames, outlines, areas = folder / f'{file.stem}.frames', [], 0
    for index, frame in tqdm(read_frames(video, args.every), total=-(-max(total, 0) // args.every) or None,
                             unit='frame', disable=None):
        name = f'{index:06d}'
        if not is_up_to_date(frames, name, inputs, ('labels.png',)):
            save(model.segment(frame, **options), frames, name, inputs, top=args.top)
        summary = read_summary(frames, name)
        areas = areas + np.array([entry['area'] for entry in summary['classes']])
        outlines.append(outline(summary))
    if not outlines:
        raise UserError(f'{file} is not a video that can be read here, or it has no frames.')
    classes = [{'name': entry['name'], 'colour': entry['colour'], 'area': round(float(area) / len(outlines), 6)}
               for entry, area in zip(summary['classes'], areas, strict=True)]
    overlay = folder / f'{file.stem}.overlay.mp4'
    with atomic_path(overlay) as part:
        draw_video(cv2.VideoCapture(str(file)), frames, classes, args, part, rate / args.every)
    warn_of_unreliable(outlines)
    text = json.dumps({'frames': len(outlines), 'classes': classes}, indent=1, ensure_ascii=False)
    (folder / f'{file.stem}.json').write_text(f'{text}\n', encoding='utf-8')
    return overlay


def draw_video(video: cv2.VideoCapture, frames: Path, classes: list[dict], args: Namespace, file: Path, rate: float
               ) -> None:
    """Write the overlays of a video's frames, with one legend.

    Args:
        frames: folder of the frames' labels.
        classes: their `name`, `colour` and `area`.
        rate: frames a second.
    """
    entries, colours = legend_entries(classes, len(classes)), [entry['colour'] for entry in classes]
    writer = None
    for index, frame in read_frames(video, args.every):
        with Image.open(frames / f'{index:06d}.labels.png') as labels:
            drawn = drawing.overlay(frame, np.asarray(labels), colours, args.opacity)
        if writer is None:
            legend = drawing.legend(entries, frame.shape[1], max(12, frame.shape[1] // 40))
        bgr = np.asarray(drawing.stack([drawn, legend]))[..., ::-1]
        bgr = np.pad(bgr, ((0, bgr.shape[0] % 2), (0, bgr.shape[1] % 2), (0, 0)))  # codecs need even sides
        if writer is None:
            writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*'mp4v'), rate, bgr.shape[1::-1])
        writer.write(bgr)
    writer.release()


def read_frames(video: cv2.VideoCapture, every: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the index and (H, W, 3) RGB of every Nth frame, up to the first that cannot be read."""
    for index in count():
        if not video.grab():
            return
        if index % every == 0:
            readable, frame = video.retrieve()
            if not readable:
                return
            yield index, np.ascontiguousarray(frame[..., ::-1])
