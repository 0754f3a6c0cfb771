#!/usr/bin/env python3
"""Text embeddings of a config's class names: `python tools/text_embeddings.py CONFIG --out FILE.npy`.

Class names and prompts are those of the config's data set, the text tower is that of its CLIP file
(`--cfg-options model.pretrained_text=FILE` names another). Configs read the file as `load_text_embedding`.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, whoever else has one
import tools  # noqa: F401  first: it quietens the imports below

# isort: split
import numpy as np
from mmseg.utils import get_root_logger

from tools import launch
from tools.config import add_config_arguments, load_config
from tools.model_builder import clip_embeddings, dataset_facts, text_source


def main() -> None:
    parser = argparse.ArgumentParser(description='Compute the text embeddings of a data set\'s class names.')
    add_config_arguments(parser)
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.npy', help='(classes, width) float32')
    args = parser.parse_args()
    if args.out.suffix != '.npy':
        raise ValueError(f'--out {args.out}: the name must end in .npy.')
    config = load_config(args)
    logger = get_root_logger(log_level=config.get('log_level', 'INFO'))
    rows = clip_embeddings(config, dataset_facts(config), text_source(config)).numpy()
    launch.make_folder(args.out.absolute().parent)
    part = args.out.with_name(f'.{args.out.name}.part')
    with part.open('wb') as stream:
        np.save(stream, rows)
    part.replace(args.out)
    logger.info('text embeddings %s: %s', rows.shape, args.out)


if __name__ == '__main__':
    launch.run(main)
