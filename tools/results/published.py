"""The scores that other papers printed for the benchmarks of this repository, in percent, and official checkpoints.

CLIP-RC's own scores are in its configs (`published = dict(...)`), and so is the protocol (`protocol = '...'`).
"""
from typing import NamedTuple

from models.weights.published_files import CHECKPOINTS, page_of

Score = float | str | None  # in percent; a text: a printed range; None: not printed

# Name of a protocol in the configs -> its data, and its numbers of seen / unseen classes.
PROTOCOLS = {
    'voc12': 'VOC 2012, 15/5',
    'coco': 'COCO-Stuff 164k, 156/15',
    'context60': 'Context (a), 60 classes, 50/10',
    'context59': 'Context (b), 59 classes, 49/10',
    'context59misindexed': 'Context (c), 59 classes, 49/10 mis-indexed',
    'cross_voc20': 'COCO-Stuff model on VOC, 20',
    'cross_context59': 'COCO-Stuff model on Context, 59',
    'cross_context60': 'COCO-Stuff model on Context, 60',
    'cross_ade20k150': 'COCO-Stuff model on ADE20K, 150',
    'cross_ade847': 'COCO-Stuff model on ADE20K, 847',
    'cross_context459': 'COCO-Stuff model on Context, 459',
    'cross_voc20b': 'COCO-Stuff model on VOC, 20 and background',
}
SHORT = {'voc12': 'VOC', 'coco': 'COCO-Stuff'}  # names in the README's table
SCORES = ('aAcc', 'mIoU_seen', 'mIoU_unseen', 'hIoU')
DISAGREES = 'as printed; this hIoU is not that of these mIoUs'


class Row(NamedTuple):
    """A row of a printed table.

    Args:
        setting: a value of `models.training_labels.Setting`, or 'cross_dataset', where every class counts as seen.
        protocols: usually one; several where the paper does not say which one it used.
    """
    method: str
    setting: str
    protocols: tuple[str, ...]
    aAcc: Score = None
    mIoU_seen: Score = None
    mIoU_unseen: Score = None
    hIoU: Score = None
    note: str = ''


# CAT-Seg (Cho et al. 2024), as its README prints them: mIoU with ViT-B/16 and with ViT-L/14.
CAT_SEG = {'cross_ade847': (12.0, 16.0), 'cross_context459': (19.0, 23.8), 'cross_ade20k150': (31.8, 37.9),
           'cross_context59': (57.5, 63.3), 'cross_voc20': (94.6, 97.0), 'cross_voc20b': (77.3, 82.5)}
CAT_SEG_TRAINING = 'CAT-Seg fine-tunes CLIP, with masks of all 171 classes of COCO-Stuff'

VOC, COCO, CONTEXT_A, CONTEXT_B, CONTEXT_C = (
    (name,) for name in ('voc12', 'coco', 'context60', 'context59', 'context59misindexed'))
ROWS = (
    Row('ZegCLIP', 'inductive', VOC, 94.6, 91.9, 77.8, 84.3),
    Row('ZegCLIP', 'transductive', VOC, 96.2, 92.3, 89.9, 91.1),
    Row('ZegCLIP', 'fully_supervised', VOC, 96.3, 92.4, 90.9, 91.6),
    Row('ZegCLIP', 'inductive', COCO, 62.0, 40.2, 41.1, 40.8, DISAGREES),
    Row('ZegCLIP', 'transductive', COCO, 69.2, 40.7, 59.9, 48.5),
    Row('ZegCLIP', 'fully_supervised', COCO, 69.9, 40.7, 63.2, 49.6),
    Row('ZegCLIP', 'inductive', CONTEXT_A, 76.2, 46.0, 54.6, 49.9),
    Row('ZegCLIP', 'transductive', CONTEXT_A, 77.3, 46.8, 68.5, 55.6),
    Row('ZegCLIP', 'fully_supervised', CONTEXT_A, 77.5, 46.5, 78.7, 56.9, DISAGREES),
    Row('ZegCLIP', 'cross_dataset', ('cross_voc20',), mIoU_seen=93.6),
    Row('ZegCLIP', 'cross_dataset', ('cross_context59', 'cross_context60'), mIoU_seen=41.2,
        note='59 or 60 classes: the paper does not say'),
    Row('Cascade-CLIP', 'inductive', VOC, None, 92.5, 83.0, 87.5),
    Row('Cascade-CLIP', 'inductive', COCO, None, 41.2, 43.4, 42.3),
    Row('Cascade-CLIP', 'inductive', CONTEXT_C, None, 55.9, 47.2, 51.2),
    Row('OTSeg+', 'inductive', VOC, hIoU='87.1 to 87.4'),
    Row('OTSeg+', 'inductive', COCO, hIoU=41.5),
    Row('OTSeg+', 'inductive', CONTEXT_B, hIoU=57.7),
    *(Row(f'CAT-Seg {encoder}', 'cross_dataset', (protocol,), mIoU_seen=score, note=CAT_SEG_TRAINING)
      for protocol, scores in CAT_SEG.items() for encoder, score in zip(('ViT-B/16', 'ViT-L/14'), scores, strict=True)),
    Row('CLIP-RC, second-hand', 'inductive', VOC, hIoU=85.8, note='as listed by papers that compare with it'),
)

# Config -> the address of the authors' checkpoint.
OFFICIAL = {f'configs/{config}.py': page_of(name) for name, (config, _) in CHECKPOINTS.items()}
