"""Measure training and testing on a GPU beside the method word for word (`oracle.py`): `python tests/gpu.py`.

Random weights and images, bfloat16, VOC and COCO-Stuff at batch 2 (published for a GPU on COCO-Stuff), 8 and 16.
Prints a Markdown table and writes gpu.json.
`--dry-run` does the same on the CPU with a small model, to show that the command works.
"""
import argparse
import gc
import itertools
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # this repository's `datasets`, before any installed one

# isort: split
import torch
from mmcv.runner import build_optimizer
from torch import Tensor

from models import CLIPRC
from models.precision import autocast
from tests.oracle import Oracle
from tools.benchmarking.measuring import machine, matrix_rate
from tools.benchmarking.subjects import model_of, training_labels
from tools.engine.arguments import positive_int
from tools.engine.config import load_config
from tools.engine.flop_count import floors
from tools.engine.process import Place

CONFIGS = {'VOC': 'configs/voc12/clip_rc_zero_vit-b_512x512_40k_voc_10_16.py',
           'COCO-Stuff': 'configs/coco/clip_rc_zero_vit-b_512x512_80k_coco_stuff164k_100_16.py'}
SMALL = ['image_size=64', 'model.backbone.width=64', 'model.backbone.prompt_dim=64', 'model.backbone.layers=2',
         'model.backbone.total_d_layer=1', 'model.backbone.heads=2', 'model.backbone.output_dim=32',
         'model.backbone.region_level_bridge_size=4', 'model.decode_head.in_channels=32',
         'model.decode_head.channels=32', 'model.decode_head.embed_dims=32', 'model.decode_head.num_heads=2']
GOALS = {'training': 'at least 4 times the oracle\'s speed, at most 0.35 of its memory',
         'testing': 'at least 5 times the oracle\'s speed, at least 40 % of the matrix rate'}
Step = Callable[[], object]


def training(model: CLIPRC, losses: Callable[[], dict[str, Tensor]], optimizer: torch.optim.Optimizer) -> Step:
    """A step with the optimizer, under the model's autocast."""
    def step() -> None:
        optimizer.zero_grad()
        with autocast(next(model.parameters()).device, model.amp_dtype):
            terms = losses()
        sum(value for name, value in terms.items() if 'loss' in name).backward()
        optimizer.step()
    return step


def testing(model: CLIPRC, scores: Step) -> Step:
    """A forward pass, under the model's autocast."""
    @torch.no_grad()
    def step() -> None:
        with autocast(next(model.parameters()).device, model.amp_dtype):
            scores()
    return step


def measure(step: Step, count: int, limit: float, device: torch.device) -> dict[str, float]:
    """Time up to `count` steps, at most `limit` seconds of them, and count the waits of the host in one."""
    cuda = device.type == 'cuda'
    wait = torch.cuda.synchronize if cuda else lambda: None
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        step()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        if cuda:
            torch.cuda.set_sync_debug_mode('warn')
        step()
        if cuda:
            torch.cuda.set_sync_debug_mode('default')
    wait()
    done, began = 0, time.perf_counter()
    while done == 0 or done < count and time.perf_counter() - began < limit:
        step()
        done += 1
        if done % 10 == 0:
            wait()
    wait()
    return {'seconds': (time.perf_counter() - began) / done, 'steps': done,
            'host_waits': sum('called a synchronizing' in str(each.message) for each in caught),
            'peak_bytes': torch.cuda.max_memory_allocated() if cuda else 0}


def row_of(ours: Step, literal: Step, batch: int, multiply_adds: int, rate: float, args: argparse.Namespace,
           device: torch.device) -> dict:
    """Measure both; give speed, memory and their ratios."""
    one = measure(ours, args.steps, args.limit, device)
    row = {'images_per_second': batch / one['seconds'], 'matrix_share': batch * multiply_adds / one['seconds'] / rate,
           **one}
    try:
        other = measure(literal, 10, args.limit, device)
    except torch.OutOfMemoryError:
        return {**row, 'oracle': 'out of memory'}
    ratio = one['peak_bytes'] / other['peak_bytes'] if other['peak_bytes'] else None
    return {**row, 'oracle': other, 'speed_ratio': other['seconds'] / one['seconds'], 'memory_ratio': ratio}


def rows_of(title: str, batch: int, args: argparse.Namespace, place: Place, rate: float) -> Iterator[dict]:
    """Measure a config's training and testing at a batch size."""
    config = load_config(str(Path(sys.path[0]) / CONFIGS[title]), SMALL if args.dry_run else [], None)
    model = model_of(config, place)
    model.amp_dtype, side, floor = torch.bfloat16, model.backbone.input_resolution, floors(model)
    optimizer, oracle = build_optimizer(model, config.optimizer), Oracle(model)
    images = torch.randn(batch, 3, side, side, device=place.device)
    labels = training_labels(model, batch, side, place.device)
    for job, ours, literal, multiply_adds in (
            ('training', training(model, lambda: model.forward_train(images, [{}] * batch, labels), optimizer),
             training(model, lambda: oracle.losses(images, labels), optimizer), floor.step),
            ('testing', testing(model, lambda: model.encode_decode(images, None)),
             testing(model, lambda: oracle.scores(images)), floor.window)):
        model.train(job == 'training')
        row = {'config': title, 'job': job, 'batch': batch}
        try:
            yield row | row_of(ours, literal, batch, multiply_adds, rate, args, place.device)
        except torch.OutOfMemoryError:
            yield row | {'error': 'out of memory'}
        optimizer.zero_grad()


COLUMNS = ('bfloat16', 'batch', 'images/s', 'of the matrix rate', 'peak GB', 'host waits a step',
           "x the oracle's speed", 'of its memory')
HEAD = f'| {" | ".join(COLUMNS)} |\n{"| --- " * len(COLUMNS)}|'


def line(row: dict) -> str:
    """Write a row of the table."""
    if 'error' in row:
        return f'| {row["config"]}, {row["job"]} | {row["batch"]} | {row["error"]} | | | | | |'
    ratios = [f'{row[key]:.2f}' if row.get(key) else row['oracle'] if isinstance(row['oracle'], str) else ''
              for key in ('speed_ratio', 'memory_ratio')]
    return (f'| {row["config"]}, {row["job"]} | {row["batch"]} | {row["images_per_second"]:.1f} | '
            f'{100 * row["matrix_share"]:.0f} % | {row["peak_bytes"] / 1e9:.1f} | {row["host_waits"]} | '
            f'{" | ".join(ratios)} |')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dry-run', action='store_true', help='a small model on the CPU, three steps at most')
    parser.add_argument('--steps', type=positive_int, default=100, help='steps to time (default: 100)')
    parser.add_argument('--limit', type=float, default=10, help='seconds for them at most (default: 10)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/gpu'), help='folder for gpu.json')
    args = parser.parse_args()
    if args.dry_run:
        args.steps = min(args.steps, 3)
    elif not torch.cuda.is_available():
        sys.exit('PyTorch sees no GPU; --dry-run needs none.')
    place = Place(torch.device('cpu' if args.dry_run else 'cuda'))
    rate = matrix_rate(place.device, torch.float32 if args.dry_run else torch.bfloat16)
    report = {'machine': machine(place), 'matrix_multiply_adds_per_second': rate, 'goals': GOALS}
    print(f'{report["machine"]["name"]}, torch {torch.__version__}, {rate / 1e12:.2f} T multiply-adds/s in a matrix '
          f'product of {"float32" if args.dry_run else "bfloat16"}')
    print(HEAD, flush=True)
    report['rows'] = []
    args.out.mkdir(parents=True, exist_ok=True)
    for title, batch in itertools.product(CONFIGS, (1, 2) if args.dry_run else (2, 8, 16)):
        for row in rows_of(title, batch, args, place, rate):
            report['rows'].append(row)
            print(line(row), flush=True)
            (args.out / 'gpu.json').write_text(json.dumps(report, indent=1) + '\n')  # the time may be over soon
    print(f'numbers: {args.out / "gpu.json"}; goals: {json.dumps(GOALS)}')


if __name__ == '__main__':
    main()
