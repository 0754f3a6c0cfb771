#!/usr/bin/env python3
"""What a checkpoint is, and which config tests it: `python tools/inspect_checkpoint.py FILE`.

Reads CLIP-RC's files, official and our own, and CLIP's. Builds no model, needs no GPU, runs no code of the file.
"""
import argparse
import json
import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, whoever else has one
from mmseg.datasets import DATASETS
from torch import Tensor

from datasets import ZeroShotDataset
from models import plugins
from models.errors import UserError
from models.weights import files, metadata
from models.weights.clip_variant import KINDS_OF_GELU, names_alike, saved_by_openai, sizes_shown, variant_of
from models.weights.config_text import read_config_text
from models.weights.files import DEAD, UNUSED_OF_CLIP, Checkpoint, check_numbers, depth, is_clip_rc, other_kind
from tools.engine import process
from tools.engine.config import REPOSITORY
from tools.results import published
from tools.results.leaves import CROSS_DATASET, Leaf, Sizes, leaves, setting_of

KINDS = {
    'ours': 'CLIP-RC, trained by this code',
    'slim': 'CLIP-RC, exported for inference',
    'official': 'CLIP-RC, saved by the published code, as the official files are',
    'untold': 'CLIP-RC, with no word on who trained it',
    'clip': 'CLIP',
    'text': "CLIP's text tower alone, which tools/text_embeddings.py --clip takes",
    'other': 'neither CLIP-RC nor CLIP',
}
VIT = {(768, 12): 'ViT-B', (1024, 24): 'ViT-L', (1280, 32): 'ViT-H'}  # (width, layers)
SHOWN = 6  # names of a long list


def inspect(checkpoint: Checkpoint) -> dict:
    """What the file says and shows, as plain JSON values; None for what it does not tell.

    Raises:
        UserError: it is of a newer version of this project, or its description is damaged.
    """
    weights = checkpoint.weights
    found = {
        'file': checkpoint.path, 'bytes': Path(checkpoint.path).stat().st_size, 'kind': 'other',
        'tensors': len(weights), 'parameters': sum(tensor.numel() for tensor in weights.values()),
        'dead_tensors': sum(bool(DEAD.match(name)) for name in weights),
    }
    try:
        found |= (_clip_rc(checkpoint) or _clip(checkpoint) or {
            'kind': 'text' if holds_text_alone(checkpoint) else 'other', 'remark': other_kind(checkpoint),
            'shapes': {name: list(tensor.shape) for name, tensor in weights.items()}})
        return found | {'fault': fault(checkpoint) if found['kind'] != 'other' else None}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f'{checkpoint.path}: what it says of itself (meta) is damaged. Copy it again.') from error


def holds_text_alone(checkpoint: Checkpoint) -> bool:
    """Whether a file holds the text tower of a CLIP and no image tower."""
    try:
        shown = sizes_shown(checkpoint)
    except UserError:  # no CLIP
        return False
    return bool(shown.text) and not shown.vision and not is_clip_rc(checkpoint)


def fault(checkpoint: Checkpoint) -> str | None:
    """What keeps a file of CLIP or CLIP-RC from use: numbers that are no weights, or not finite."""
    clip = not is_clip_rc(checkpoint)
    weights = {name: tensor for name, tensor in checkpoint.weights.items()
               if name not in UNUSED_OF_CLIP and (clip or tensor.is_floating_point())}
    try:
        check_numbers(weights, 'it')
    except UserError as error:
        return str(error)
    return None


def _shapes(weights: dict[str, Tensor], prefix: str, **dimensions: int) -> list[tuple[int, ...]] | None:
    """Shapes of these tensors; None unless all are there with these numbers of dimensions."""
    names = [prefix + name.replace('__', '.') for name in dimensions]
    shapes = [tuple(weights[name].shape) for name in names if name in weights]
    return shapes if [len(shape) for shape in shapes] == [*dimensions.values()] else None


# ---- CLIP-RC

def sizes_of_weights(weights: dict[str, Tensor]) -> Sizes | None:
    """The sizes of a model with CLIP-RC's encoder, whatever its head; None if these are not the weights of one."""
    shapes = _shapes(weights, 'backbone.', prompt_embeddings=3, region_level_bridge=2, positional_embedding=2,
                     conv1__weight=4, proj=2)
    if shapes is None:
        return None
    (_, prompts, _), (regions, _), (positions, _), (*_, patch), (width, space) = shapes
    return Sizes(prompts=prompts, regions=regions, resolution=math.isqrt(positions - 1) * patch, patch=patch,
                 width=width, layers=depth(weights, 'backbone.transformer.resblocks'), space=space,
                 decoder_layers=depth(weights, 'decode_head.decoder_q.layers'),
                 recovery_layers=depth(weights, 'decode_head.recovery_decoder.decouple_q'))


def _clip_rc(checkpoint: Checkpoint) -> dict | None:
    sizes, meta = sizes_of_weights(checkpoint.weights), checkpoint.meta
    ours = metadata.description(checkpoint) is not None
    if sizes is None or not (ours or 'decode_head.q_proj.weight' in checkpoint.weights):
        return None
    own_modules = plugins.names(meta['clip_rc']['config']) if ours else []
    told = _told_by_us(meta['clip_rc']) if ours else _told_by_mmseg(meta)
    best = meta.get('hook_msgs') or {}
    slim = metadata.is_slim(checkpoint)
    fitting = [leaf for leaf in leaves().values() if not own_modules and _fits(leaf, sizes, told, slim=slim)]
    fitting = sorted(_narrowest(fitting), key=lambda leaf: -len(leaf.config.get('published', {})))
    configs = [leaf.name for leaf in fitting]
    own = [] if fitting else dumped_configs(Path(checkpoint.path).parent)
    return {
        'kind': ('slim' if slim else 'ours' if ours else
                 'official' if any(map(DEAD.match, checkpoint.weights)) else 'untold'),
        **told,
        'dataset': dataset_of(told['class_names']),
        'sizes': sizes._asdict(),
        'own_modules': own_modules,
        'text_tower_layers': depth(checkpoint.weights, 'text_encoder.transformer.resblocks'),
        'iteration': metadata.iterations_done(checkpoint),
        'seed': meta.get('seed'),
        'best_score': float(best['best_score']) if best.get('best_score') is not None else None,
        'best_checkpoint': Path(best['best_ckpt']).name if best.get('best_ckpt') else None,
        'configs': configs,
        'own_configs': own,
        'test': test_command((configs + own)[0] if len(configs + own) == 1 else 'CONFIG', checkpoint.path),
    }


def dumped_configs(folder: Path) -> list[str]:
    """The configs that training left in its work folder."""
    return [str(path) for path in sorted(folder.glob('*.py'))
            if {'model', 'data'} <= read_config_text(path.read_text(errors='replace')).keys()]


def _told_by_us(entry: dict) -> dict:
    """From `meta['clip_rc']`."""
    stored = entry['text_embeddings']
    return {'class_names': entry['class_names'], 'unseen_names': entry['split']['unseen'],
            'setting': entry['setting'], 'prompt_set': entry['prompt_set'],
            'text_embeddings': {'shape': stored['shape'], 'sha256': stored['sha256']}}


def _told_by_mmseg(meta: dict) -> dict:
    """From what mmsegmentation's training leaves: class names, and the config's text, which is read, not run."""
    names = [str(name) for name in meta.get('CLASSES') or ()]
    model = read_config_text(meta.get('config') or '').get('model')
    unseen = [names[index] for index in (model or {}).get('novel_class') or ()] if names else []
    return {'class_names': names or None, 'unseen_names': unseen or None,
            'setting': setting_of(model, unseen=[...]) if model else None, 'prompt_set': None, 'text_embeddings': None}


def _fits(leaf: Leaf, sizes: Sizes, told: dict, *, slim: bool) -> bool:
    """Whether a config's model takes the weights, and the config is of all that the file tells."""
    if slim:  # whatever its recovery decoder was
        sizes = sizes._replace(recovery_layers=leaf.sizes.recovery_layers)
    if told['class_names'] is None and DATASETS.get(leaf.config.data.test.type) is ZeroShotDataset:
        return False  # anyone's dataset: nothing but its class names could tell it
    split, prompt_set = leaf.facts.split, leaf.facts.prompt_set
    own = {'class_names': list(split.names), 'unseen_names': [split.names[index] for index in split.unseen],
           'setting': leaf.setting, 'prompt_set': prompt_set if isinstance(prompt_set, str) else list(prompt_set)}
    agrees = all(told[key] is None or sorted(told[key]) == sorted(value) if key == 'unseen_names' else
                 told[key] in (None, value) for key, value in own.items())
    return agrees and leaf.setting != CROSS_DATASET and leaf.sizes.fits(sizes)


def _narrowest(fitting: list[Leaf]) -> list[Leaf]:
    """Configs that name these sizes; where there is none, those that leave them to the CLIP file."""
    return [leaf for leaf in fitting if not leaf.sizes.of_any_clip] or fitting


def dataset_of(names: list[str] | None) -> str | None:
    """The registered dataset with these classes."""
    return next((name for name, cls in DATASETS.module_dict.items()
                 if names and issubclass(cls, ZeroShotDataset) and list(cls.CLASSES or ()) == names), None)


def test_command(config: str, file: str) -> str:
    """The command that tests a checkpoint, to be run from this folder."""
    root = '' if Path.cwd() == REPOSITORY else f'{REPOSITORY}/'
    return shlex.join(['python', f'{root}test.py', root + config if config.startswith('configs/') else config, file,
                       '--eval', 'mIoU'])


# ---- CLIP

def _clip(checkpoint: Checkpoint) -> dict | None:
    try:
        shown = sizes_shown(checkpoint)
    except UserError:  # no CLIP ViT
        return None
    vision = shown.vision
    if is_clip_rc(checkpoint) or not vision:
        return None
    build = {'patch': vision['patch_size'], 'width': vision['width'], 'layers': vision['layers'],
             'space': vision['output_dim']}
    try:
        gelu = variant_of(checkpoint).vision['gelu']
    except UserError:  # a question
        gelu = None
    form = build['width'], build['layers']
    return {
        'kind': 'clip',
        'name': f'{VIT[form]}/{build["patch"]}' if form in VIT else None,
        'format': ('OpenAI' if saved_by_openai(checkpoint) else
                   'Hugging Face\'s transformers' if checkpoint.hugging_face else 'open_clip'),
        'gelu': gelu,
        'names': [] if gelu else names_alike(shown),
        'sizes': {**build, 'resolution': shown.resolution},
        'text_tower_layers': depth(checkpoint.weights, 'transformer.resblocks'),
        'configs': [leaf.name for leaf in _narrowest([leaf for leaf in leaves().values()
                                                      if leaf.sizes.fits_clip(**build)])],
    }


# ---- as text

def some(names: list[str]) -> str:
    """The number of names, and the first of them."""
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    between = '; ' if any(',' in name for name in names) else ', '
    return f'{len(names)}: {between.join(names[:SHOWN])}{more}' if names else 'none'


def lines(found: dict) -> Iterator[tuple[str, str]]:
    """What is known of a file as (name, text); a name is empty where the text goes on."""
    yield 'file', f'{found["file"]}, {found["bytes"] / 1e6:.1f} MB'
    clip = f' {found["name"] or ""}, as {found["format"]} saves it' if found['kind'] == 'clip' else ''
    yield 'kind', KINDS[found['kind']] + clip.replace(' ,', ',') + found.get('remark', '')
    dead = f', {found["dead_tensors"]} of them dead weight' if found['dead_tensors'] else ''
    yield 'tensors', f'{found["tensors"]}{dead}; {found["parameters"] / 1e6:.1f}M values'
    if found['fault']:
        yield 'fault', found['fault']
    if found['kind'] in ('text', 'other'):
        yield from (('' if place else 'such as', f'{name} {shape}')
                    for place, (name, shape) in enumerate([*found['shapes'].items()][:SHOWN]))
        return
    sizes = found['sizes']
    yield 'image tower', (f'width {sizes["width"]}, {sizes["layers"]} layers, patches of {sizes["patch"]} pixels, '
                          f'images of {sizes["resolution"]}x{sizes["resolution"]}; CLIP space {sizes["space"]}')
    tower = f'in it, {found["text_tower_layers"]} layers' if found['text_tower_layers'] else 'not in it'
    yield 'text tower', tower
    yield from _clip_lines(found) if found['kind'] == 'clip' else _clip_rc_lines(found)


def _clip_lines(found: dict) -> Iterator[tuple[str, str]]:
    if found['gelu']:
        yield 'GELU', KINDS_OF_GELU[found['gelu']] + (
            ', as OpenAI trained it' if found['format'] == 'OpenAI' else ', as config.json beside it says')
    else:
        yield 'GELU', 'not told by the file: name it to train with it, --cfg-options model.clip_name=NAME'
        yield 'of these sizes', some(found['names']) if found['names'] else 'none: give model.backbone.gelu instead'
    folders = sorted({str(Path(name).parent) for name in found['configs']})
    yield 'fits', f'the configs in {", ".join(folders)}' if folders else 'no config of this repository: other sizes'
    yield 'belongs in', 'model.pretrained and model.pretrained_text, to train with:'
    yield '', shlex.join(['--cfg-options', *(f'model.{key}={found["file"]}' for key in ('pretrained',
                                                                                         'pretrained_text'))])


def _clip_rc_lines(found: dict) -> Iterator[tuple[str, str]]:
    sizes, configs, own = found['sizes'], found['configs'], found['own_configs']
    side = math.isqrt(sizes['regions'])
    yield 'prompt tokens', f'P = {sizes["prompts"]}'
    yield 'region tokens', f'R = {sizes["regions"]}, {side}x{side}' if side else 'R = 0: without region clues'
    recovery = (f'layers of the recovery decoder: {sizes["recovery_layers"]}' if sizes['recovery_layers'] else
                'recovery left out' if found['kind'] == 'slim' else 'no recovery')
    yield 'decoder', f'{sizes["decoder_layers"]} layers; {recovery}'
    if found['own_modules']:
        yield 'parts', f'of its user, too: {some(found["own_modules"])} (custom_imports)'
    candidates = [leaves()[name] for name in configs]
    protocols = '; '.join(dict.fromkeys(published.PROTOCOLS.get(leaf.protocol, Path(leaf.name).parent.name)
                                        for leaf in candidates))
    known = found['class_names'] is not None
    yield 'dataset', (found['dataset'] or 'none of this repository') if known else 'not recorded'
    if protocols:
        yield 'protocol', protocols if known else f'not recorded; with such sizes: {protocols}'
    if known:
        dataset = DATASETS.get(found['dataset']) if found['dataset'] else ZeroShotDataset
        yield 'classes', some(found['class_names'])
        yield 'unseen', some(found['unseen_names'] or list(dataset.UNSEEN))
        prompts = found['prompt_set']
        yield 'prompt set', (f'not recorded; the dataset\'s: {dataset.PROMPT_SET}' if prompts is None else
                             prompts if isinstance(prompts, str) else some([repr(text) for text in prompts]))
    settings = ', '.join(dict.fromkeys(leaf.setting for leaf in candidates))
    yield 'setting', found['setting'] or f'not recorded; any of {settings or "the three"}'
    table = found['text_embeddings']
    yield 'text embeddings', (f'in it, {table["shape"][0]}x{table["shape"][1]}' if table else
                              'computed from its text tower' if found['text_tower_layers'] else
                              "not in it: CLIP's text tower is needed (model.pretrained_text)")
    for key in ('iteration', 'seed'):
        yield key, 'not recorded' if found[key] is None else str(found[key])
    if found['best_score'] is not None:
        yield 'best score', f'{found["best_score"]:.4f} until then, of {found["best_checkpoint"]}'
    yield from (('' if place else 'config', name) for place, name in enumerate(configs))
    if not configs:
        yield 'config', ('none of this repository: they do without such parts' if found['own_modules'] else
                         'none of this repository: no other has its classes, split, prompts, setting and sizes'
                         if known else 'none of this repository has these sizes')
        yield '', f'its own is the copy that training left in its work folder{"".join(f": {name}" for name in own[:1])}'
    yield 'test it', found['test']
    if len(configs) > 1:
        yield '', 'CONFIG: the one of these that it was trained with'


def main() -> None:
    parser = argparse.ArgumentParser(description=f'{__doc__.split(":")[0]}.')
    parser.add_argument('file', metavar='FILE', help='.pth, .pt or .safetensors')
    parser.add_argument('--json', action='store_true', help='everything, for machines')
    args = parser.parse_args()
    found = inspect(files.read(args.file))
    if args.json:
        print(json.dumps(found, indent=1))
        return
    text = list(lines(found))
    width = max(len(name) for name, _ in text) + 2
    print('\n'.join(f'{name:{width}}{value}' for name, value in text))


if __name__ == '__main__':
    process.run(main)
