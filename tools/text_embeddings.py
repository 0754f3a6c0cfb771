#!/usr/bin/env python3
"""Compute text embeddings of class names: `python tools/text_embeddings.py CLASSES --file FILE.npy [--clip FILE]`.

CLASSES is a dataset's name, a config, or a text file of class names, one a line; "sofa, couch" is one class with two
names, whose embedding is the mean of both. Configs read the file as `load_text_embedding`. Prints the most similar
pairs of classes; with `--similar`, on stdout, all pairs that CLIP can hardly tell apart.
"""
import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, before any installed one
from tools.engine.arguments import IS_RUN
from tools.engine.errors import run

CLIP = 'pretrained/ViT-B-16.pt'
ALIKE = 0.93  # see --similar
SHOWN, LISTED = 50, 1_000_000  # pairs on a terminal, and in a file


def cosine(text: str) -> float:
    """Read a cosine above 0 from the command line (an argument's `type`)."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a cosine above 0 and at most 1. CLASSES comes first')
    return value


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Compute the text embeddings of class names.')
    parser.add_argument('classes', metavar='CLASSES',
                        help='a dataset such as voc12, coco, context60 or context59, a text file of class names, one '
                             f'a line, or a config (.py): {IS_RUN}')
    parser.add_argument('--file', type=Path, metavar='FILE.npy', help='write them there: (classes, width) float32')
    parser.add_argument('--similar', type=cosine, nargs='?', const=ALIKE, metavar='COSINE',
                        help='print the pairs of classes whose embeddings have at least this cosine, the most alike '
                             f'first: cosine, class, class; {SHOWN} on a terminal, all with --similar > pairs.tsv. '
                             f'Default: {ALIKE}. For COCO-Stuff, CLIP ViT-B/16 and coco15 these are 39 of 14,535 pairs '
                             '(their median: 0.81): near synonyms (9 from 0.95 on: rock and stone, dining table and '
                             'table), and classes of one kind (car and truck, 0.94). From 0.9 on, 211 pairs, most are '
                             'of different things. Cosines depend on CLIP and prompts: those of single are lower, '
                             'typically by 0.01 to 0.05')
    parser.add_argument('--clip', metavar='FILE', help="CLIP by OpenAI or open_clip, or one of the authors' CLIP-RC "
                                                       f"checkpoints (default: the config's, or {CLIP})")
    parser.add_argument('--clip-name', metavar='NAME', help="open_clip's name of a CLIP that open_clip saved, such as "
                                                            "ViT-B-16/laion2b_s34b_b88k (default: the config's)")
    parser.add_argument('--prompts', metavar='SET',
                        help='single, coco15, imagenet80, or a text file of prompts such as "a photo of a {}", one a '
                             "line (default: the dataset's; coco15 for a text file of classes)")
    args = parser.parse_args()
    if args.file is None and args.similar is None:
        parser.error('nothing to do: --file FILE.npy writes the embeddings, --similar lists classes that are alike.')
    if args.file is not None and args.file.suffix != '.npy':
        parser.error(f'--file {args.file}: the name must end in .npy.')
    return args


def main() -> None:
    args = parse_arguments()
    import numpy as np
    from mmseg.utils import get_root_logger

    from datasets import BY_NAME, DatasetFacts, ZeroShotDataset
    from models.class_names import synonyms
    from models.errors import UserError
    from models.weights import files
    from models.weights.clip_sizes import require_clip
    from models.weights.clip_variant import text_encoder_of
    from tools.engine.build import dataset_facts
    from tools.engine.config import REPOSITORY, load_config
    from tools.engine.embeddings import cached_embeddings, similar_pairs
    from tools.engine.files import atomic_path, make_folder
    model = {}
    if args.classes in BY_NAME:
        facts = BY_NAME[args.classes].describe()
    elif args.classes.endswith('.py'):
        config = load_config(args.classes)
        facts, model = dataset_facts(config), config.model
    elif Path(args.classes).is_file():
        facts = ZeroShotDataset.describe(args.classes, prompt_set='coco15')
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
    if args.file is not None:
        make_folder(args.file.absolute().parent)
    rows, split, logger = cached_embeddings(encoder, facts, tower.path).numpy(), facts.split, get_root_logger()
    if args.file is not None:
        with atomic_path(args.file) as part:
            np.save(part, rows)
        logger.info('text embeddings %s: %s', rows.shape, args.file)
    names = [f'{name} (unseen)' if index in split.unseen else name for index, name in enumerate(split.names)]
    if args.similar is None:
        best = similar_pairs(rows, -1, most=5)
        logger.info('most alike: %s', '; '.join(
            f'{names[first]} ~ {names[second]} {value:.3f}'
            for (first, second), value in zip(best.pairs, best.cosines, strict=True)))
        return
    alike = similar_pairs(rows, args.similar, most=SHOWN if sys.stdout.isatty() else LISTED)
    for (first, second), value in zip(alike.pairs, alike.cosines, strict=True):
        print(f'{value:.3f}\t{names[first]}\t{names[second]}')
    sys.stdout.flush()
    total = alike.neighbours.sum() // 2
    logger.info('%s pairs of %s classes have a cosine of at least %g%s', f'{total:,}', f'{len(names):,}', args.similar,
                f'; {len(alike.pairs):,} of them are listed' if total > len(alike.pairs) else '')
    if several := [index for index in (-alike.neighbours).argsort(kind='stable') if alike.neighbours[index] > 1]:
        logger.info('alike to several: %s%s', ', '.join(f'{names[index]} ({alike.neighbours[index]})' for index in
                                                        several[:20]), f' and {len(several) - 20:,} more classes' if
                    len(several) > 20 else '')
    counts = Counter(part.casefold() for name in split.names for part in synonyms(name))
    if shared := [name for name, count in counts.items() if count > 1]:
        logger.info('names of several classes: %s', ', '.join(shared))


if __name__ == '__main__':
    run(main)
