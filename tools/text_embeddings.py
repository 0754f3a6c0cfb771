#!/usr/bin/env python3
"""Text embeddings of class names: `python tools/text_embeddings.py CLASSES --out FILE.npy [--clip FILE]`.

CLASSES is a dataset's name, a config, or a text file of class names, one a line; "sofa, couch" is one class with two
names, whose embedding is the mean over both. Configs read the file as `load_text_embedding`. Beside it comes FILE.png,
the similarity of each class to each.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, whoever else has one
import matplotlib

matplotlib.use('Agg')
import numpy as np
from matplotlib import font_manager
from matplotlib import pyplot as plt
from mmcv import Config
from mmseg.utils import get_root_logger

from datasets import BY_NAME, ClassSplit, DatasetFacts
from models.class_names import PROMPT_SETS, lines_of
from models.errors import UserError
from models.weights import files
from models.weights.clip_variant import text_options
from tools.engine import process
from tools.engine.build import cached_embeddings, dataset_facts
from tools.engine.clip_sizes import require_clip
from tools.engine.config import IS_RUN, REPOSITORY, load_config

CLIP = 'pretrained/ViT-B-16.pt'


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Compute the text embeddings of class names.')
    parser.add_argument('classes', metavar='CLASSES',
                        help=f'{", ".join(BY_NAME)}, a text file of class names, one a line, or a config (.py): '
                             f'{IS_RUN}')
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.npy', help='(classes, width) float32')
    parser.add_argument('--clip', metavar='FILE', help="CLIP by OpenAI or open_clip, or one of the authors' CLIP-RC "
                                                       f"checkpoints (default: the config's, or {CLIP})")
    parser.add_argument('--clip-name', metavar='NAME', help="open_clip's name of a CLIP that open_clip saved, such as "
                                                            'ViT-B-16/laion2b_s34b_b88k (default: the config\'s)')
    parser.add_argument('--prompts', metavar='SET',
                        help=f'{", ".join(PROMPT_SETS)}, or a text file of prompts such as "a photo of a {{}}", one a '
                             "line (default: the dataset's; for a text file of classes: coco15)")
    args = parser.parse_args()
    if args.out.suffix != '.npy':
        raise UserError(f'--out {args.out}: the name must end in .npy.')
    return args


def facts_of(classes: str, prompts: str | None) -> tuple[DatasetFacts, Config | None]:
    """Class names and prompts of the command line, and the config, if it is one.

    Raises:
        UserError: no such dataset or file, or names or prompts that are none.
    """
    config = None
    if classes in BY_NAME:
        facts = BY_NAME[classes].describe()
    elif classes.endswith('.py'):
        config = load_config(argparse.Namespace(config=classes, data_root=None, options=[], cfg_options=[]))
        facts = dataset_facts(config)
    elif Path(classes).is_file():
        facts = DatasetFacts(ClassSplit(tuple(lines_of(classes, 'class names'))), 'coco15')
    else:
        raise UserError(f'{classes} is no dataset ({", ".join(BY_NAME)}), no config and no text file of class names.')
    if prompts is not None:
        facts = DatasetFacts(facts.split, prompts)
    return facts, config


def draw(rows: np.ndarray, names: tuple[str, ...], file: Path) -> None:
    """The cosine similarity of each class to each, as an image; a name that the font lacks is shown as its index."""
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similarity = directions @ directions.T
    side = max(4., 0.16 * len(names)) + 2.5  # inches
    figure, axes = plt.subplots(figsize=(side + 0.8, side), layout='constrained')
    others = similarity[~np.eye(len(names), dtype=bool)]
    image = axes.imshow(similarity, cmap='viridis', vmin=others.min() if len(names) > 1 else 0,
                        vmax=others.max() if len(names) > 1 else 1)
    glyphs = font_manager.get_font(font_manager.findfont('DejaVu Sans')).get_charmap()  # comes with matplotlib
    labels = [name if all(ord(letter) in glyphs for letter in name) else f'class {index}'
              for index, name in enumerate(names)]
    axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.set_title(f'cosine similarity of the text embeddings of {len(names)} classes')
    figure.colorbar(image, ax=axes, shrink=0.6)
    figure.savefig(file, dpi=100)
    plt.close(figure)


def nearest(rows: np.ndarray, names: tuple[str, ...], count: int = 5) -> list[str]:
    """The pairs of classes that are most alike, `a ~ b 0.95`."""
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    first, second = np.triu_indices(len(names), k=1)
    similarity = (directions[first] * directions[second]).sum(axis=1)
    return [f'{names[first[pair]]} ~ {names[second[pair]]} {similarity[pair]:.3f}'
            for pair in (-similarity).argsort()[:count]]


def main() -> None:
    args = parse_arguments()
    facts, config = facts_of(args.classes, args.prompts)
    model = config.model if config is not None else {}
    clip = args.clip or require_clip(model.get('pretrained_text') or model.get('pretrained') or str(REPOSITORY / CLIP),
                                      '--clip FILE')
    logger = get_root_logger()
    source = files.read(clip)
    told = {} if args.clip else text_options(model)  # the config tells nothing of another file
    if args.clip_name:
        told['name'] = args.clip_name
    process.make_folder(args.out.absolute().parent)
    rows = cached_embeddings(source, facts, **told).numpy()
    part = args.out.with_name(f'.{args.out.name}.part')
    with part.open('wb') as stream:
        np.save(stream, rows)
    part.replace(args.out)
    image = args.out.with_suffix('.png')
    draw(rows, facts.split.names, image)
    logger.info('text embeddings %s: %s; similarities: %s', rows.shape, args.out, image)
    logger.info('most alike: %s', '; '.join(nearest(rows, facts.split.names)))


if __name__ == '__main__':
    process.run(main)
