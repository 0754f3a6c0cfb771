#!/usr/bin/env python3
"""Compute text embeddings of class names: `python tools/text_embeddings.py CLASSES --file FILE.npy [--clip FILE]`.

CLASSES is a dataset's name, a config, or a text file of class names, one a line; "sofa, couch" is one class with two
names, whose embedding is the mean of both. Configs read the file as `load_text_embedding`. Prints the most similar
pairs of classes.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, before any installed one
from tools.engine.arguments import IS_RUN
from tools.engine.errors import run

CLIP = 'pretrained/ViT-B-16.pt'


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Compute the text embeddings of class names.')
    parser.add_argument('classes', metavar='CLASSES',
                        help='a dataset such as voc12, coco, context60 or context59, a text file of class names, one '
                             f'a line, or a config (.py): {IS_RUN}')
    parser.add_argument('--file', type=Path, required=True, metavar='FILE.npy', help='(classes, width) float32')
    parser.add_argument('--clip', metavar='FILE', help="CLIP by OpenAI or open_clip, or one of the authors' CLIP-RC "
                                                       f"checkpoints (default: the config's, or {CLIP})")
    parser.add_argument('--clip-name', metavar='NAME', help="open_clip's name of a CLIP that open_clip saved, such as "
                                                            "ViT-B-16/laion2b_s34b_b88k (default: the config's)")
    parser.add_argument('--prompts', metavar='SET',
                        help='single, coco15, imagenet80, or a text file of prompts such as "a photo of a {}", one a '
                             "line (default: the dataset's; coco15 for a text file of classes)")
    args = parser.parse_args()
    if args.file.suffix != '.npy':
        parser.error(f'--file {args.file}: the name must end in .npy.')
    return args


def main() -> None:
    args = parse_arguments()
    import numpy as np
    from mmseg.utils import get_root_logger

    from datasets import BY_NAME, ClassSplit, DatasetFacts
    from models.class_names import lines_of
    from models.errors import UserError
    from models.weights import files
    from models.weights.clip_sizes import require_clip
    from models.weights.clip_variant import text_encoder_of
    from tools.engine.build import dataset_facts
    from tools.engine.config import REPOSITORY, load_config
    from tools.engine.embeddings import cached_embeddings
    from tools.engine.files import atomic_path, make_folder
    model = {}
    if args.classes in BY_NAME:
        facts = BY_NAME[args.classes].describe()
    elif args.classes.endswith('.py'):
        config = load_config(args.classes)
        facts, model = dataset_facts(config), config.model
    elif Path(args.classes).is_file():
        facts = DatasetFacts(ClassSplit(tuple(lines_of(args.classes, 'class names'))), 'coco15')
    else:
        raise UserError(f'{args.classes} is not a dataset ({", ".join(BY_NAME)}), a config or a text file of class '
                        'names.')
    if args.prompts is not None:
        facts = DatasetFacts(facts.split, args.prompts)
    clip = args.clip or require_clip(model.get('pretrained_text') or model.get('pretrained') or str(REPOSITORY / CLIP),
                                     '--clip FILE')
    described = {} if args.clip else {**model}  # the config does not describe another file
    if args.clip_name:
        described['clip_name'] = args.clip_name
    tower = files.read(clip)
    encoder = text_encoder_of(tower, described)
    make_folder(args.file.absolute().parent)
    rows, names, logger = cached_embeddings(encoder, facts, tower.path).numpy(), facts.split.names, get_root_logger()
    with atomic_path(args.file) as part:
        np.save(part, rows)
    logger.info('text embeddings %s: %s', rows.shape, args.file)
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = directions @ directions.T
    cosines[np.tril_indices(len(names))] = -np.inf  # each pair once
    best = zip(*np.unravel_index((-cosines).argsort(axis=None)[:5], cosines.shape))
    marked = [f'{name} (unseen)' if index in facts.split.unseen else name for index, name in enumerate(names)]
    logger.info('most alike: %s', '; '.join(f'{marked[first]} ~ {marked[second]} {cosines[first, second]:.3f}'
                                            for first, second in best if first < second))


if __name__ == '__main__':
    run(main)
