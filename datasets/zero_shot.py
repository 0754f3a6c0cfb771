"""A dataset with seen and unseen classes: its arguments, its samples, and the report of the scores."""
import os
from collections.abc import Sequence
from inspect import signature

import numpy as np
import torch
from mmcv.utils import print_log
from mmseg.core import pre_eval_to_metrics
from mmseg.datasets import DATASETS, CustomDataset
from PIL import Image
from prettytable import PrettyTable

from models.errors import UserError
from models.inference.pictures import opened

from . import whereabouts
from .class_split import ClassSplit, DatasetFacts, listed
from .files import pictures_in, require, some
from .loading import LoadLabels, LoadPicture, MaskColours, upright_size
from .metrics import mean_of, zero_shot_scores

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
    """mmseg's dataset of pictures and masks, with a split; with its arguments, the data set of anyone.

    A subclass names CLASSES, PALETTE, UNSEEN and PROMPT_SET; a config may name them.

    Args:
        classes: class names in the order of the mask's ids, or a text file of them, one a line. A subclass's own
            may be renamed so, not chosen from; the renamed ones stay seen or unseen.
        unseen: those of them whose masks training must not show, or a text file of them.
        prompt_set: name of a set of `datasets.prompts`, a list of texts such as 'a photo of a {}', or a text file.
        palette: a colour (red, green, blue) for each class.
        colour_masks: the masks are pictures in the colours of `palette`, not of class ids.
        ignored_colours: colours of such masks that are no class.

    Raises:
        UserError: a folder, a split file, a picture or a mask is missing, or the split does not fit the classes.
    """

    UNSEEN: tuple[str, ...] = ()
    PROMPT_SET = 'single'

    def __init__(self, *, classes: Sequence[str] | str | None = None, unseen: Sequence[str] | None = None,
                 prompt_set: str | Sequence[str] | None = None, palette: Sequence[Sequence[int]] | None = None,
                 colour_masks: bool = False, ignored_colours: Sequence[Sequence[int]] = (), **kwargs):
        self.facts = self.describe(classes, unseen, prompt_set)
        self.mask_colours = None
        if colour_masks:
            if palette is None or kwargs.get('reduce_zero_label'):
                raise UserError('colour_masks=True needs palette=[[red, green, blue], ...], one colour a class, and '
                                 'no reduce_zero_label: list background in ignored_colours.')
            self.mask_colours = MaskColours(palette, ignored_colours)
        if palette is not None and len(palette) != len(self.facts.split.names):
            raise UserError(f'palette has {len(palette)} colours for {len(self.facts.split.names)} classes: one '
                             'colour a class is needed.')
        known = {*signature(ZeroShotDataset).parameters, *signature(CustomDataset).parameters} - {'kwargs'}
        unknown = [name for name in kwargs if name not in known]
        if unknown:
            raise UserError(f'{type(self).__name__} has no argument {", ".join(unknown)}; there are '
                             f'{", ".join(sorted(known))}.')
        super().__init__(palette=palette, **kwargs)
        self.gt_seg_map_loader = LoadLabels(reduce_zero_label=False)

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

    def load_annotations(self, img_dir, img_suffix, ann_dir, seg_map_suffix, split):
        """mmseg's list of samples; every file of it is looked for."""
        remedy = 'Check data_root (or --data-root) and the folders in the config; the README has the layouts of the ' \
                 'benchmarks.'
        for option, suffix in (('img_suffix', img_suffix), ('seg_map_suffix', seg_map_suffix)):
            if '.' not in suffix:
                raise UserError(f'{option}={suffix!r}: the dot belongs to it, as in {"." + suffix!r}.')
        for what, folder in (('pictures', img_dir), ('masks', ann_dir)):
            if folder is not None and not os.path.isdir(folder):
                raise UserError(f'no folder {folder} of {what}. {remedy}')
        if split is not None and not os.path.isfile(split):
            raise UserError(f'no split file {split}. {remedy}')
        names = [] if split is not None else pictures_in(img_dir, img_suffix)
        samples = super().load_annotations(img_dir, img_suffix, ann_dir, seg_map_suffix, split)
        samples = [sample for sample in samples if sample['filename'] != img_suffix]  # a blank line of the split
        if not samples:
            where = f'split file {split}' if split is not None else f'folder {img_dir}'
            raise UserError(f'the {where} names no picture. {remedy}')
        lost = sorted({*names} - {sample['filename'] for sample in samples})  # mmseg leaves them out without a word
        if lost:
            raise UserError(f'{img_dir}: links to no picture: {some(lost)}. Mend or remove them.')
        require(img_dir, [sample['filename'] for sample in samples], 'picture', 'img_suffix')
        if ann_dir is not None:
            require(ann_dir, [sample['ann']['seg_map'] for sample in samples], 'mask', 'seg_map_suffix')
        return samples

    def pre_pipeline(self, results: dict) -> None:
        super().pre_pipeline(results)
        results['num_classes'] = len(self.CLASSES)
        results['reduce_zero_label'] = self.reduce_zero_label
        results['mask_colours'] = self.mask_colours

    def __getitem__(self, index: int) -> dict:
        """The sample, as the pipeline makes it; meanwhile others can read which it is."""
        with whereabouts.at(self.picture_path(index), *([] if self.test_mode else [self.mask_path(index)])):
            return super().__getitem__(index)

    def picture_path(self, index: int) -> str:
        return os.path.join(self.img_dir, self.img_infos[index]['filename'])

    def mask_path(self, index: int) -> str:
        return os.path.join(self.ann_dir, self.img_infos[index]['ann']['seg_map'])

    def picture(self, index: int) -> np.ndarray:
        """The picture (H, W, 3), RGB, as it is loaded."""
        return LoadPicture()({'img_prefix': self.img_dir, 'img_info': self.img_infos[index]})['img'][..., ::-1]

    def get_gt_seg_map_by_idx(self, index: int) -> np.ndarray:
        """Mask (H, W) as it lies on disk, of the size of its picture."""
        labels = super().get_gt_seg_map_by_idx(index)
        path = self.picture_path(index)
        with opened(path, path) as image:
            size = upright_size(image)
        if labels.shape != size:
            raise UserError(f'{self.mask_path(index)}: the mask is {labels.shape[1]}x{labels.shape[0]} pixels, its '
                             f'picture {size[1]}x{size[0]}. They must be of one size.')
        return labels

    def true_labels(self, index: int) -> np.ndarray | None:
        """Mask (H, W) in class indices, 255 for no class; None for a dataset without masks."""
        if self.ann_dir is None:
            return None
        labels = self.get_gt_seg_map_by_idx(index)
        if self.reduce_zero_label:
            labels = np.where(labels == 0, 255, labels.astype(int) - 1)
            labels[labels == 254] = 255
        return labels

    def format_results(self, results, imgfile_prefix, indices=None, **kwargs) -> list[str]:
        """Label maps (H, W) -> PNG files with the dataset's own label ids, the format of a test server."""
        os.makedirs(imgfile_prefix, exist_ok=True)
        files = []
        for labels, index in zip(results, indices if indices is not None else range(len(self)), strict=True):
            stem = os.path.splitext(self.img_infos[index]['filename'])[0].replace('/', '_')
            files.append(os.path.join(imgfile_prefix, f'{stem}.png'))
            Image.fromarray((labels + self.reduce_zero_label).astype(np.uint8)).save(files[-1])
        return files

    def pre_eval(self, preds, indices) -> list[tuple[np.ndarray, ...]]:
        """For each label map (H, W): pixels (C,) int64 of intersection, union, prediction and truth of each class.

        mmseg gives tensors; kept over thousands of pictures, each keeps the memory beside it from being used again.
        """
        return [tuple(area.numpy().astype(np.int64) for area in areas) for areas in super().pre_eval(preds, indices)]

    def evaluate(self, results, metric='mIoU', logger=None, **kwargs) -> dict[str, float]:
        """Scores as fractions rounded to 1e-4, and the table of them into the log.

        Args:
            results: per picture what `pre_eval` returns, or the predicted label map (H, W).
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
        """Per class values with the side of the class, then the summary; in percent. Without unseen no sides."""
        unseen = self.facts.split.unseen
        table = PrettyTable(['class', *(['side'] if unseen else []), *per_class])
        table.align = 'r'
        table.align['class'] = 'l'
        for index, label in enumerate(self.CLASSES):
            side = ['unseen' if index in unseen else 'seen'] if unseen else []
            table.add_row([label, *side, *(percent(values[index]) for values in per_class.values())],
                          divider=index == len(self.CLASSES) - 1)
        blank = [''] * (len(per_class) - 1)
        for name, value in scores.items():
            if unseen or name not in ('mIoU_seen', 'mIoU_unseen', 'hIoU'):
                table.add_row([name.replace('_', ' '), *([''] if unseen else []), percent(value), *blank])
        return table.get_string()


def percent(value: float) -> str:
    """Two digits, '-' for a score that does not exist (nan)."""
    return '-' if np.isnan(value) else f'{100 * value:.2f}'
