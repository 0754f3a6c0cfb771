#!/usr/bin/env python3
"""Print what a checkpoint is: `python tools/inspect_checkpoint.py FILE`.

Reads CLIP-RC's files, official and our own, and CLIP's: metadata and sizes. Builds no model, needs no GPU, runs no
code of the file.
"""
import argparse
import json
import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, not another package's
from tools.engine.errors import run

SHOWN = 6  # names of a long list
KINDS = {
    'ours': 'CLIP-RC, trained by this code',
    'slim': 'CLIP-RC, exported for inference',
    'official': 'CLIP-RC, saved by the published code',
    'unknown': 'CLIP-RC, without metadata',
    'clip': 'CLIP',
    'text': "CLIP's text tower alone, for tools/text_embeddings.py --clip",
    'other': 'neither CLIP-RC nor CLIP',
}


def listed(names: list[str]) -> str:
    """Give the number of names, and the first of them."""
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    between = '; ' if any(',' in name for name in names) else ', '
    return f'{len(names)}: {between.join(names[:SHOWN])}{more}' if names else 'none'


def lines(facts: dict) -> Iterator[tuple[str, str]]:
    """Yield the facts of a file as (name, text)."""
    yield 'file', f'{facts["file"]}, {facts["bytes"] / 1e6:.1f} MB'
    saved = f', as {facts["format"]} saves it' if facts['kind'] == 'clip' else ''
    yield 'kind', KINDS[facts['kind']] + saved + facts.get('remark', '')
    dead = f', {facts["dead_tensors"]} of them unused' if facts['dead_tensors'] else ''
    yield 'tensors', f'{facts["tensors"]}{dead}; {facts["parameters"] / 1e6:.1f}M values'
    if 'fault' in facts:
        yield 'fault', facts['fault']
    if facts['kind'] in ('text', 'other'):
        found = facts.get('sizes') or dict([*facts['shapes'].items()][:SHOWN])
        yield 'sizes', ', '.join(f'{name} {value}' for name, value in found.items())
        return
    sizes = facts['sizes']
    yield 'image tower', (f'width {sizes["width"]}, {sizes["layers"]} layers, patches of {sizes["patch_size"]} pixels, '
                          f'images of {sizes["resolution"]}x{sizes["resolution"]}; embeddings of {sizes["output_dim"]}')
    layers = facts['text_tower_layers']
    yield 'text tower', f'in the file, {layers} layers' if layers else 'not in the file'
    yield from _clip_lines(facts) if facts['kind'] == 'clip' else _clip_rc_lines(facts)


def _clip_lines(facts: dict) -> Iterator[tuple[str, str]]:
    if facts['gelu']:
        yield 'GELU', f'{facts["gelu"]} (model.backbone.gelu)'
    else:
        yield 'GELU', 'not in the file: train with --cfg-options model.clip_name=NAME, or model.backbone.gelu'
        yield 'same sizes', listed(facts['names'])
    yield 'train on it', shlex.join(['--cfg-options', *(f'model.{key}={facts["file"]}' for key in (
        'pretrained', 'pretrained_text'))])


def _clip_rc_lines(facts: dict) -> Iterator[tuple[str, str]]:
    sizes, names = facts['sizes'], facts['class_names']
    side = math.isqrt(sizes['regions'])
    yield 'prompt tokens', f'P = {sizes["prompts"]}'
    yield 'region tokens', f'R = {sizes["regions"]}, {side}x{side}' if side else 'R = 0: without region clues'
    recovery = f', recovery decoder of {sizes["recovery_layers"]}' if sizes['recovery_layers'] else ''
    yield 'decoder', f'{sizes["decoder_layers"]} layers{recovery}'
    if facts['own_modules']:
        yield 'own modules', f'{listed(facts["own_modules"])} (custom_imports)'
    yield 'dataset', 'not recorded' if names is None else facts['dataset'] or 'none of this repository'
    if names is not None:
        yield 'classes', listed(names)
    for key in ('unseen_names', 'setting', 'prompt_set', 'iteration', 'seed'):
        value = facts[key]
        yield key.replace('_', ' '), ('not recorded' if value is None else listed(value) if isinstance(value, list) else
                                      str(value))
    table = facts['text_embeddings']
    yield 'text embeddings', (f'in the file, {table["shape"][0]}x{table["shape"][1]}' if table else 'not in the file')
    if facts['best_score'] is not None:
        yield 'best score', f'{facts["best_score"]:.4f} until then, of {facts["best_checkpoint"]}'
    if facts['configs']:
        yield 'such configs', f'{", ".join(facts["configs"])} (the same classes and setting)'
    yield 'test it', shlex.join(['python', 'test.py', 'CONFIG', facts['file'], '--eval', 'mIoU'])


def main() -> None:
    parser = argparse.ArgumentParser(description='Print what a checkpoint is: kind, sizes and metadata.')
    parser.add_argument('file', metavar='FILE', help='.pth, .pt or .safetensors')
    parser.add_argument('--json', action='store_true', help='print everything as JSON')
    args = parser.parse_args()
    from models.weights import files
    from tools.results.inspection import inspect
    facts = inspect(files.read(args.file))
    if args.json:
        print(json.dumps(facts, indent=1))
        return
    text = list(lines(facts))
    width = max(len(name) for name, _ in text) + 2
    print('\n'.join(f'{name:{width}}{value}' for name, value in text))


if __name__ == '__main__':
    run(main)
