"""Scores over runs: means and spreads, the published rows that belong to them, the files, and errors."""
import json
import os
import statistics
import sys

import numpy as np
import pytest

from datasets.metrics import zero_shot_scores
from tools import summarize
from tools.engine import errors
from tools.results.leaves import leaves
from tools.results.published import SCORES

VOC = 'configs/voc12/clip_rc_zero_vit-b_512x512_40k_voc_10_16.py'
TRANSDUCTIVE = 'configs/voc12/clip_rc_zero_vit-b_512x512_20k_voc_10_16_st.py'
CONTEXT = 'configs/context/clip_rc_zero_vit-b_512x512_40k_{}_10_16.py'


def write(folder, config=VOC, *, name='eval_single_scale_20250101_000000.json', **metric):
    """A work folder with a result of test.py."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({'config': config, 'metric': metric}))
    return folder


def class_scores(config: str, seed: int = 0) -> dict[str, float]:
    """The metric that test.py writes for random IoU of a config's classes."""
    split = leaves()[config].facts.split
    iou = np.random.default_rng(seed).random(len(split.names)).round(4)
    scores = {'aAcc': 0.5, **zero_shot_scores(iou, split.seen, split.unseen)}
    return {name: None if np.isnan(score) else round(score, 4) for name, score in scores.items()} | {
        f'IoU.{name}': score for name, score in zip(split.names, iou)}


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the script; the cells of its table, and all that it printed."""
    def run(*arguments) -> tuple[list[list[str]], str]:
        monkeypatch.setattr(sys, 'argv', ['summarize.py', *map(str, arguments)])
        summarize.main()
        text = capsys.readouterr().out
        return [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines()
                if line.startswith('|')][2:], text
    return run


@pytest.fixture
def fails(monkeypatch):
    """Runs the script; the error that it ends with."""
    def fails(*arguments) -> str:
        monkeypatch.setattr(sys, 'argv', ['summarize.py', *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            errors.run(summarize.main)
        assert caught.value.code.startswith('error: ')
        return caught.value.code
    return fails


def test_seeds_are_one_row_with_mean_and_spread(run, tmp_path):
    scores = [0.80, 0.82, 0.87]
    folders = [write(tmp_path / f'seed{seed}', hIoU=score, aAcc=0.9) for seed, score in enumerate(scores)]
    write(folders[0], hIoU=0.1, name='eval_single_scale_older.json')
    os.utime(folders[0] / 'eval_single_scale_older.json', (1, 1))
    write(folders[0], hIoU=0.9, name='eval_multi_scale_1.json')
    rows, _ = run(*folders)
    assert rows[0] == ['VOC 2012, 15/5', 'inductive', 'this code, 3 runs', '90.0 ± 0.0', '-', '-', '83.0 ± 3.6']
    assert statistics.stdev(scores) == pytest.approx(0.0361, abs=1e-4)
    assert [row[2::4] for row in rows if 'six' in row[2]] == [['this code, 1 run, six scales', '90.0']]
    labels = [row[2] for row in rows[1:]]
    assert labels[0] == 'published: CLIP-RC' and {'published: ZegCLIP', 'published: OTSeg+'} <= set(labels)
    own = leaves()[VOC].config.published
    assert rows[1] == ['VOC 2012, 15/5', 'inductive', labels[0], *(str(own[name]) for name in SCORES)]
    assert all(row[:2] == ['VOC 2012, 15/5', 'inductive'] for row in rows), 'the protocol beside every number'


def test_one_run_has_no_spread_and_a_folder_counts_once(run, tmp_path):
    folder = write(tmp_path / 'it', hIoU=0.8, mIoU_seen=float('nan'), mIoU_unseen=None)
    (tmp_path / 'link').symlink_to(folder)
    rows, _ = run(folder, folder, tmp_path / 'link')
    assert rows[0][2:] == ['this code, 1 run', '-', '-', '-', '80.0']


def test_settings_and_protocols_have_their_own_rows(run, tmp_path):
    names = ('context60', 'context59', 'context59misindexed')
    folders = [write(tmp_path / 'st', f'/elsewhere/{TRANSDUCTIVE}', hIoU=0.9),
               *(write(tmp_path / name, CONTEXT.format(name), **class_scores(CONTEXT.format(name))) for name in names)]
    rows, text = run(*folders)
    by_block = {}
    for row in rows:
        by_block.setdefault((row[0], row[1]), []).append(row[2].split(' [')[0].removeprefix('published: '))
    assert list(by_block.values()) == [['this code, 1 run', 'CLIP-RC', 'ZegCLIP'],
                                       ['this code, 1 run', 'CLIP-RC', 'ZegCLIP'], ['this code, 1 run', 'OTSeg+'],
                                       ['this code, 1 run', 'Cascade-CLIP']]
    assert [letter in protocol for letter, (protocol, _) in zip(('VOC', '(a)', '(b)', '(c)'), by_block)] == [True] * 4
    assert '[1] second-hand' in text


def test_a_model_of_another_data_set(run, tmp_path):
    config = 'configs/cross_dataset/coco_to_voc20.py'
    rows, _ = run(write(tmp_path / 'cross', config, **class_scores(config)))
    assert rows[0][1] == 'cross dataset' and rows[0][5:] == ['-', '-'] and rows[0][4] != '-'
    assert rows[1][2:] == ['published: ZegCLIP', '-', '93.6', '-', '-']


@pytest.mark.parametrize('metric', [
    {'hIoU': 0.5, 'IoU.cat': 0.5, 'IoU.dog': 0.5}, {**class_scores(VOC), 'mIoU_unseen': 0.99}],
    ids=['other classes', 'another split'])
def test_other_classes_or_another_split_under_the_name_of_a_config(run, tmp_path, metric):
    rows, _ = run(write(tmp_path / 'other', VOC, **metric), write(tmp_path / 'same', VOC, **class_scores(VOC)))
    assert [row[0] for row in rows[:2]] == [VOC.split('/')[-1], 'VOC 2012, 15/5'], 'no published rows for the first'


def test_configs_that_are_not_of_this_repository(run, tmp_path):
    rows, _ = run(*(write(tmp_path / f'{n}', 'mine/flowers.py', hIoU=0.1 * n) for n in (1, 2)),
                  write(tmp_path / 'other', 'yours/flowers.py', hIoU=0.9))
    assert rows == [['flowers.py', '-', 'this code, 2 runs', '-', '-', '-', '15.0 ± 7.1'],
                    ['flowers.py', '-', 'this code, 1 run', '-', '-', '-', '90.0']]


def test_a_later_test_on_another_data_set_hides_no_row(run, tmp_path):
    """Both write beside the checkpoint."""
    cross = 'configs/cross_dataset/coco_to_voc20.py'
    folder = write(tmp_path / 'run', VOC, name='eval_single_scale_1.json', **class_scores(VOC))
    write(folder, cross, name='eval_single_scale_2.json', **class_scores(cross))
    rows, _ = run(folder)
    assert [row[1] for row in rows if row[2].startswith('this code')] == ['inductive', 'cross dataset']


def test_a_later_test_of_an_earlier_checkpoint_does_not_count(run, tmp_path):
    """Tests of iterations 20000, 40000, 40000 and 20000 once more, of all images and of 100."""
    folder = tmp_path / 'it'
    for time, (iteration, images, score) in enumerate([(20_000, 1449, 0.5), (40_000, 1449, 0.6), (40_000, 1449, 0.7),
                                                         (20_000, 1449, 0.5), (20_000, 100, 0.9)]):
        name = f'eval_single_scale_{time}.json'
        write(folder, name=name, hIoU=score)
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), 'checkpoint': f'/runs/it/iter_{iteration}.pth',
                                    'iteration': iteration, 'data_root': 'data', 'images': images}))
        os.utime(file, (time, time))
    rows, text = run(folder)
    assert [(row[2], row[-1]) for row in rows if row[2].startswith('this code')] == [
        ('this code, 1 run, 1,449 images [1]', '70.0'), ('this code, 1 run, 100 images', '90.0')]
    assert f'[1] {folder}: the score is that of iter_40000.pth; not counted: iter_20000.pth' in text


def test_a_test_of_other_metrics_hides_no_score(run, tmp_path):
    dice = {'aAcc': 0.5, 'mDice': 0.5, **{name.replace('IoU', 'Dice'): 0.5 for name in class_scores(VOC)
                                          if name.startswith('IoU.')}}
    folder = write(tmp_path / 'it', name='eval_single_scale_1.json', **class_scores(VOC))
    os.utime(next(folder.glob('*.json')), (1, 1))
    alone, _ = run(folder)
    write(folder, name='eval_single_scale_2.json', **dice)
    assert run(folder)[0] == alone


def test_the_table_is_written(run, tmp_path):
    folders = [write(tmp_path / f'runs/{name}', config, hIoU=0.8, mIoU_seen=0.9, mIoU_unseen=0.7)
               for name, config in (('a', VOC), ('b', VOC), ('c', TRANSDUCTIVE), ('d|e', 'own.py'))]
    rows, text = run(*folders)
    markdown = (tmp_path / 'runs/summary.md').read_text()
    table = [[cell.strip() for cell in line.strip('|').split('|')] for line in markdown.splitlines() if line[:1] == '|']
    assert table[0][:2] == ['protocol', 'setting'] and set(''.join(table[1])) <= set('-: ') and table[2:] == rows
    assert f'written: {tmp_path / "runs/summary.md"}' in text
    run(*(tmp_path / 'runs').iterdir())  # summary.md is among them
    run(folders[0], '--out', tmp_path / 'new/v1.0')
    assert [path.name for path in (tmp_path / 'new/v1.0').iterdir()] == ['summary.md']


@pytest.mark.parametrize(('content', 'words'), [
    (None, ['no eval_*.json', 'python test.py']), ('{"config": "x', ['damaged', 'test again']),
    ('[1]', ['not a result of test.py']),
    ('{"config": "a.py", "metric": {"hIoU": [1]}}', ['not a result'])])
def test_bad_results(fails, tmp_path, content, words):
    folder = tmp_path / 'runs/it'
    folder.mkdir(parents=True)
    if content is not None:
        (folder / 'eval_single_scale_1.json').write_bytes(content if isinstance(content, bytes) else content.encode())
    message = fails(folder)
    assert all(word in message for word in words) and str(folder) in message
    assert not list((tmp_path / 'runs').glob('summary*')), 'nothing is written'


def test_folders_that_are_not_there(fails, tmp_path):
    assert f'no folder {tmp_path / "nowhere/it"}' in fails(tmp_path / 'nowhere/it')
    assert not (tmp_path / 'nowhere').exists()


def test_the_table_of_published_scores(run):
    rows, _ = run('--published')
    assert len(rows) == 6
    for row in rows:
        own = leaves()[f'configs/{row[1].strip("`")}'].config.published
        assert row[2:6] == [str(score) for score in own.values()]
        assert row[6].startswith('[download](https://drive.google.com/file/d/')
