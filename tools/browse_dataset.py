#!/usr/bin/env python3
"""Draw samples of a config's dataset: `python tools/browse_dataset.py CONFIG --out DIR`.

Each image shows a sample as it lies on the disk and as the model gets it, with the colours of its mask and a legend of
the class names. It needs neither CLIP nor a GPU.
"""
import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, not an installed package
from tools.engine.arguments import add_config_arguments, positive_int
from tools.engine.errors import run

MIN_HEIGHT = 256  # pixels of an image beside another one


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw samples of a config's dataset, to check images and masks.")
    add_config_arguments(parser)
    parser.add_argument('--part', choices=['train', 'val', 'test'], default='train', help='(default: %(default)s)')
    parser.add_argument('--out', metavar='DIR', required=True, help='folder for an image NAME.png per sample')
    parser.add_argument('--count', type=positive_int, default=20,
                        help='number of samples, evenly spread over the dataset (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the random crops and flips (default: %(default)s)')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the class colours, in (0, 1] (default: 0.5)')
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    import numpy as np
    from mmseg.utils import get_root_logger

    from datasets import SeededSamples
    from datasets.several import parts_of, warn_of_missing_classes
    from models.errors import UserError
    from tools.engine.build import dataset_facts
    from tools.engine.config import load_config
    from tools.engine.data import evaluation_dataset, training_dataset
    from tools.engine.files import make_folder
    from tools.engine.panels import model_input, side_by_side
    if not 0 < args.opacity <= 1:
        raise UserError(f'--opacity {args.opacity} is not in (0, 1].')
    config, logger = load_config(args.config, args.cfg_options, args.data_root), get_root_logger()
    folder = make_folder(args.out)
    facts = dataset_facts(config)  # its message is clearer than mmseg's
    train = args.part == 'train'
    datasets = [*parts_of(training_dataset(config) if train else evaluation_dataset(config, args.part, scored=False))]
    if all(dataset.ann_dir is not None for dataset in datasets):
        warn_of_missing_classes(datasets, facts.split.seen if train else range(len(facts.scored.names)), logger)
    places = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    chosen = np.linspace(0, len(places) - 1, min(args.count, len(places))).round().astype(int)
    for dataset, index in (places[place] for place in chosen):
        name = Path(dataset.img_infos[index]['filename']).with_suffix('.png')
        sample = SeededSamples(dataset, args.seed)[0, index]  # first: its error names a damaged file
        image, labels = model_input(sample)
        stored = dataset.image(index)
        drawn = side_by_side({f'on the disk, {stored.shape[1]}x{stored.shape[0]}': (stored, dataset.true_labels(index)),
                              f'as the model gets it, {image.shape[1]}x{image.shape[0]}': (image, labels)},
                             dataset, args.opacity, height=max(len(image), MIN_HEIGHT))
        drawn.save(folder / '_'.join(name.parts))
    logger.info('%d of %d images of data.%s: %s', len(chosen), len(places), args.part, folder)


if __name__ == '__main__':
    run(main)
