"""Scores over runs: means and spreads, the published rows that belong to them, the files, and errors."""
import json
import os
import re
from pathlib import Path

import pytest

from tools.results.leaves import leaves
from tools.results.published import SCORES

SCRIPT = 'tools/summarize.py'
VOC = 'configs/voc12/clip_rc_zero_vit-b_512x512_40k_voc_10_16.py'
TRANSDUCTIVE = 'configs/voc12/clip_rc_zero_vit-b_512x512_20k_voc_10_16_st.py'
CONTEXT = 'configs/context/clip_rc_zero_vit-b_512x512_40k_{}_10_16.py'
CROSS = 'configs/cross_dataset/coco_to_voc20.py'


def write(folder, config=VOC, *, leaf=None, name='eval_single_scale_1.json', metric=None, facts=None, **scores):
    """A work folder with a result of test.py, of the classes, split, setting and protocol of the config `leaf`."""
    leaf = leaves()[leaf or config]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({
        'config': config, 'checkpoint': '/runs/it/iter_40000.pth', 'iteration': 40000, 'images': 1449,
        'protocol': leaf.protocol, 'setting': leaf.setting, 'unseen_names': leaf.split.unseen_names, 'own_modules': [],
        'trained_parameters': 28_530_000, **(facts or {}), 'metric': {
            'aAcc': None, 'mIoU': 0.5, 'mIoU_seen': None, 'mIoU_unseen': None, 'hIoU': None,
            **{f'IoU.{name}': 0.5 for name in leaf.split.names}, **scores} if metric is None else metric}))
    return folder


@pytest.fixture
def table(call):
    """Runs the script: the cells of its table, and all of its output."""
    def table(*arguments) -> tuple[list[list[str]], str]:
        text = call(SCRIPT, *arguments).stdout
        return [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines()
                if line.startswith('|')][2:], text
    return table


def test_seeds_are_one_row_with_mean_and_spread(table, tmp_path):
    folders = [write(tmp_path / f'seed{seed}', hIoU=score, aAcc=0.9) for seed, score in enumerate([0.80, 0.82, 0.87])]
    write(folders[0], hIoU=0.1, name='eval_single_scale_older.json')
    os.utime(folders[0] / 'eval_single_scale_older.json', (1, 1))
    write(folders[0], hIoU=0.9, name='eval_multi_scale_1.json')
    (folders[2] / '1.log.json').write_text(''.join(f'{{"mode": "train", "time": {time}}}\n' for time in (1, 2, 9)))
    (tmp_path / 'link').symlink_to(folders[2])
    rows, _ = table(*folders, tmp_path / 'link', folders[0])
    assert rows[0] == ['VOC 2012, 15/5', 'inductive', 'this code, 3 runs, 1,449 images', '90.0 ± 0.0', '-', '-',
                       '83.0 ± 3.6', '28.53', '-']
    assert [row[2::4] for row in rows if 'six' in row[2]] == [
        ['this code, 1 run, six scales, 1,449 images', '90.0']]
    labels = [row[2] for row in rows[1:]]
    assert labels[0] == 'published: CLIP-RC' and {'published: ZegCLIP', 'published: OTSeg+'} <= set(labels)
    own = leaves()[VOC].config.published
    assert rows[1][3:7] == [str(own[name]) for name in SCORES]
    assert all(row[:2] == ['VOC 2012, 15/5', 'inductive'] for row in rows), 'the protocol beside every number'
    assert table(folders[2])[0][0][-1] == '2.000', 'the median of the seconds of a step'


def test_settings_and_protocols_have_their_own_rows(table, tmp_path):
    configs = TRANSDUCTIVE, *(CONTEXT.format(name) for name in ('context60', 'context59', 'context59misindexed')), CROSS
    folders = [write(tmp_path / Path(config).stem, f'/elsewhere/{config}', leaf=config) for config in configs]
    rows, text = table(*folders)
    by_block = {}
    for row in rows:
        by_block.setdefault((row[0], row[1]), []).append(row[2].split(' [')[0].removeprefix('published: '))
    measured = 'this code, 1 run, 1,449 images'
    assert list(by_block.values()) == [[measured, 'CLIP-RC', 'ZegCLIP'], [measured, 'CLIP-RC', 'ZegCLIP'],
                                       [measured, 'OTSeg+'], [measured, 'Cascade-CLIP'],
                                       [measured, 'ZegCLIP', 'CAT-Seg ViT-B/16', 'CAT-Seg ViT-L/14']]
    assert all(word in protocol for word, (protocol, _) in zip(('VOC', '(a)', '(b)', '(c)', 'COCO'), by_block))
    assert '[1] second-hand' in text
    assert rows[-3][1:2] + rows[-3][3:7] == ['cross dataset', '-', '93.6', '-', '-']


@pytest.mark.parametrize('options', [
    {'metric': {'mIoU': 0.5, 'hIoU': 0.5, 'IoU.cat': 0.5, 'IoU.dog': 0.5}}, {'facts': {'unseen_names': ['cat']}},
    {'facts': {'protocol': None}}], ids=['other classes', 'another split', 'no protocol'])
def test_another_task_under_the_name_of_a_config(table, tmp_path, options):
    rows, _ = table(write(tmp_path / 'other', VOC, **options), write(tmp_path / 'same'))
    assert [row[0] for row in rows[:2]] == [VOC.split('/')[-1], 'VOC 2012, 15/5'], 'no published rows for the first'


@pytest.mark.parametrize('facts', [{}, {'own_modules': ['cosine']}])
def test_own_configs_stand_beside_the_row_that_they_compare_with(table, tmp_path, facts):
    """Also a copy of a config with other parts."""
    config = 'mine/flowers.py' if not facts else f'mine/{Path(VOC).name}'
    mine = write(tmp_path / 'mine', config, leaf=VOC, hIoU=0.9, facts=facts)
    rows, _ = table(mine, write(tmp_path / 'same', hIoU=0.8))
    assert [(row[2], row[6]) for row in rows[:3]] == [
        (f'{Path(config).stem}, 1 run, 1,449 images', '90.0'), ('this code, 1 run, 1,449 images', '80.0'),
        ('published: CLIP-RC', '88.4')]


def test_prompts_have_their_own_rows(table, tmp_path):
    """Of one run, tested one after another; a result of before they were recorded, too."""
    for time, (prompts, file, score) in enumerate([
            ('coco15', None, 0.1), ('imagenet80', None, 0.2), (['a {}'], None, 0.3), (None, '/my/rows.npy', 0.4),
            ('coco15', None, 0.5), (0, None, 0.6)]):
        facts = {} if prompts == 0 else {'prompt_set': prompts, 'text_embeddings': file}
        write(tmp_path, CROSS, name=f'eval_single_scale_{time}.json', facts=facts, mIoU_seen=score)
        os.utime(tmp_path / f'eval_single_scale_{time}.json', (time, time))
    rows = [row for row in table(tmp_path)[0] if 'this code' in row[2]]
    assert {row[2].removeprefix('this code, 1 run, 1,449 images').strip(' ,'): row[4] for row in rows} == {
        'coco15': '50.0', 'imagenet80': '20.0', 'own prompts': '30.0', 'embeddings of rows.npy': '40.0', '': '60.0'}


def test_datasets_that_are_not_of_this_repository(table, tmp_path):
    rows, _ = table(*(write(tmp_path / f'{score}', config, leaf=VOC, metric={'hIoU': score, 'IoU.rose': 0.5})
                      for config, score in (('mine/flowers.py', 0.1), ('mine/flowers.py', 0.2),
                                            ('yours/flowers.py', 0.9))))
    assert [row[:7] for row in rows] == [
        ['flowers.py', '-', 'this code, 2 runs, 1,449 images', '-', '-', '-', '15.0 ± 7.1'],
        ['flowers.py', '-', 'this code, 1 run, 1,449 images', '-', '-', '-', '90.0']]


def test_later_tests_that_hide_no_score(table, tmp_path):
    """On other data, of an earlier checkpoint, of fewer images, and of other metrics; all lie beside the checkpoint."""
    folder = tmp_path / 'it'
    for time, (config, iteration, images, score) in enumerate([
            (VOC, 20_000, 1449, 0.5), (VOC, 40_000, 1449, 0.6), (VOC, 40_000, 1449, 0.7), (VOC, 20_000, 1449, 0.5),
            (CROSS, 20_000, 1449, 0.8), (VOC, 20_000, 100, 0.9), (VOC, 40_000, 1449, None)]):
        name = f'eval_single_scale_{time}.json'
        dice = {'mDice': 0.5, **{f'Dice.{name}': 0.5 for name in leaves()[VOC].split.names}}
        write(folder, config, name=name, hIoU=score, metric=dice if score is None else None,
              facts={'checkpoint': f'/runs/it/iter_{iteration}.pth', 'iteration': iteration, 'images': images})
        os.utime(folder / name, (time, time))
    rows, text = table(folder)
    assert [(row[1], row[2], row[6]) for row in rows if row[2].startswith('this code')] == [
        ('inductive', 'this code, 1 run, 1,449 images [1]', '70.0'),
        ('cross dataset', 'this code, 1 run, 1,449 images', '80.0'),
        ('inductive', 'this code, 1 run, 100 images', '90.0')]
    assert f'[1] {folder}: the score is that of iter_40000.pth; not counted: iter_20000.pth' in text


def test_the_table_is_written(table, tmp_path):
    folders = [write(tmp_path / f'runs/{name}', config, leaf=VOC) for name, config in (
        ('a', VOC), ('b', TRANSDUCTIVE), ('c|d', 'own.py'))]
    rows, text = table(*folders)
    markdown = (tmp_path / 'runs/summary.md').read_text()
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in markdown.splitlines() if line[:1] == '|']
    assert cells[0][:2] == ['protocol', 'setting'] and set(''.join(cells[1])) <= set('-: ') and cells[2:] == rows
    assert f'written: {tmp_path / "runs/summary.md"}' in text
    table(*(tmp_path / 'runs').iterdir())  # summary.md is among them
    table(folders[0], '--out', tmp_path / 'new/v1.0')
    assert [path.name for path in (tmp_path / 'new/v1.0').iterdir()] == ['summary.md']


@pytest.mark.parametrize(('content', 'words'), [
    (None, ['no eval_*.json', 'python test.py']), ('{"config": "x', ['damaged', 'test again']),
    ('[1]', ['not a result of this test.py']), ('{"config": "a.py", "metric": {}}', ['not a result'])])
def test_bad_results(fails, tmp_path, content, words):
    """None: there is no such folder."""
    folder = tmp_path / 'runs/it'
    if content is not None:
        folder.mkdir(parents=True)
        (folder / 'eval_single_scale_1.json').write_text(content)
    message = fails(SCRIPT, folder)
    assert all(word in message for word in words) and str(folder) in message
    assert not list(tmp_path.glob('**/summary*')) and folder.exists() == (content is not None), 'something is written'


def test_the_table_of_published_scores(table):
    rows, _ = table('--published')
    assert len(rows) == 6
    for row in rows:
        own = leaves()[f'configs/{row[1].strip("`")}'].config.published
        assert row[2:6] == [str(score) for score in own.values()]
        assert re.match(r'\[(voc12|coco)-(inductive|transductive|fully)\]\(https://drive\.google\.com/file/d/', row[6])
