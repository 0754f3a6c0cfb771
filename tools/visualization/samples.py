"""Draw samples of a dataset, as files and as the pipeline gives them to the model."""
from pathlib import Path

import numpy as np
from mmcv import Config
from mmseg.utils import get_root_logger

from datasets import SeededSamples
from datasets.several import parts_of, warn_of_missing_classes
from tools.engine.build import dataset_facts
from tools.engine.data import evaluation_dataset, training_dataset
from tools.engine.panels import side_by_side


def browse(config: Config, part: str, folder: Path, *, count: int, seed: int, opacity: float) -> None:
    """Draw `count` samples of `data.<part>`, evenly spread over the dataset, into images NAME.png in `folder`.

    `seed` is that of crops and flips; `opacity` is that of the class colours, in (0, 1].

    Raises:
        UserError: the dataset is not one of this project, or a file is missing or damaged.
    """
    dataset_facts(config)  # its message is clearer than mmseg's
    dataset = training_dataset(config) if part == 'train' else evaluation_dataset(config, part, scored=False)
    datasets = list(parts_of(dataset))
    if all(one.ann_dir is not None for one in datasets):
        split = datasets[0].facts.split
        wanted = split.seen if part == 'train' else range(len(split.names))
        warn_of_missing_classes(datasets, wanted, get_root_logger())
    places = [(one, index) for one in datasets for index in range(len(one))]
    chosen = np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)
    for one, index in (places[place] for place in chosen):
        name = Path(one.img_infos[index]['filename']).with_suffix('.png')
        image, labels = model_input(SeededSamples(one, seed)[0, index])  # first: its error names a damaged file
        drawn = side_by_side({'on the disk': (one.image(index), one.true_labels(index)),
                              f'as the model gets it, {image.shape[1]}x{image.shape[0]}': (image, labels)},
                             one, opacity)
        drawn.save(folder / '_'.join(name.parts))
    get_root_logger().info('%d of %d images of data.%s: %s', len(chosen), len(places), part, folder)


def model_input(sample: dict) -> tuple[np.ndarray, np.ndarray | None]:
    """Undo the normalisation of a sample: image (H, W, 3) uint8, RGB, and, in training, its mask (H, W)."""
    image, meta = sample['img'], sample['img_metas']
    image, meta = (image[0], meta[0]) if isinstance(image, list) else (image, meta)  # a test pipeline's list of views
    pixels, norm = image.data.numpy().transpose(1, 2, 0), meta.data['img_norm_cfg']
    shown = np.round(pixels * norm['std'] + norm['mean']).clip(0, 255).astype(np.uint8)
    shown = shown if norm['to_rgb'] else shown[..., ::-1]
    height, width = meta.data['img_shape'][:2]
    shown[height:] = shown[:, width:] = 0  # padding
    labels = sample.get('gt_semantic_seg')
    return shown, None if labels is None else labels.data.numpy()[0]
