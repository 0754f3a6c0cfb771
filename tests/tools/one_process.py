"""One of several processes that train and test, for test_processes.py, and torchrun, which starts them."""
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

if __name__ == '__main__':
    sys.path[0] = str(Path(__file__).resolve().parents[2])

# isort: split
import torch
from mmcv import Config
from mmcv.parallel import DataContainer
from mmcv.runner import LogBuffer, set_random_seed
from mmseg.datasets import build_dataset
from torch import nn

from datasets.zero_shot import ZeroShotDataset
from models import CLIPRC, losses
from tools.engine import process
from tools.engine.data import evaluation_loader
from tools.engine.evaluation import Evaluation, collect, predict
from tools.engine.log_buffer import DeviceLogBuffer
from tools.engine.stopping import Stop
from tools.training.start import initial_model

SIDE = 64
# Classes of the images of process 0 and of process 1: other numbers of (image, class) pairs; none; more images.
BATCHES = {'other numbers': ([[0, 1, 2], [3, 4]], [[5], [6]]), 'none in the second': ([[0, 1], [7, 19, 2]], [[], []]),
           'none in the first': ([[], []], [[16], [2, 3]])}
SETTINGS = ['inductive', 'transductive']
REPOSITORY = Path(__file__).resolve().parents[2]
Step = tuple[dict[str, float], dict[str, torch.Tensor]]  # what is logged, gradients by parameter


def torchrun(processes: int, *arguments, env: dict[str, str] | None = None) -> None:
    """Run `torchrun ARGUMENTS` with so many processes on this machine."""
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes),
         *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=REPOSITORY,
        env={**os.environ, 'OMP_NUM_THREADS': '1', **(env or {})})
    assert done.returncode == 0, done.stdout + done.stderr


def images(classes: list[list[int]], seed: int) -> dict[str, DataContainer]:
    """A batch as a loader gives it: noise, and labels of which each class has a square; the rest is 255."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((len(classes), 1, SIDE, SIDE), 255)
    for label, names in zip(labels, classes, strict=True):
        for place, name in enumerate(names):
            label[0, 10 * place:10 * place + 10, 5:40] = name
    return {'img': DataContainer([torch.randn(len(classes), 3, SIDE, SIDE, generator=generator).double()], stack=True),
            'img_metas': DataContainer([[{} for _ in classes]], cpu_only=True),
            'gt_semantic_seg': DataContainer([labels], stack=True)}


def model_of(config: Config) -> CLIPRC:
    """Build the same model in every process, without dropout and with weights that tell classes apart."""
    set_random_seed(0)
    model = initial_model(config, None)
    set_random_seed(1)  # the first process embeds the class names, which draws
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.
    for parameter in model.decode_head.parameters():
        if parameter.ndim == 2:
            parameter.data += torch.randn(parameter.shape)
    return model


def one_step(config: Config, batch: dict[str, DataContainer], place: process.Place) -> Step:
    """Give the logged values of a step and the gradients for the optimizer."""
    wrapped = process.wrap(model_of(config).double().train(), place)
    outputs = wrapped.train_step(batch, None)
    outputs['loss'].backward()
    logged = DeviceLogBuffer(place)
    logged.update(outputs['log_vars'])
    logged.average()
    return dict(logged.output), {name: parameter.grad for name, parameter in wrapped.module.named_parameters()
                                       if parameter.requires_grad}


def first(dataset: ZeroShotDataset, count: int) -> ZeroShotDataset:
    dataset.img_infos = dataset.img_infos[:count]
    return dataset


def scored(config: Config, place: process.Place, folder: Path) -> dict[int, tuple]:
    """Give by number of images the label maps, the scores as in test.py, and the scores while training."""
    model, results = model_of(config), {}
    for count in range(1, 6):
        dataset = first(build_dataset(config.data.test, {'test_mode': True}), count)
        loader, wrapped = evaluation_loader(config, dataset, place), process.wrap(model, place)
        maps, parts = [], []
        for index, labels in predict(wrapped, loader, place):
            maps.append(labels)
            parts += dataset.pre_eval(labels, index)
        maps = collect(maps, count, place)
        parts = collect(parts, count, place)
        runner = SimpleNamespace(model=wrapped, iter=0, work_dir=str(folder), log_buffer=LogBuffer(),
                                 logger=logging.getLogger('mmseg'), stop=Stop(place), check_weights=lambda done: None)
        Evaluation(loader, place, interval=1, by_epoch=False, metric='mIoU')._do_evaluate(runner)
        if place.rank == 0:
            scores = dataset.evaluate(parts, metric='mIoU', logger='silent')
            del runner.log_buffer.output['eval_iter_num']  # images of this process
            results[count] = maps, scores, dict(runner.log_buffer.output)
    return results


def main(folder: Path) -> None:
    """Test, and with two processes train, as one of them; the first one saves the results."""
    place = process.start(SimpleNamespace(launcher='pytorch', local_rank=0, device='cpu', gpu_id=None))
    configs = {setting: Config.fromfile(folder / f'{setting}.py') for setting in SETTINGS}
    results = {'scored': scored(configs['inductive'], place, folder)}
    if place.world_size == 2:
        for setting, config in configs.items():
            for name, batches in BATCHES.items():
                results[setting, name] = one_step(config, images(batches[place.rank], place.rank), place)
            counted_together, losses.pair_count = losses.pair_count, lambda present: present.clamp(min=1)
            results[setting, 'uneven'] = one_step(config, images(BATCHES['other numbers'][place.rank], place.rank),
                                                 place)
            losses.pair_count = counted_together
    if place.rank == 0:
        torch.save(results, folder / f'{place.world_size}.pt')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
