"""The values of mask files: class ids or colours, and the class index that each stands for."""
import re
from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from models.errors import UserError
from models.label_format import label_format

from .class_split import DatasetFacts

MASK_VALUES = 2**16  # ids that masks of 8 or 16 bits can hold
VOID_OF_8_BITS = label_format(1).ignore


def masks_of(facts: DatasetFacts, *, reduce_zero_label: bool = False, ignore_index: int | None = None,
             background_id: int | None = None, colour_masks: bool = False,
             palette: Sequence[Sequence[int]] | None = None, ignored_colours: Sequence[Sequence[int]] = ()
             ) -> 'MaskIds | MaskColours':
    """Build the meaning of mask values from the arguments of a dataset, see `ZeroShotDataset`.

    Raises:
        UserError: an argument is invalid, or contradicts another one.
    """
    if not isinstance(reduce_zero_label, bool):
        raise UserError(f'reduce_zero_label={reduce_zero_label!r}: True or False is needed.')
    if colour_masks and (palette is None or reduce_zero_label or ignore_index is not None or background_id is not None):
        raise UserError('colour_masks=True needs palette=[[red, green, blue], ...], one colour per class, and neither '
                        'reduce_zero_label nor ignore_index nor background_id: list colours of no class in '
                        'ignored_colours.')
    count = len(facts.split.names)
    if palette is not None and len(checked_colours(palette)) != count:
        raise UserError(f'palette has {len(palette)} colours for {count} classes: one per class is needed.')
    if background_id is not None and not facts.background:
        raise UserError(f'background_id={background_id!r} needs background=[...], the classes that are background.')
    if colour_masks:
        return MaskColours(palette, ignored_colours, facts.scored_indices)
    names, labels = (facts.split.names, facts.scored_indices) if background_id is None else (
        facts.scored.names[:-1], None)
    return MaskIds(names, labels, reduce_zero_label=reduce_zero_label, ignore_index=ignore_index,
                   background_id=background_id)


class MaskIds:
    """Masks of class ids.

    Args:
        names: class names; their ids are consecutive.
        labels: of the classes in memory; by default 0, 1, 2, ...
        reduce_zero_label: id 0 is not a class, and the classes start at 1.
        ignore_index: the id of pixels without a class (void) in the files; by default the largest value of 8 bits, or
            of 16 bits where 8 do not hold all ids.
        background_id: the id of one more class after `names`.

    Attributes:
        ids: ids of the classes, in order.
        void: the id of pixels without a class.
        ignore: the label that these pixels get in memory.
        ids_of_labels: the id of each label in memory, the first one of several.

    Raises:
        UserError: `ignore_index` or `background_id` is out of range, or the id of a class.
    """

    def __init__(self, names: Sequence[str], labels: Sequence[int] | None = None, *, reduce_zero_label: bool = False,
                 ignore_index: int | None = None, background_id: int | None = None):
        first, self.background_id = int(reduce_zero_label), background_id
        self.ids = range(first, first + len(names))
        self.void = label_format(self.ids.stop).ignore if ignore_index is None else ignore_index
        for option, value, pixels in (('ignore_index', self.void, 'pixels without a class'),
                                      ('background_id', background_id, 'background')):
            if value is None:
                continue
            if type(value) is not int or not 0 <= value < MASK_VALUES:
                raise UserError(f'{option}={value!r}: the id of {pixels} must be a whole number from 0 to '
                                f'{MASK_VALUES - 1}.')
            if value in self.ids or option == 'ignore_index' and value in (*range(first), background_id):
                meaning = f'the id of class {names[value - first]!r}' if value in self.ids else \
                    'the id of background' if value == background_id else 'ignored already (reduce_zero_label=True)'
                remedy = 'set reduce_zero_label=True, too' if option == 'background_id' else \
                    'set reduce_zero_label=True alone'
                raise UserError(f'{option}={value} is {meaning}. If 0 is background and the classes start at 1, '
                                f'{remedy}; otherwise set {option} to an id that no class has.')
        ids = [*self.ids] if background_id is None else [*self.ids, background_id]
        labels = range(len(ids)) if labels is None else labels
        _, firsts = np.unique(labels, return_index=True)
        dtype, self.ignore = label_format(len(firsts))
        self.table = np.full(MASK_VALUES, self.ignore, dtype)
        self.table[ids] = labels
        self.known = np.zeros(MASK_VALUES, bool)
        self.known[[*range(self.ids.stop), self.void, *ids]] = True
        self.ids_of_labels = np.array(ids, label_format(max(ids) + 1).dtype)[firsts]

    @staticmethod
    def decode(image: Image.Image) -> np.ndarray:
        """Read the ids of an opened mask as the file stores them, (H, W)."""
        raw = image.tile[0][3] if image.tile else ''  # how the file packs its pixels
        depth = re.fullmatch(r'L;([24])\w?', raw if isinstance(raw, str) else str(raw[0]))
        values = np.asarray(image)
        if depth:  # greys of 2 or 4 bits, which Pillow spreads to 8
            values = values // (255 // (2**int(depth[1]) - 1))
        return values

    def labels(self, ids: np.ndarray, path: str) -> np.ndarray:
        """Turn a mask of ids (H, W) into class indices (H, W).

        Args:
            path: of the mask, for messages.

        Raises:
            UserError: several channels, values that are not whole ids of 16 bits, or unknown ids.
        """
        if ids.ndim != 2:
            raise UserError(f'{path}: a mask has one label per pixel, this one has {ids.shape[2]} channels. '
                            'If its colours stand for classes: colour_masks=True and palette=[...] in the config.')
        narrow = ids.dtype.itemsize == 1
        if ids.dtype.kind in 'fc' or not narrow and (ids.min() < 0 or ids.max() >= MASK_VALUES):
            raise UserError(f'{path}: the mask has values from {ids.min()} to {ids.max()}, type {ids.dtype}: save it '
                            'with whole ids of 8 or 16 bits.')
        if narrow and self.ids.stop > VOID_OF_8_BITS and (ids == VOID_OF_8_BITS).any():
            raise UserError(f'{path}: {VOID_OF_8_BITS} in an 8-bit mask may be one of the {len(self.ids)} classes '
                            f'or void. Save the masks with 16 bits, and {self.void} for void.')
        ids = ids.astype(np.uint8 if narrow else np.uint16, copy=False)
        if not _looked_up(self.known.view(np.uint8), ids).all():
            unknown = np.unique(ids[~self.known[ids]])[:5]
            raise UserError(f'{path}: label ids {unknown.tolist()} are out of range: the '
                            f'{len(self.ids)} classes have the ids {self.ids.start} to {self.ids.stop - 1}, '
                            f'{"" if self.background_id is None else f"background {self.background_id}, "}'
                            f'{self.void} is void (ignore_index).')
        return _looked_up(self.table, ids)


class MaskColours:
    """Masks that are images, with a colour for each class.

    Args:
        palette: (red, green, blue), each 0 to 255, of each class.
        ignored: colours that stand for no class.
        labels: of the classes in memory, by default 0, 1, 2, ...; those of one label may share a colour.

    Raises:
        UserError: a colour is invalid, or stands for two things.
    """

    def __init__(self, palette: Sequence[Sequence[int]], ignored: Sequence[Sequence[int]] = (),
                 labels: Sequence[int] | None = None):
        labels = range(len(palette)) if labels is None else labels
        dtype, self.ignore = label_format(max(labels) + 1)
        self.void, self.ids_of_labels = self.ignore, np.arange(max(labels) + 1, dtype=dtype)
        meanings = {*zip(checked_colours(palette), labels, strict=True)}
        meanings = sorted(meanings) + [(colour, self.ignore) for colour in checked_colours(ignored)]
        repeated = [colour for colour, count in Counter(colour for colour, _ in meanings).items() if count > 1]
        if repeated:
            raise UserError(f'palette: {", ".join(map(str, repeated))} stands for two things.')
        codes = _codes(np.array([colour for colour, _ in meanings], dtype=np.uint8).reshape(-1, 3))
        labels = np.array([label for _, label in meanings], dtype)
        order = codes.argsort()
        self.codes, self.labels_of_codes = codes[order], labels[order]

    @staticmethod
    def decode(image: Image.Image) -> np.ndarray:
        """Read the colours of an opened mask, (H, W, 3) uint8."""
        return np.asarray(image.convert('RGB'))

    def labels(self, image: np.ndarray, path: str) -> np.ndarray:
        """Turn a mask of colours (H, W, 3) uint8 into class indices (H, W).

        Args:
            path: of the mask, for messages.

        Raises:
            UserError: a colour is not in the palette.
        """
        codes = _codes(image)
        places = np.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
        unknown = np.unique(codes[self.codes[places] != codes])
        if len(unknown):
            colours = [[int(code) >> 16, int(code) >> 8 & 0xff, int(code) & 0xff] for code in unknown[:5]]
            more = f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''
            raise UserError(f'{path}: not in the palette: {", ".join(map(str, colours))}{more}. Add them to palette, '
                            'or to ignored_colours if they are not classes. (Thousands of colours come from smooth '
                            'resizing or JPEG: save masks without them.)')
        return self.labels_of_codes[places]


def checked_colours(colours: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Check colours (red, green, blue), each 0 to 255, and return them as tuples.

    Raises:
        UserError: one is invalid.
    """
    for colour in colours:
        if not isinstance(colour, (list, tuple)) or len(colour) != 3 or not all(
                isinstance(value, int) and 0 <= value <= 255 for value in colour):
            raise UserError(f'palette: {colour} is not a colour: [red, green, blue] is needed, each 0 to 255.')
    return [tuple(colour) for colour in colours]


def _looked_up(table: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return `table[ids]`; OpenCV does it in a quarter of the time for ids of 8 bits."""
    return cv2.LUT(ids, table[:256]) if ids.dtype == np.uint8 else table[ids]


def _codes(colours: np.ndarray) -> np.ndarray:
    """Turn colours (..., 3) uint8 into numbers (...)."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue
