"""The open-vocabulary suite on a miniature of its six datasets: what is tested, what is tested again, the table."""
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import datasets
from tests.conftest import REPOSITORY
from tools.engine import build
from tools.engine.build import build_model, dataset_facts, describe
from tools.engine.config import load_config
from tools.engine.validation_images import VALIDATION_IMAGES
from tools.preparation.sources import BENCHMARKS
from tools.results.suite import SUITE

SCRIPT = 'tools/results/open_vocabulary.py'
NAMES = [part.name for part in SUITE]
COCO = 'configs/coco/clip_rc_zero_vit-b_512x512_80k_coco_stuff164k_100_16.py'
VOC12, VOC10 = 'VOCdevkit/VOC2012', 'VOCdevkit/VOC2010'
SMALL = ['image_size=64', *(f'model.{setting}' for setting in (
    'backbone.width=64', 'backbone.layers=3', 'backbone.heads=4', 'backbone.output_dim=32', 'backbone.num_tokens=3',
    'backbone.region_level_bridge_size=4', 'decode_head.in_channels=32', 'decode_head.num_heads=4',
    'text_encoder.transformer_width=32', 'text_encoder.transformer_heads=4', 'text_encoder.transformer_layers=2',
    'text_encoder.embed_dim=32')), 'data.workers_per_gpu=0']


def make_suite(root: Path) -> Path:
    """All six datasets in the layouts of tools/prepare_data.py, of two images each with a few classes."""
    random = np.random.default_rng(0)

    def write(images: str, masks: dict[str, tuple[np.ndarray, type]], split: str | None = None) -> None:
        names = ['0001', '0002']
        for folder in (images, *masks):
            (root / folder).mkdir(parents=True, exist_ok=True)
        if split:
            (root / split).parent.mkdir(parents=True)
            (root / split).write_text('\n'.join(names))
        for name in names:
            Image.fromarray(random.integers(0, 255, (64, 80, 3), dtype=np.uint8)).save(root / images / f'{name}.jpg')
            for folder, (ids, dtype) in masks.items():
                mask = np.repeat(random.choice(ids, 80), 64).reshape(80, 64).T
                Image.fromarray(np.ascontiguousarray(mask, dtype)).save(root / folder / f'{name}.png')

    write(f'{VOC12}/JPEGImages', {f'{VOC12}/SegmentationClass': (np.r_[0:21, 255], np.uint8)},
          f'{VOC12}/ImageSets/Segmentation/val.txt')
    write(f'{VOC10}/JPEGImages', {f'{VOC10}/SegmentationClassContext': (np.arange(60), np.uint8),
                                  f'{VOC10}/SegmentationClassContext459': (np.arange(460), np.uint16)},
          f'{VOC10}/ImageSets/SegmentationContext/val.txt')
    write('ade/ADEChallengeData2016/images/validation',
          {'ade/ADEChallengeData2016/annotations/validation': (np.arange(151), np.uint8)})
    write('ade/ADE20K847/images/validation',
          {'ade/ADE20K847/annotations/validation': (np.r_[0:847, 65535], np.uint16)})
    return root


@pytest.fixture
def options(clip_file) -> list[str]:
    """A small model, and the shortest prompt set."""
    return ['--cfg-options', *SMALL, f'model.pretrained={clip_file}', f'model.pretrained_text={clip_file}',
            'data.test.prompt_set=single']


@pytest.fixture
def checkpoint(tmp_path, options) -> Path:
    """An inductive COCO-Stuff model of random weights that predicts several classes."""
    torch.manual_seed(0)
    config = load_config(REPOSITORY / COCO, [*options[1:-1]])
    model, facts = build_model(config), dataset_facts(config)
    model.class_head.set_classes(171, torch.randn(171, 32))
    weights = {name: tensor + torch.randn(tensor.shape) * (name.startswith('decode_head') and tensor.ndim == 2)
               for name, tensor in model.state_dict().items()}
    torch.save({'state_dict': weights, 'meta': {'CLASSES': facts.split.names, 'iter': 99, 'clip_rc': describe(
        model, config)}}, tmp_path / 'coco.pth')
    return tmp_path / 'coco.pth'


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv('DATA', str(tmp_path / 'data'))
    monkeypatch.setenv('WORK_DIR', str(tmp_path / 'work'))
    return make_suite(tmp_path / 'data')


@pytest.fixture
def to_test(call, checkpoint, options) -> Callable[..., dict[str, str]]:
    """Plans: the folder of each dataset that is left to test, by name."""
    def to_test(*more: str) -> dict[str, str]:
        file, *lines = call(SCRIPT, 'plan', checkpoint, *options, *more).stdout.splitlines()
        assert file == str(checkpoint)
        return dict(line.split('\t') for line in lines)
    return to_test


def test_the_suite_is_that_of_the_configs_and_of_the_preparation():
    assert {part.benchmark: VALIDATION_IMAGES[part.benchmark] for part in SUITE} == {
        part.benchmark: BENCHMARKS[part.benchmark].splits[-1].count for part in SUITE}
    for part in SUITE:
        config = load_config(REPOSITORY / f'configs/cross_dataset/coco_to_{part.name}.py')
        assert issubclass(getattr(datasets, config.data.test.type), getattr(
            datasets, BENCHMARKS[part.benchmark].dataset)), part


def test_the_suite_in_miniature(call, fails, to_test, options, data, checkpoint, tmp_path, monkeypatch):
    """With random embeddings, which take no time."""
    work, generator = tmp_path / 'work', torch.Generator().manual_seed(0)
    monkeypatch.setattr(build, 'cached_embeddings', lambda encoder, facts, source: torch.randn(
        len(facts.split.names), 32, generator=generator))

    def test_all(roots: dict[str, str]) -> None:
        """As open_vocabulary.sh does."""
        for name, root in roots.items():
            call('test.py', REPOSITORY / f'configs/cross_dataset/coco_to_{name}.py', checkpoint, *options, '--eval',
                 'mIoU', '--work-dir', work / name, '--data-root', root)

    roots = to_test()
    assert list(roots) == NAMES and roots['voc20'] == roots['voc20b'] == str(data / VOC12)
    test_all({name: root for name, root in roots.items() if name != 'context59'})

    # After an interruption, with what a test left that was killed while it wrote.
    (work / 'context59').mkdir()
    (work / 'context59/eval_single_scale_1.json').write_text('{"config": ')
    assert list(to_test()) == ['context59']
    text = call(SCRIPT, 'table', checkpoint, *options).stdout
    assert text == (work / 'open_vocabulary.md').read_text().removeprefix('# Open-vocabulary suite\n\n') + \
        f'written: {work / "open_vocabulary.md"}, .json\n'
    head, _, *rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines()
                      if line.startswith('|')]
    assert head[1:] == ['A-847', 'PC-459', 'A-150', 'PC-59', 'PAS-20', 'PAS-20b']
    rows = {row[0]: row[1:] for row in rows}
    assert rows['CAT-Seg ViT-B/16'] == ['12.0', '19.0', '31.8', '57.5', '94.6', '77.3']
    assert rows['images'] == ['2 of 2,000', '2 of 5,104', '2 of 2,000', '-', '2 of 1,449', '2 of 1,449']
    assert rows['classes named in training'] == [
        '109 of 847, 13%', '96 of 459, 21%', '63 of 150, 42%', '-', '19 of 20, 95%', '19 of 20, 95%']
    assert rows['prompts'] == ['single'] * 3 + ['-'] + ['single'] * 2
    assert 'inductive, with the names of 156 of the 171 classes of COCOStuff164k' in text
    assert '- PC-59: not tested' in text

    written = json.loads((work / 'open_vocabulary.json').read_text())['datasets']
    for index, (name, entry) in enumerate(written.items()):
        if name == 'context59':
            assert 'mIoU' not in entry
            continue
        metric = json.loads(Path(entry['file']).read_text())['metric']
        iou = {key.removeprefix('IoU.'): value for key, value in metric.items() if key.startswith('IoU.')}
        known, new = (list(entry['overlap'][side]) for side in ('known', 'new'))
        assert {*known, *new} == {*iou} - {'background'} and not {*known} & {*new}
        for side, names, row in (('mIoU', list(iou), 'this checkpoint'), ('mIoU_known', known, None),
                                 ('mIoU_new', new, 'this checkpoint, new classes')):
            values = [iou[name] for name in names if iou[name] is not None]
            assert entry[side] == metric[side] == pytest.approx(np.mean(values), abs=1e-4) if values else \
                entry[side] is None
            if row:
                number = '' if side == 'mIoU' else f' ({len(new)})'
                assert rows[row][index] == (f'{100 * entry[side]:.1f}' if values else '-') + ' *' + number
    assert min(written[name]['mIoU_known'] for name in ('voc20', 'voc20b')) > 0, 'the case is too easy'
    assert rows['this checkpoint'][0].endswith(' *') and 'does not compare' in text

    # Only the same checkpoint, settings and data count.
    test_all({'context59': roots['context59']})
    assert to_test() == {}
    assert list(to_test('--aug-test')) == NAMES
    os.utime(data / VOC12 / 'SegmentationClass/0001.png', (1, 1))
    assert list(to_test()) == ['voc20', 'voc20b']
    stored = torch.load(checkpoint, weights_only=True)
    stored['meta']['iter'] += 1
    torch.save(stored, checkpoint)
    assert 'with these settings and data' in fails(SCRIPT, 'table', checkpoint, *options)


def test_what_is_not_prepared(call, fails, data, checkpoint, options):
    """One dataset is not there at all, one in part; then all are not."""
    shutil.rmtree(data / 'ade/ADE20K847')
    (data / VOC10 / 'SegmentationClassContext459/0002.png').unlink()
    done = call(SCRIPT, 'plan', checkpoint, *options)
    assert [line.split('\t')[0] for line in done.stdout.splitlines()[1:]] == [
        name for name in NAMES if name not in ('ade847', 'context459')]
    assert f'A-847: not prepared: no folder {data}/ade/ADE20K847/images/validation' in done.stderr
    assert 'PC-459: not prepared' in done.stderr and 'mask missing: 0002.png' in done.stderr
    assert f'    python tools/prepare_data.py context459 --root {data} --download\n' in done.stderr
    assert 'A-150: 2 of 2,000 images to test' in done.stderr
    shutil.rmtree(data)
    error = fails(SCRIPT, 'plan', checkpoint, *options)
    assert 'none of the six datasets is prepared' in error and error.count('python tools/prepare_data.py') == 6
    assert 'no file' in fails(SCRIPT, 'plan', 'nowhere.pth', *options)
    assert 'no_such' in fails(SCRIPT, 'plan', checkpoint, '--cfg-options', 'no_such=1')


def test_a_checkpoint_of_another_clip(fails, data, checkpoint):
    """The configs are for ViT-B/16, which has 12 heads."""
    assert 'heads=4, the config says 12: it is for another CLIP' in fails(SCRIPT, 'plan', checkpoint)


FAKE = '''#!/bin/bash
printf '%s\\n' "$*" >>"{log}"
case "$*" in
  *open_vocabulary.py\\ plan*) printf '/real/it.pth\\nvoc20\\t/data/V O C\\nvoc20b\\t/data/V O C\\tc=3\\td=4 5\\n' ;;
  *voc20.py*) exit ${{FAIL:-0}} ;;
  *open_vocabulary.py\\ table*) echo the table ;;
esac
'''


def test_the_shell_command(run, tmp_path):
    """It tests what is planned, in turn, then makes the table; a failure does not stop it, and is named at the end."""
    fake, log = tmp_path / 'python', tmp_path / 'log'
    fake.write_text(FAKE.format(log=log))
    fake.chmod(0o755)

    def calls(*arguments, **options) -> tuple[list[str], str]:
        log.write_text('')
        done = run('tools/open_vocabulary.sh', *arguments, check=False, env={
            'PYTHON': str(fake), 'WORK_DIR': 'here', **options})
        return log.read_text().splitlines(), done.stdout, done.returncode

    lines, said, status = calls('coco-inductive', 2, '--cfg-options', 'a=1', 'b=2')
    suite = f'{REPOSITORY}/{SCRIPT}'
    assert lines == [f'{suite} plan coco-inductive --cfg-options a=1 b=2', *(
        f'-m torch.distributed.run --standalone --nproc-per-node 2 {REPOSITORY}/test.py '
        f'{REPOSITORY}/configs/cross_dataset/coco_to_{name}.py /real/it.pth --cfg-options a=1 b=2 --launcher pytorch '
        f'--eval mIoU --work-dir here/{name} --data-root /data/V O C{own}'
        for name, own in (('voc20', ''), ('voc20b', ' --cfg-options c=3 d=4 5'))),
        f'{suite} table /real/it.pth --cfg-options a=1 b=2']
    assert (said, status) == ('the table\n', 0)
    lines, said, status = calls('it.pth', FAIL='7')
    assert len(lines) == 4 and '--launcher none' in lines[1] and (said, status) == ('the table\n', 1)
    for wrong in ([], ['it.pth', 0], ['it.pth', 'two'], ['--aug-test']):
        assert calls(*wrong) == ([], '', 2)


def test_options_that_the_suite_does_not_take(run, tmp_path):
    """Those of test.py that choose a folder, of which all six would use the same one."""
    done = run(SCRIPT, 'plan', 'it.pth', '--show-dir', tmp_path, check=False, env={'PYTHON': sys.executable})
    assert done.returncode == 2 and 'unrecognized arguments: --show-dir' in done.stderr
