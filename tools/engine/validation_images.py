"""The numbers of images in the validation sets of the benchmarks, by the names of tools/prepare_data.py. Light."""

VALIDATION_IMAGES = {'voc12': 1_449, 'coco': 5_000, 'context': 5_104, 'ade20k': 2_000, 'ade20k_full': 2_000}
VALIDATION_IMAGES |= {'voc20b': VALIDATION_IMAGES['voc12'], 'context459': VALIDATION_IMAGES['context']}
