"""A dataset with seen and unseen classes: its arguments, its samples, and the report of the scores."""
import logging
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from inspect import signature

import numpy as np
import torch
from mmcv.utils import print_log
from mmseg.core import pre_eval_to_metrics
from mmseg.datasets import DATASETS, CustomDataset
from mmseg.utils import get_root_logger
from PIL import Image
from prettytable import PrettyTable

from models.errors import UserError
from models.image_io import opened
from models.label_format import label_format
from models.text_files import read_text

from .class_split import ClassSplit, DatasetFacts, listed
from .files import images_in, require, some
from .loading import LoadImage, MaskColours, MaskIds, check_size, checked_colours, load_mask, upright_size
from .metrics import areas, mean_of, zero_shot_scores
from .pipeline import fitted

METRICS = ('mIoU', 'mDice', 'mFscore')


def check_metrics(metrics: str | Sequence[str]) -> list[str]:
    """The metrics as a list.

    Raises:
        UserError: one is unknown.
    """
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise UserError(f'unknown metric {", ".join(unknown)}; there are {", ".join(METRICS)}.')
    return metrics


@DATASETS.register_module()
class ZeroShotDataset(CustomDataset):
    """mmseg's dataset of images and masks, with a split; with its arguments, the dataset of anyone.

    A subclass names CLASSES, PALETTE, UNSEEN and PROMPT_SET; a config may name them.

    Args:
        classes: class names in the order of the mask's ids, or a text file of them, one a line. A subclass's own
            may be renamed so, not chosen from; the renamed ones stay seen or unseen.
        unseen: those of them whose masks training must not show, or a text file of them.
        prompt_set: name of a set of `datasets.prompts`, a list of texts such as 'a photo of a {}', or a text file.
        palette: a colour (red, green, blue) for each class.
        reduce_zero_label: id 0 of the masks is no class, and the classes count from 1.
        ignore_index: the id of pixels of no class in the masks (default: 255, or 65535 where 8 bits do not hold the
            classes).
        colour_masks: the masks are images in the colours of `palette`, not of class ids.
        ignored_colours: colours of such masks that are no class.

    Attributes:
        ignore_index: the value of pixels of no class in label maps as they are loaded and predicted, see
            `models.label_format`.

    Raises:
        UserError: a folder, a split file, an image or a mask is missing, the split does not fit the classes, or the
            pipeline says other things of the masks than the dataset does.
    """

    UNSEEN: tuple[str, ...] = ()
    PROMPT_SET = 'single'

    def __init__(self, *, pipeline: Sequence[dict], classes: Sequence[str] | str | None = None,
                 unseen: Sequence[str] | None = None, prompt_set: str | Sequence[str] | None = None,
                 palette: Sequence[Sequence[int]] | None = None, reduce_zero_label: bool = False,
                 ignore_index: int | None = None, colour_masks: bool = False,
                 ignored_colours: Sequence[Sequence[int]] = (), **kwargs):
        self.facts = self.describe(classes, unseen, prompt_set)
        names = self.facts.split.names
        if not isinstance(reduce_zero_label, bool):
            raise UserError(f'reduce_zero_label={reduce_zero_label!r} is neither True nor False.')
        if colour_masks:
            if palette is None or reduce_zero_label or ignore_index is not None:
                raise UserError('colour_masks=True needs palette=[[red, green, blue], ...], one colour a class, and '
                                'neither reduce_zero_label nor ignore_index: list background in ignored_colours.')
            self.masks = MaskColours(palette, ignored_colours)
        else:
            self.masks = MaskIds(names, reduce_zero_label=reduce_zero_label, ignore_index=ignore_index)
        if palette is not None and len(checked_colours(palette)) != len(names):
            raise UserError(f'palette has {len(palette)} colours for {len(names)} classes: one colour a class is '
                            'needed.')
        known = {*signature(ZeroShotDataset).parameters, *signature(CustomDataset).parameters} - {
            'kwargs', 'gt_seg_map_loader_cfg', 'file_client_args'}  # masks and images are read from the disk, one way
        unknown = [name for name in kwargs if name not in known]
        if unknown:
            raise UserError(f'{type(self).__name__} has no argument {", ".join(unknown)}; there are '
                            f'{", ".join(sorted(known))}.')
        for option in ('img_dir', 'ann_dir', 'split'):
            if isinstance(kwargs.get(option), (list, tuple)):
                raise UserError(f'{option}={kwargs[option]!r}: where folders are lists, img_dir or split must be one, '
                                'and the others as long, or no lists; each place of the lists is a dataset.')
        super().__init__(pipeline=fitted(pipeline, reduce_zero_label, self.masks, type(self).__name__),
                         palette=palette, reduce_zero_label=reduce_zero_label,
                         ignore_index=label_format(len(names)).ignore, **kwargs)

    @classmethod
    def describe(cls, classes: Sequence[str] | str | None = None, unseen: Sequence[str] | None = None,
                 prompt_set: str | Sequence[str] | None = None) -> DatasetFacts:
        """The facts of a dataset with these arguments, without building it."""
        names = cls.CLASSES if classes is None else classes
        names = listed(names, 'class names')
        if not names:
            raise UserError(f'{cls.__name__} needs the names of its classes: classes=[...].')
        if cls.CLASSES is not None and len(names) != len(cls.CLASSES):
            raise UserError(f'{cls.__name__} has {len(cls.CLASSES)} classes, classes=[...] names {len(names)}: it may '
                            'rename them, all of them, in their order. For a choice of them make masks of your own, '
                            'with type=\'ZeroShotDataset\'.')
        if unseen is None:
            unseen = [names[cls.CLASSES.index(name)] for name in cls.UNSEEN]
        split = ClassSplit(tuple(names), tuple(listed(unseen, 'unseen class names')))
        return DatasetFacts(split, cls.PROMPT_SET if prompt_set is None else prompt_set)

    def get_classes_and_palette(self, classes=None, palette=None):
        """The names of the classes, which a config may change, and a colour for each, drawn where nobody names one."""
        self.custom_classes = False  # mmseg's word for a choice of the classes
        names = self.facts.split.names
        if palette is None:
            palette = self.PALETTE or np.random.default_rng(42).integers(0, 255, (len(names), 3)).tolist()
        return names, palette

    def load_annotations(self, img_dir, img_suffix, ann_dir, seg_map_suffix, split) -> list[dict]:
        """mmseg's list of samples; every file of it is looked for, none is taken twice."""
        remedy = 'Check data_root (or --data-root) and the folders in the config; the README has the layouts of the ' \
                 'benchmarks.'
        for option, suffix in (('img_suffix', img_suffix), ('seg_map_suffix', seg_map_suffix)):
            if '.' not in suffix:
                raise UserError(f'{option}={suffix!r}: the dot belongs to it, as in {"." + suffix!r}.')
        for what, folder in (('images', img_dir), ('masks', ann_dir)):
            if folder is not None and not os.path.isdir(folder):
                raise UserError(f'no folder {folder} of {what}. {remedy}')
        if ann_dir is not None and os.path.realpath(ann_dir) == os.path.realpath(img_dir) and \
                img_suffix == seg_map_suffix:
            raise UserError(f'{img_dir} is the folder of both images and masks, and so are their endings '
                            f'({img_suffix}): name another img_suffix or seg_map_suffix, such as \'_mask.png\'.')
        if split is not None and not os.path.isfile(split):
            raise UserError(f'no split file {split}. {remedy}')
        if split is None:
            names = images_in(img_dir, img_suffix, ann_dir, seg_map_suffix)
            stems = [name.removesuffix(img_suffix) for name in names]
        else:
            stems = [line.strip().replace('\\', '/') for line in read_text(split).splitlines() if line.strip()]
        where = f'split file {split}' if split is not None else f'folder {img_dir}'
        if not stems:
            raise UserError(f'the {where} names no image. {remedy}')
        twice = [stem for stem, count in Counter(stems).items() if count > 1]
        if twice:
            print_log(f'the {where} names {len(twice)} images more than once, which count once: {some(twice)}',
                      logger=get_root_logger(), level=logging.WARNING)
        samples = [{'filename': stem + img_suffix,
                    **({} if ann_dir is None else {'ann': {'seg_map': stem + seg_map_suffix}})}
                   for stem in dict.fromkeys(stems)]
        require(img_dir, [sample['filename'] for sample in samples], 'image', 'img_suffix')
        if ann_dir is not None:
            require(ann_dir, [sample['ann']['seg_map'] for sample in samples], 'mask', 'seg_map_suffix')
        print_log(f'Loaded {len(samples)} images', logger=get_root_logger())
        return samples

    def pre_pipeline(self, results: dict) -> None:
        super().pre_pipeline(results)
        results['masks'] = self.masks

    def prepare_test_img(self, index: int) -> dict:
        """The sample as lists of views; a pipeline without `MultiScaleFlipAug` makes one view."""
        sample = super().prepare_test_img(index)
        return sample if isinstance(sample['img'], list) else {name: [value] for name, value in sample.items()}

    def locate(self, index: int) -> tuple[str, 'ZeroShotDataset', int]:
        """As `SeveralDatasets.locate`."""
        return '', self, index

    def image_path(self, index: int) -> str:
        return os.path.join(self.img_dir, self.img_infos[index]['filename'])

    def mask_path(self, index: int) -> str:
        return os.path.join(self.ann_dir, self.img_infos[index]['ann']['seg_map'])

    def image(self, index: int) -> np.ndarray:
        """The image (H, W, 3), RGB, as it is loaded."""
        return LoadImage()({'img_prefix': self.img_dir, 'img_info': self.img_infos[index]})['img'][..., ::-1]

    def get_gt_seg_map_by_idx(self, index: int) -> np.ndarray:
        """Mask (H, W) in class indices, `ignore_index` for no class, of the size of its image."""
        labels = load_mask(self.mask_path(index), self.masks)
        path = self.image_path(index)
        with opened(path, path) as image:
            check_size(self.mask_path(index), labels, upright_size(image))
        return labels

    def true_labels(self, index: int) -> np.ndarray | None:
        """The same; None for a dataset without masks."""
        return None if self.ann_dir is None else self.get_gt_seg_map_by_idx(index)

    def format_results(self, results, imgfile_prefix, indices=None, **kwargs) -> list[str]:
        """Label maps (H, W) -> PNG files with the dataset's own label ids, the format of a test server."""
        first = int(self.reduce_zero_label)
        dtype, files = label_format(first + len(self.CLASSES)).dtype, []
        for labels, index in zip(results, indices if indices is not None else range(len(self)), strict=True):
            files.append(os.path.join(imgfile_prefix, os.path.splitext(self.img_infos[index]['filename'])[0] + '.png'))
            os.makedirs(os.path.dirname(files[-1]), exist_ok=True)
            Image.fromarray(labels.astype(dtype) + dtype(first)).save(files[-1])
        return files

    def pre_eval(self, preds, indices) -> list[tuple[np.ndarray, ...]]:
        """For each label map (H, W): pixels (C,) int64 of intersection, union, prediction and truth of each class."""
        preds, indices = ([value] if not isinstance(value, list) else value for value in (preds, indices))
        return [areas(np.asarray(labels), self.get_gt_seg_map_by_idx(index), len(self.CLASSES))
                for labels, index in zip(preds, indices, strict=True)]

    def evaluate(self, results, metric='mIoU', logger=None, **kwargs) -> dict[str, float]:
        """Scores as fractions rounded to 1e-4, and the table of them into the log.

        Args:
            results: per image what `pre_eval` returns, or the predicted label map (H, W).
            metric: 'mIoU', 'mDice', 'mFscore', or several.

        Returns:
            `aAcc`, `mIoU`, `mAcc`, `mIoU_seen`, `mIoU_unseen`, `hIoU`, then `IoU.<class>` and `Acc.<class>`.

        Raises:
            UserError: an unknown metric.
        """
        metrics = check_metrics(metric)
        if isinstance(results[0], np.ndarray):
            results = self.pre_eval(results, list(range(len(results))))
        totals = tuple(torch.from_numpy(sum(areas).astype(float)) for areas in zip(*results, strict=True))
        absent = [name for name, true in zip(self.CLASSES, totals[3].tolist(), strict=True) if not true]
        if absent:
            print_log(f'no mask holds a pixel of: {some(absent)}. Their IoU is 0 where they are predicted, and does '
                      'not count where they are not', logger=logger, level=logging.WARNING)
        per_class = {name: np.asarray(values, dtype=float) for name, values
                     in pre_eval_to_metrics([totals], metrics).items()}
        scores = {'aAcc': float(per_class.pop('aAcc'))}
        order = sorted(per_class, key=('IoU', 'Acc').__contains__, reverse=True)  # IoU and Acc first
        scores |= {f'm{name}': mean_of(per_class[name], range(len(self.CLASSES))) for name in order}
        split = self.facts.split
        if 'IoU' in per_class:
            scores |= zero_shot_scores(per_class['IoU'], split.seen, split.unseen)
        print_log('\n' + self._table(scores, {name: per_class[name] for name in order}), logger=logger)
        scores |= {f'{name}.{label}': float(value) for name in order
                   for label, value in zip(self.CLASSES, per_class[name], strict=True)}
        return {name: round(value, 4) for name, value in scores.items()}

    def _table(self, scores: dict[str, float], per_class: dict[str, np.ndarray]) -> str:
        """Write values per class, with sides if a class is unseen, then the summary: fractions, as in logs and JSON."""
        unseen = self.facts.split.unseen
        table = PrettyTable(['class', *(['side'] if unseen else []), *per_class])
        table.align = 'r'
        table.align['class'] = 'l'
        for index, label in enumerate(self.CLASSES):
            side = ['unseen' if index in unseen else 'seen'] if unseen else []
            table.add_row([label, *side, *(fraction(values[index]) for values in per_class.values())],
                          divider=index == len(self.CLASSES) - 1)
        blank = [''] * (len(per_class) - 1)
        for name, value in scores.items():
            if unseen or name not in ('mIoU_seen', 'mIoU_unseen', 'hIoU'):
                table.add_row([name.replace('_', ' '), *([''] if unseen else []), fraction(value), *blank])
        return table.get_string()


def missing_classes(datasets: Sequence[ZeroShotDataset], wanted: Sequence[int], most: int = 2000
                    ) -> tuple[list[int], int]:
    """Look for masks that hold pixels of each class, in random order and no longer than one is missing.

    Args:
        wanted: indices of the classes.
        most: masks to look at.

    Returns:
        those of the classes that none of the masks holds, and how many masks were looked at.
    """
    places = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    missing, looked_at = set(wanted), 0
    for place in np.random.default_rng(0).permutation(len(places))[:most]:
        if not missing:
            break
        dataset, index = places[place]
        with suppress(UserError):  # of a damaged file, which is reported when its sample comes
            missing -= set(np.unique(load_mask(dataset.mask_path(index), dataset.masks)).tolist())
        looked_at += 1
    return sorted(missing), looked_at


def warn_of_missing_classes(datasets: Sequence[ZeroShotDataset], wanted: Sequence[int], logger) -> None:
    """Warn by name of the classes that the masks do not hold, see `missing_classes`."""
    missing, looked_at = missing_classes(datasets, wanted)
    if missing:
        names, masks = datasets[0].facts.split.names, datasets[0].masks
        count = sum(len(dataset) for dataset in datasets)
        of_all = f'none of the {count} masks' if looked_at == count else \
            f'none of {looked_at} of the {count} masks, taken at random,'
        logger.warning('%s holds a pixel of: %s. %s', of_all, some([names[index] for index in missing]),
                       f'{masks.void} is no class in them (ignore_index); do the ids of the masks mean these classes?'
                       if isinstance(masks, MaskIds) else 'Do the colours of the palette mean these classes?')


def fraction(value: float) -> str:
    """Four digits, '-' for a score that does not exist (nan)."""
    return '-' if np.isnan(value) else f'{value:.4f}'
