"""The facts of a checkpoint or a CLIP file: its metadata and its sizes. Builds no model."""
import shlex
from collections.abc import Iterator
from pathlib import Path

from datasets import BY_NAME
from models.errors import UserError
from models.weights import metadata
from models.weights.checks import check_numbers, depth, first_of
from models.weights.clip import UNUSED_OF_CLIP, is_clip_rc, saved_by_openai, sizes_of
from models.weights.clip_variant import variant_of, variants_alike
from models.weights.cliprc import DEAD, sizes_of_clip_rc
from models.weights.files import Checkpoint
from models.weights.names import hidden_part
from tools.results.leaves import leaves

SHOWN = 10  # names of a long list


def inspect(checkpoint: Checkpoint) -> dict:
    """Return the metadata and the sizes of a file as plain JSON values, None for facts that it does not record.

    Raises:
        UserError: it is of a newer version of this project, or its metadata are damaged.
    """
    path, weights = checkpoint.path, checkpoint.weights
    facts = {'file': path, 'bytes': Path(path).stat().st_size, 'tensors': len(weights),
             'parameters': sum(tensor.numel() for tensor in weights.values()),
             'dead_tensors': sum(bool(DEAD.match(name)) for name in weights)}
    try:
        facts |= _clip_rc(checkpoint) or _clip(checkpoint) or {
            'kind': f'neither CLIP-RC nor CLIP{hidden_part(weights)}',
            'sizes': {name: [*tensor.shape] for name, tensor in weights.items()}}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f'{path}: its metadata (meta) are damaged. Copy it again.') from error
    if facts['kind'].startswith('CLIP'):
        used = {name: tensor for name, tensor in weights.items() if name not in UNUSED_OF_CLIP and (
            not is_clip_rc(checkpoint) or tensor.is_floating_point())}
        try:
            check_numbers(used, 'the file')
        except UserError as error:
            facts['fault'] = str(error)
    return facts


def _clip_rc(checkpoint: Checkpoint) -> dict | None:
    sizes, meta = sizes_of_clip_rc(checkpoint), checkpoint.meta
    ours = metadata.description(checkpoint)
    if not sizes or not (ours or 'decode_head.q_proj.weight' in checkpoint.weights):
        return None
    names, unseen, setting = metadata.training(checkpoint)
    own_modules, best = metadata.own_modules(checkpoint), meta.get('hook_msgs') or {}
    return {
        'kind': 'CLIP-RC, ' + (
            'exported for inference' if metadata.is_slim(checkpoint) else 'trained by this code' if ours else
            'saved by the published code' if any(map(DEAD.match, checkpoint.weights)) else 'without metadata'),
        'class_names': names,
        'unseen_names': unseen,
        'setting': setting,
        'prompt_set': ours.prompt_set if ours else None,
        'text_embeddings': {'shape': [*ours.embeddings.shape], 'sha256': meta['clip_rc']['text_embeddings']['sha256']}
        if ours else None,
        'dataset': names and next((cls.__name__ for cls in BY_NAME.values() if [*cls.CLASSES] == names),
                                  'none of this repository'),
        'sizes': sizes,
        'own_modules': own_modules,
        'text_tower_layers': depth(checkpoint.weights, 'text_encoder.transformer.resblocks'),
        'iteration': metadata.iterations_done(checkpoint),
        'seed': meta.get('seed'),
        'best_score': float(best['best_score']) if best.get('best_score') is not None else None,
        'best_checkpoint': Path(best['best_ckpt']).name if best.get('best_ckpt') else None,
        'configs': [leaf.name for leaf in leaves().values() if names == [*leaf.split.names] and not own_modules and
                    leaf.setting == setting and (not unseen or {*unseen} == {*leaf.split.unseen_names})],
    }


def _clip(checkpoint: Checkpoint) -> dict | None:
    try:
        sizes = sizes_of(checkpoint)
    except UserError:  # not a CLIP ViT
        return None
    if not sizes.vision:
        kind = "CLIP's text tower alone, for tools/text_embeddings.py --clip"
        return {'kind': kind, 'sizes': sizes.text} if sizes.text else None
    try:
        gelu = variant_of(checkpoint).vision['gelu']
    except UserError:  # the file does not show it
        gelu = None
    return {'kind': 'CLIP', 'gelu': gelu, **({} if gelu else {'open_clip_names': [*variants_alike(sizes)]}),
            'format': ('OpenAI' if saved_by_openai(checkpoint) else
                       'Hugging Face\'s transformers' if checkpoint.hugging_face else 'open_clip'),
            'sizes': {**sizes.vision, 'resolution': sizes.resolution},
            'text_tower_layers': sizes.text.get('transformer_layers', 0)}


def lines(facts: dict) -> Iterator[tuple[str, str]]:
    """Yield the facts of a file as (name, text), and the arguments that use the file."""
    for name, value in facts.items():
        if isinstance(value, dict):
            value = first_of([f'{key} {inside}' for key, inside in value.items()], SHOWN)
        elif isinstance(value, (list, tuple)):
            more = '; ...' if len(value) > SHOWN else ''
            value = f'{len(value)}: {"; ".join(value[:SHOWN])}{more}' if value else 'none'
        elif name in ('bytes', 'parameters'):
            value = f'{value:,}'
        yield name.replace('_', ' '), 'not recorded' if value is None else str(value)
    if 'gelu' in facts:
        settings = [f'model.{key}={facts["file"]}' for key in ('pretrained', 'pretrained_text')]
        yield 'train on it', shlex.join(['--cfg-options', *settings, *([] if facts['gelu'] else [
            'model.clip_name=NAME'])])
    elif 'class_names' in facts:
        yield 'test it', shlex.join(['python', 'test.py', 'CONFIG', facts['file'], '--eval', 'mIoU'])
