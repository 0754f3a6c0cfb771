#!/usr/bin/env python3
"""Draws what the pipeline of a config sees: `python tools/browse_dataset.py CONFIG --out DIR`.

Each image shows a sample as it lies on the disk and as the model gets it, both under the colours of its mask, with a
legend of the class names. Needs no CLIP and no GPU.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, whoever else has one
import numpy as np
from mmseg.utils import get_root_logger
from PIL import Image

from datasets import SeededSamples, ZeroShotDataset
from datasets.several import parts_of
from datasets.zero_shot import warn_of_missing_classes
from models.errors import UserError
from tools.engine import process
from tools.engine.build import dataset_facts
from tools.engine.config import add_config_arguments, load_config
from tools.engine.data import evaluation_dataset, training_dataset
from tools.engine.panels import overlay, side_by_side


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw what the pipeline of a config sees.')
    add_config_arguments(parser)
    parser.add_argument('--part', choices=['train', 'val', 'test'], default='train', help='(default: %(default)s)')
    parser.add_argument('--out', metavar='DIR', required=True, help='folder for the images')
    parser.add_argument('--count', type=process.at_least_one, default=20,
                        help='how many, taken at even distances from the whole (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the random crops and flips (default: %(default)s)')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the class colours, in (0, 1] (default: 0.5)')
    return parser.parse_args()


def seen_by_model(sample: dict) -> tuple[np.ndarray, np.ndarray | None]:
    """What a pipeline returns -> the image (H, W, 3) uint8, RGB, and its mask (H, W), if training gets one."""
    image, meta = sample['img'], sample['img_metas']
    image, meta = (image[0], meta[0]) if isinstance(image, list) else (image, meta)  # a test pipeline's list of views
    meta = meta.data
    pixels = (image.data if hasattr(image, 'data') else image).numpy().transpose(1, 2, 0)
    norm = meta['img_norm_cfg']
    shown = np.round(pixels * norm['std'] + norm['mean']).clip(0, 255).astype(np.uint8)
    shown = shown if norm['to_rgb'] else shown[..., ::-1]
    height, width = meta['img_shape'][:2]
    shown[height:] = shown[:, width:] = 0  # padding
    labels = sample.get('gt_semantic_seg')
    return shown, None if labels is None else labels.data.numpy()[0]


def draw(dataset: ZeroShotDataset, samples: SeededSamples, index: int, opacity: float) -> Image.Image:
    """One sample, on the disk and as the model gets it."""
    image, labels = seen_by_model(samples[0, index])  # first: it says which file is broken
    on_disk = dataset.image(index)
    truth = dataset.true_labels(index)
    palette = dataset.PALETTE
    panels = {'on the disk': overlay(on_disk, truth, palette, opacity) if truth is not None
              else Image.fromarray(on_disk)}
    panels[f'as the model gets it, {image.shape[1]}x{image.shape[0]}'] = (
        overlay(image, labels, palette, opacity) if labels is not None else Image.fromarray(image))
    present = {index for mask in (truth, labels) if mask is not None for index in np.unique(mask)}
    return side_by_side(panels, present, split=dataset.facts.split, palette=palette)


def main() -> None:
    args = parse_arguments()
    if not 0 < args.opacity <= 1:
        raise UserError(f'--opacity {args.opacity} is not in (0, 1].')
    config = load_config(args)
    folder = process.make_folder(args.out)
    dataset_facts(config)  # a dataset of this project, or a message that says so
    dataset = training_dataset(config) if args.part == 'train' else \
        evaluation_dataset(config, args.part, scored=False)
    datasets = list(parts_of(dataset))
    if all(part.ann_dir is not None for part in datasets):
        split = datasets[0].facts.split
        wanted = split.seen if args.part == 'train' else range(len(split.names))
        warn_of_missing_classes(datasets, wanted, get_root_logger())
    parts = [(part, index) for part in datasets for index in range(len(part))]
    chosen = np.linspace(0, len(parts) - 1, min(args.count, len(parts))).round().astype(int)
    for part, index in (parts[place] for place in chosen):
        name = Path(part.img_infos[index]['filename']).with_suffix('.png')
        draw(part, SeededSamples(part, args.seed), index, args.opacity).save(folder / '_'.join(name.parts))
    get_root_logger().info('%d of %d images of data.%s: %s', len(chosen), len(parts), args.part, folder)


if __name__ == '__main__':
    process.run(main)
