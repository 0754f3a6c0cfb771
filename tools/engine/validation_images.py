"""How many images the validation sets of the benchmarks have, by their names in tools/prepare_data.py. Light."""

VALIDATION_IMAGES = {'voc12': 1_449, 'coco': 5_000, 'context': 5_104, 'ade20k': 2_000, 'ade20k_full': 2_000,
                     'context459': 5_104, 'voc20b': 1_449}
