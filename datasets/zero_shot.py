"""A dataset with seen and unseen classes: its arguments, samples and scores."""
import logging
import os
from collections.abc import Mapping, Sequence
from inspect import signature

import numpy as np
import torch
from mmcv.utils import print_log
from mmseg.core import pre_eval_to_metrics
from mmseg.datasets import DATASETS, CustomDataset
from PIL import Image

from models.colours import class_colours
from models.errors import UserError
from models.image_io import opened

from .class_split import ClassSplit, DatasetFacts, listed, listed_classes
from .files import first, samples_of
from .loading import LoadImage, check_size, load_mask, upright_size
from .masks import MaskIds, masks_of
from .metrics import areas, check_metrics, mean_of, score_table, zero_shot_scores
from .pipeline import fitted


@DATASETS.register_module()
class ZeroShotDataset(CustomDataset):
    """Images and masks in folders, and a split of the classes, on top of mmseg's `CustomDataset`.

    Use it for your own data by its arguments alone. A subclass for a benchmark sets CLASSES, PALETTE, UNSEEN,
    PROMPT_SET, REDUCE_ZERO_LABEL, BACKGROUND and BACKGROUND_ID, which a config may override.

    Args:
        classes: class names in the order of the mask's ids, or a text file of them, one per line. For a subclass they
            rename its classes, all of them; the renamed ones stay seen or unseen.
        unseen: the classes whose masks training must not use, or a text file of them.
        prompt_set: name of a set in `models.class_names`, a list of texts such as 'a photo of a {}', or a text file.
        palette: a colour (red, green, blue) for each class.
        reduce_zero_label: id 0 of the masks is not a class, and the classes start at 1 (default: REDUCE_ZERO_LABEL).
        ignore_index: the id of pixels without a class in the masks (default: 255, or 65535 if the classes need 16
            bits).
        colour_masks: the masks are images in the colours of `palette` instead of class ids.
        ignored_colours: colours of such masks that stand for no class.
        background: classes whose pixels count as one class, background, in the masks and in the scores; for tests. The
            model is asked for each of them.
        background_id: the id of background in masks in which the classes of `background` have no ids of their own.

    Attributes:
        facts: class names, split, prompts and background.
        CLASSES, PALETTE: names and colours of the classes as scores and masks count them, see `DatasetFacts.scored`.
        ignore_index: the value of pixels without a class in label maps in memory, see `models.label_format`.

    Raises:
        UserError: a folder, split file, image or mask is missing, the split does not fit the classes, or the
            pipeline contradicts the dataset's arguments.
    """

    UNSEEN: tuple[str, ...] = ()
    PROMPT_SET = 'single'
    REDUCE_ZERO_LABEL = False
    BACKGROUND: tuple[str, ...] = ()
    BACKGROUND_ID: int | None = None

    def __init__(self, *, pipeline: Sequence[dict], classes: Sequence[str] | str | None = None,
                 unseen: Sequence[str] | None = None, prompt_set: str | Sequence[str] | None = None,
                 palette: Sequence[Sequence[int]] | None = None, reduce_zero_label: bool | None = None,
                 ignore_index: int | None = None, colour_masks: bool = False,
                 ignored_colours: Sequence[Sequence[int]] = (), background: Sequence[str] | str | None = None,
                 background_id: int | None = None, **kwargs):
        reduce_zero_label = self.REDUCE_ZERO_LABEL if reduce_zero_label is None else reduce_zero_label
        self.facts = self.describe(classes, unseen, prompt_set, background)
        if background_id is None and self.facts.background:
            background_id = self.BACKGROUND_ID
        if self.facts.background and not kwargs.get('test_mode'):
            raise UserError('background=[...] is for data.val and data.test: training needs a mask of each class.')
        self.masks = masks_of(self.facts, palette=palette, reduce_zero_label=reduce_zero_label,
                              ignore_index=ignore_index, colour_masks=colour_masks, ignored_colours=ignored_colours,
                              background_id=background_id)
        known = {*signature(ZeroShotDataset).parameters, *signature(CustomDataset).parameters} - {
            'kwargs', 'gt_seg_map_loader_cfg', 'file_client_args'}  # there is one way to read masks and images
        if unknown := [name for name in kwargs if name not in known]:
            raise UserError(f'{type(self).__name__} has no argument {", ".join(unknown)}; there are '
                            f'{", ".join(sorted(known))}.')
        super().__init__(pipeline=fitted(pipeline, reduce_zero_label, self.masks, type(self).__name__),
                         palette=palette, reduce_zero_label=reduce_zero_label, ignore_index=self.masks.ignore, **kwargs)

    @classmethod
    def describe(cls, classes: Sequence[str] | str | None = None, unseen: Sequence[str] | None = None,
                 prompt_set: str | Sequence[str] | None = None, background: Sequence[str] | str | None = None
                 ) -> DatasetFacts:
        """Return what is known of a dataset with these arguments without opening its files."""
        names = cls.CLASSES if classes is None else listed_classes(classes)
        if not names:
            raise UserError(f'{cls.__name__} needs class names: classes=[...].')
        if cls.CLASSES is not None and len(names) != len(cls.CLASSES):
            raise UserError(f'{cls.__name__} has {len(cls.CLASSES)} classes, classes=[...] names {len(names)}: rename '
                            'all of them, in their order. To use only some of them, make your own masks and '
                            'type=\'ZeroShotDataset\'.')
        if unseen is None:
            unseen = [names[cls.CLASSES.index(name)] for name in cls.UNSEEN]
        if background is None:
            background = [names[cls.CLASSES.index(name)] for name in cls.BACKGROUND]
        split = ClassSplit(tuple(names), tuple(listed(unseen, 'unseen class names')))
        return DatasetFacts(split, cls.PROMPT_SET if prompt_set is None else prompt_set,
                            tuple(listed(background, 'background class names')))

    @classmethod
    def usual_masks(cls) -> MaskIds:
        """Return the meaning of a benchmark's masks, without opening its files."""
        return masks_of(cls.describe(), reduce_zero_label=cls.REDUCE_ZERO_LABEL, background_id=cls.BACKGROUND_ID)

    def get_classes_and_palette(self, classes=None, palette=None):
        """Return the scored classes and a colour for each: the palette's, or those that `class_colours` chooses."""
        self.custom_classes = False  # mmseg would drop classes that are not listed
        names, palette = self.facts.scored.names, palette or self.PALETTE
        if palette is None:
            return names, [list(colour) for colour in class_colours(names)]
        colours = dict(zip(reversed(self.facts.scored_indices), reversed(palette), strict=True))  # the first counts
        return names, [list(colours[index]) for index in range(len(names))]

    def load_annotations(self, img_dir, img_suffix, ann_dir, seg_map_suffix, split) -> list[dict]:
        """List the samples as mmseg does; every file exists, and none is listed twice."""
        return samples_of(img_dir, img_suffix, ann_dir, seg_map_suffix, split)

    def pre_pipeline(self, results: dict) -> None:
        super().pre_pipeline(results)
        results['masks'] = self.masks

    def prepare_test_img(self, index: int) -> dict:
        """Run the test pipeline; values are lists of views, of one view without `MultiScaleFlipAug`."""
        sample = super().prepare_test_img(index)
        return sample if isinstance(sample['img'], list) else {name: [value] for name, value in sample.items()}

    def locate(self, index: int) -> tuple[str, 'ZeroShotDataset', int]:
        """Do the same as `SeveralDatasets.locate`."""
        return '', self, index

    def image_path(self, index: int) -> str:
        return os.path.join(self.img_dir, self.img_infos[index]['filename'])

    def mask_path(self, index: int) -> str:
        return os.path.join(self.ann_dir, self.img_infos[index]['ann']['seg_map'])

    def image(self, index: int) -> np.ndarray:
        """Load an image (H, W, 3) uint8, RGB."""
        return LoadImage()({'img_prefix': self.img_dir, 'img_info': self.img_infos[index]})['img'][..., ::-1]

    def true_labels(self, index: int) -> np.ndarray | None:
        """Load a mask (H, W) of indices of `CLASSES`, `ignore_index` for none, and check its size against the image.

        Return None for a dataset without masks.
        """
        if self.ann_dir is None:
            return None
        labels = load_mask(self.mask_path(index), self.masks)
        path = self.image_path(index)
        with opened(path, path) as image:
            check_size(self.mask_path(index), labels, upright_size(image))
        return labels

    get_gt_seg_map_by_idx = true_labels  # mmseg's name

    def as_scored(self, labels: np.ndarray) -> np.ndarray:
        """Turn the model's label map (H, W) into indices of `CLASSES`, in which background is one class."""
        return np.asarray(self.facts.scored_indices, labels.dtype)[labels] if self.facts.background else labels

    def format_results(self, results, imgfile_prefix, indices=None, **kwargs) -> list[str]:
        """Write the model's label maps (H, W) as PNG files with the dataset's own ids, the format of test servers.

        Returns:
            the paths of the files.
        """
        ids, files = self.masks.ids_of_labels, []
        for labels, index in zip(results, indices if indices is not None else range(len(self)), strict=True):
            files.append(os.path.join(imgfile_prefix, os.path.splitext(self.img_infos[index]['filename'])[0] + '.png'))
            os.makedirs(os.path.dirname(files[-1]), exist_ok=True)
            Image.fromarray(ids[self.as_scored(labels)]).save(files[-1])
        return files

    def pre_eval(self, preds, indices) -> list[tuple[np.ndarray, ...]]:
        """Count pixels for each label map (H, W) of the model, see `metrics.areas`."""
        preds, indices = ([value] if not isinstance(value, list) else value for value in (preds, indices))
        return [areas(self.as_scored(np.asarray(labels)), self.true_labels(index), len(self.CLASSES))
                for labels, index in zip(preds, indices, strict=True)]

    def evaluate(self, results, metric='mIoU', logger=None, groups: Mapping[str, Sequence[int]] | None = None, **kwargs
                 ) -> dict[str, float]:
        """Compute the scores, fractions rounded to 1e-4, and log them as a table.

        Args:
            results: per image what `pre_eval` returns, or the model's label map (H, W).
            metric: 'mIoU', 'mDice', 'mFscore', or several.
            groups: indices of `CLASSES` by the name of a group, each to have its own mean.

        Returns:
            `aAcc`, `mIoU`, `mAcc`, `mIoU_seen`, `mIoU_unseen`, `hIoU`, `mIoU_<group>`, then `IoU.<class>` and
            `Acc.<class>`.

        Raises:
            UserError: an unknown metric.
        """
        metrics, split = check_metrics(metric), self.facts.scored
        if isinstance(results[0], np.ndarray):
            results = self.pre_eval(results, list(range(len(results))))
        totals = tuple(torch.from_numpy(sum(areas).astype(float)) for areas in zip(*results, strict=True))
        absent = [name for name, true in zip(self.CLASSES, totals[3].tolist(), strict=True) if not true]
        if absent:
            print_log(f'no mask contains a pixel of: {first(absent)}. Their IoU is 0 if they are predicted anywhere; '
                      'otherwise they do not count', logger=logger, level=logging.WARNING)
        per_class = {name: np.asarray(values, dtype=float) for name, values
                     in pre_eval_to_metrics([totals], metrics).items()}
        scores = {'aAcc': float(per_class.pop('aAcc'))}
        order = sorted(per_class, key=('IoU', 'Acc').__contains__, reverse=True)  # IoU and Acc first
        scores |= {f'm{name}': mean_of(per_class[name], range(len(self.CLASSES))) for name in order}
        if 'IoU' in per_class:
            scores |= zero_shot_scores(per_class['IoU'], split.seen, split.unseen)
            scores |= {f'mIoU_{name}': mean_of(per_class['IoU'], group) for name, group in (groups or {}).items()}
        print_log(f'\n{score_table(scores, {name: per_class[name] for name in order}, split)}', logger=logger)
        scores |= {f'{name}.{label}': float(value) for name in order
                   for label, value in zip(self.CLASSES, per_class[name], strict=True)}
        return {name: round(value, 4) for name, value in scores.items()}
