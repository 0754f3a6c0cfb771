"""The facts of a checkpoint or a CLIP file: its metadata and its sizes. Builds no model."""
from pathlib import Path

from mmseg.datasets import DATASETS

from datasets import ZeroShotDataset
from models import plugins
from models.errors import UserError
from models.weights import metadata
from models.weights.checks import check_numbers, depth
from models.weights.clip import UNUSED_OF_CLIP, hidden_part, saved_by_openai, sizes_of
from models.weights.clip_names import names_alike
from models.weights.clip_variant import variant_of
from models.weights.cliprc import DEAD, is_clip_rc, is_official, sizes_of_clip_rc
from models.weights.config_text import read_config_text
from models.weights.files import Checkpoint
from tools.results.leaves import CROSS_DATASET, leaves, setting_of


def inspect(checkpoint: Checkpoint) -> dict:
    """Return the metadata and the sizes of a file as plain JSON values, None for facts that it does not record.

    Raises:
        UserError: it is of a newer version of this project, or its metadata are damaged.
    """
    path, weights = checkpoint.path, checkpoint.weights
    facts = {'file': path, 'bytes': Path(path).stat().st_size, 'kind': 'other', 'tensors': len(weights),
             'parameters': sum(tensor.numel() for tensor in weights.values()),
             'dead_tensors': sum(bool(DEAD.match(name)) for name in weights)}
    try:
        facts |= _clip_rc(checkpoint) or _clip(checkpoint) or {
            'remark': hidden_part(checkpoint), 'shapes': {name: [*tensor.shape] for name, tensor in weights.items()}}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f'{path}: its metadata (meta) are damaged. Copy it again.') from error
    if facts['kind'] != 'other':
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
    if sizes is None or not (ours or 'decode_head.q_proj.weight' in checkpoint.weights):
        return None
    record = _our_metadata(meta['clip_rc']) if ours else _mmseg_metadata(meta)
    own_modules, names = plugins.names(ours.config) if ours else [], record['class_names']
    configs = [leaf.name for leaf in leaves().values() if names == [*leaf.facts.split.names] and not own_modules and
               leaf.setting == record['setting'] != CROSS_DATASET and
               (record['unseen_names'] is None or {*record['unseen_names']} == {*leaf.facts.split.unseen_names})]
    best = meta.get('hook_msgs') or {}
    return {
        'kind': ('slim' if metadata.is_slim(checkpoint) else 'ours' if ours else
                 'official' if is_official(checkpoint) else 'unknown'),
        **record,
        'dataset': next((name for name, cls in DATASETS.module_dict.items() if names and issubclass(
            cls, ZeroShotDataset) and [*(cls.CLASSES or ())] == names), None),
        'sizes': sizes,
        'own_modules': own_modules,
        'text_tower_layers': depth(checkpoint.weights, 'text_encoder.transformer.resblocks'),
        'iteration': metadata.iterations_done(checkpoint),
        'seed': meta.get('seed'),
        'best_score': float(best['best_score']) if best.get('best_score') is not None else None,
        'best_checkpoint': Path(best['best_ckpt']).name if best.get('best_ckpt') else None,
        'configs': configs,
    }


def _our_metadata(entry: dict) -> dict:
    table = entry['text_embeddings']
    return {'class_names': entry['class_names'], 'unseen_names': entry['split']['unseen'],
            'setting': entry['setting'], 'prompt_set': entry['prompt_set'],
            'text_embeddings': {'shape': table['shape'], 'sha256': table['sha256']}}


def _mmseg_metadata(meta: dict) -> dict:
    """Read class names, and the config's text as data, as mmsegmentation saves them."""
    names = [str(name) for name in meta.get('CLASSES') or ()]
    model = read_config_text(meta.get('config') or '').get('model')
    unseen = [names[index] for index in (model or {}).get('novel_class') or ()] if names else []
    return {'class_names': names or None, 'unseen_names': unseen or None, 'prompt_set': None, 'text_embeddings': None,
            'setting': setting_of(model, unseen=[...]) if model else None}


def _clip(checkpoint: Checkpoint) -> dict | None:
    try:
        sizes = sizes_of(checkpoint)
    except UserError:  # not a CLIP ViT
        return None
    if not sizes.vision:
        return {'kind': 'text', 'sizes': sizes.text} if sizes.text else None
    try:
        gelu = variant_of(checkpoint).vision['gelu']
    except UserError:  # the file does not show it
        gelu = None
    return {'kind': 'clip', 'gelu': gelu, 'names': [] if gelu else names_alike(sizes),
            'format': ('OpenAI' if saved_by_openai(checkpoint) else
                       'Hugging Face\'s transformers' if checkpoint.hugging_face else 'open_clip'),
            'sizes': {**sizes.vision, 'resolution': sizes.resolution},
            'text_tower_layers': sizes.text.get('transformer_layers', 0)}
