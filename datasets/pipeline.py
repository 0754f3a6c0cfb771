"""Fit a config's pipeline to its dataset, so that training and scores see the same labels."""
from collections.abc import Sequence
from inspect import signature

from mmseg.datasets.builder import PIPELINES

from models.errors import UserError

from .masks import VOID_OF_8_BITS, MaskColours, MaskIds

# mmseg's step -> ours, and the arguments of mmseg's step that are accepted with this value only.
OURS = {'LoadImageFromFile': ('LoadImage', {}),
        'LoadAnnotations': ('LoadLabels', {'imdecode_backend': 'pillow', 'file_client_args': {'backend': 'disk'}}),
        **{kind: (f'Quick{kind}', {}) for kind in (
            'RandomCrop', 'RandomFlip', 'PhotoMetricDistortion', 'Normalize', 'DefaultFormatBundle')}}
VOID = ('seg_pad_val', 'ignore_index', 'seg_fill_in')  # arguments of steps: the label of pixels without a class


def fitted(pipeline: Sequence[dict], reduce_zero_label: bool, masks: MaskIds | MaskColours, name: str, *,
           within: bool = False) -> list:
    """Copy a pipeline, with our loading and augmentation and the dataset's label for pixels without a class.

    mmseg's loading steps become ours, which check the files, and its augmentation ours, which is faster. Steps that
    add pixels without a class (`Pad`) or leave them out (`RandomCrop`) get the label that these have in memory.

    Args:
        masks: the meaning of mask values.
        name: of the dataset, for messages.
        within: the steps are those of `MultiScaleFlipAug`.

    Raises:
        UserError: a step contradicts the dataset, or an argument is unsupported.
    """
    steps, flips = [], within
    for given in pipeline:
        if not isinstance(given, dict) or 'type' not in given:  # a function, or an error that mmseg reports
            steps.append(given)
            continue
        step, kind = dict(given), given['type']
        flips |= kind == 'RandomFlip'
        if kind in OURS:
            step['type'], defaults = OURS[kind]
            for option, value in defaults.items():
                if step.pop(option, value) != value:
                    raise UserError(f'{kind} of the pipeline: {option}={given[option]!r} is not supported: masks are '
                                    'read from the disk by Pillow. Leave it out.')
        if step['type'] == 'LoadLabels' and step.get('reduce_zero_label') not in (None, reduce_zero_label):
            raise UserError(f'{kind} of the pipeline has reduce_zero_label={step["reduce_zero_label"]}, its dataset '
                            f'{name} has {reduce_zero_label}: training and scores would use different labels. Leave '
                            'it out of the pipeline, and set it in the dataset.')
        cls = PIPELINES.get(step['type'])
        parameters = {} if cls is None else signature(cls).parameters
        for option in VOID:
            if option in parameters and step.get(option, parameters[option].default) is not None:
                if step.get(option) not in (None, VOID_OF_8_BITS, masks.void, masks.ignore):
                    raise UserError(f'{kind} of the pipeline has {option}={step[option]}, but in the dataset {name} '
                                    f'pixels without a class have {masks.void}. Leave it out.')
                step[option] = masks.ignore
        if 'transforms' in step:
            step['transforms'] = fitted(step['transforms'], reduce_zero_label, masks, name, within=True)
        if kind == 'Collect' and not flips and 'meta_keys' not in step:  # no step adds the keys of a flip
            step['meta_keys'] = tuple(key for key in parameters['meta_keys'].default if not key.startswith('flip'))
        steps.append(step)
    return steps
