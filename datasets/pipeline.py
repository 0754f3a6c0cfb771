"""A config's pipeline made to fit its dataset: what both say of the masks, they say alike."""
from collections.abc import Sequence
from inspect import signature

from mmseg.datasets.builder import PIPELINES

from models.errors import UserError

from .loading import MaskColours, MaskIds

# mmseg's steps, in whose place ours come, and what else than this they may not be asked for.
OURS = {'LoadImageFromFile': ('LoadImage', {}),
        'LoadAnnotations': ('LoadLabels', {'imdecode_backend': 'pillow', 'file_client_args': {'backend': 'disk'}})}
VOID = ('seg_pad_val', 'ignore_index', 'seg_fill_in')  # arguments of steps that mean pixels of no class


def fitted(pipeline: Sequence[dict], reduce_zero_label: bool, masks: MaskIds | MaskColours, name: str, *,
           within: bool = False) -> list:
    """Make a copy of a pipeline that loads and pads masks as its dataset says.

    mmseg's loading steps become ours, which check what they load. Steps that fill in pixels of no class (`Pad`) or
    leave them out (`RandomCrop`) take the value that these have in memory.

    Args:
        masks: what ids or colours of the masks mean.
        name: of the dataset, for messages.
        within: these are the steps of `MultiScaleFlipAug`.

    Raises:
        UserError: a step says otherwise of the masks than the dataset, or is asked for what it can't do.
    """
    steps, flips = [], within
    for given in pipeline:
        if not isinstance(given, dict) or 'type' not in given:  # a function, or what mmseg refuses
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
                            f'{name} has {reduce_zero_label}: training would get other labels than scores are made '
                            'of. Leave it out of the pipeline, and say it in the dataset.')
        cls = PIPELINES.get(step['type'])
        parameters = {} if cls is None else signature(cls).parameters
        for option in VOID:
            if option in parameters and step.get(option, parameters[option].default) is not None:
                if step.get(option) not in (None, 255, masks.void, masks.ignore):
                    raise UserError(f'{kind} of the pipeline has {option}={step[option]}, which is no id of pixels of '
                                    f'no class; in the dataset {name} that is {masks.void}. Leave it out.')
                step[option] = masks.ignore
        if 'transforms' in step:
            step['transforms'] = fitted(step['transforms'], reduce_zero_label, masks, name, within=True)
        if kind == 'Collect' and not flips and 'meta_keys' not in step:  # it would look for what no step has made
            step['meta_keys'] = tuple(key for key in parameters['meta_keys'].default if not key.startswith('flip'))
        steps.append(step)
    return steps
