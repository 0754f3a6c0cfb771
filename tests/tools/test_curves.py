"""tools/curves.py: what counts of the logs of young, long, resumed and several runs, and how it is drawn."""
import json
import math

import numpy as np
import pytest
from PIL import Image

from tools.results import curves
from tools.results.curves import RATE, SCORES, joined, read_run, running_mean

SCRIPT = 'tools/curves.py'


def write(folder, losses, *, stamp='20260101_000000', scores=None, seed=0, end='\n', text=True):
    """A work folder with a log of training; `losses` by iteration."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [{'CLASSES': ['cat'], 'seed': seed}, *(
        {'mode': 'train', 'epoch': 1, 'iter': done, 'lr': round(2e-5 / done, 5), 'time': 0.1, 'decode.acc_seg': 9.,
         'decode.loss_mask': 0.9 * loss, 'loss': loss} for done, loss in losses.items()),
        {'mode': 'val', 'epoch': 1, 'iter': 1449, 'lr': 0., 'hIoU': 0.5}]
    (folder / f'{stamp}.log.json').write_text('\n'.join(map(json.dumps, entries)) + end)
    if text:
        (folder / f'{stamp}.log').write_text(''.join(
            f'2026-01-01 - mmseg - INFO - Iter [{done}/5000]\tlr: {2e-5 / done:.3e}, eta: 1\n' for done in losses))
    if scores:
        (folder / 'evaluations.jsonl').write_text(''.join(
            json.dumps({'iter': done, 'mIoU_seen': score, 'mIoU_unseen': score, 'hIoU': score}) + '\n'
            for done, score in scores.items()))
    (folder / 'config.py').write_text(f"data = {{'data_root': '{folder.parent}/world'}}\nseed = {seed}\n"
                                      f'work_dir = {str(folder)!r}\n')
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn."""
    figures, legend = [], curves.add_legend
    monkeypatch.setattr(curves, 'add_legend', lambda figure, *args, **options: (
        legend(figure, *args, **options), figures.append(figure)))
    return figures


def panels_of(figure) -> dict:
    return {axes.get_title(loc='left'): axes for axes in figure.axes if axes.get_visible()}


def labels(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_young_run(call, drawn, tmp_path):
    folder = write(tmp_path / 'run', {20: 3.}, end='\n{"mode": "train", "iter": 40, "lo')
    said = call(SCRIPT, folder).stderr
    assert f'curves of 1 run: {folder / "curves.png"}' in said and 'damaged' not in said
    with Image.open(folder / 'curves.png') as image:
        assert image.width > 1000 and len(image.convert('L').getcolors()) > 10
    panels = panels_of(drawn[0])
    assert list(panels) == ['loss', 'loss mask', RATE], 'without scores'
    line, = panels['loss'].lines
    assert line.get_marker() == 'o' and labels(drawn[0]) == ['run: iteration 20 of 5,000']


def test_a_foreign_log_and_a_folder_with_dollar_signs(call, fails, drawn, tmp_path):
    folder = write(tmp_path / r'$\frac{$', {20: 3.}, scores={20: 0.5})
    log, record = folder / '20260101_000000.log.json', folder / 'evaluations.jsonl'
    log.write_text(log.read_text() + '{"mode": "train", "iter": 1e999, "loss": 1}\n'
                   f'{{"mode": "train", "iter": 40, "loss": 1{400 * "0"}}}\n')
    record.write_text(record.read_text() + '{"iter": "40", "hIoU": 1}\n{"iter": null}\n')
    assert '2 damaged lines are left out' in call(SCRIPT, folder).stderr
    assert labels(drawn[0]) == [rf'{folder.name}: iteration 20 of 5,000']
    log.write_text('{"mode": "train", "iter": 40}\n')
    record.unlink()
    assert 'holds no iteration yet' in fails(SCRIPT, folder)


def test_a_long_run_is_smoothed_and_says_so(call, drawn, tmp_path):
    iterations = range(50, 20_050, 50)
    write(tmp_path / 'run', {done: 100 * math.exp(-done / 4000) + 5 * (done % 100 > 0) + 1 for done in iterations},
          scores={5000: 0.25, 20_000: 0.5})
    call(SCRIPT, tmp_path / 'run')
    panels = panels_of(drawn[0])
    raw, smooth = panels['loss'].lines
    assert len(raw.get_ydata()) == len(iterations), 'each logged value is drawn'
    assert raw.get_alpha() < 0.5 < smooth.get_linewidth() and smooth.get_alpha() is None
    assert labels(drawn[0])[1:] == ['as logged', 'mean over 1/40 of the run']
    assert panels['loss'].get_yscale() == 'log' and len(panels[RATE].lines) == 1
    score, = panels['hIoU in percent'].lines
    assert score.get_xydata().tolist() == [[5000, 25], [20_000, 50]]


def test_running_mean():
    iterations = np.arange(1, 402)  # a window of 10 iterations
    values = iterations.astype(float)
    values[200] = math.nan
    means = running_mean(iterations, values)
    assert np.isnan(means[:5]).all() and np.isnan(means[-5:]).all(), 'a shorter window would be noise'
    assert means[50] == pytest.approx(51) and means[200] == pytest.approx(201)
    assert means[202] == pytest.approx((sum(range(198, 209)) - 201) / 10)


def test_after_a_resume_the_later_log_counts(tmp_path):
    """Also where the earlier one went further; learning rates come from the text logs, JSON's are rounded."""
    write(tmp_path, dict.fromkeys(range(10, 101, 10), 1.0))
    write(tmp_path, dict.fromkeys(range(60, 81, 10), 2.0), stamp='20260102_000000', scores={50: 0.5, 80: 0.75})
    run = read_run(tmp_path)
    assert run.values['loss'] == {**dict.fromkeys(range(10, 51, 10), 1.), **dict.fromkeys(range(60, 81, 10), 2.)}
    assert run.values[SCORES['hIoU']] == {50: 50, 80: 75}
    assert run.values[RATE][80] == pytest.approx(2e-5 / 80) and (run.last, run.planned) == (80, 5000)
    assert set(run.values) == {'loss', 'decode.loss_mask', RATE, *SCORES.values()}


def test_without_a_text_log(tmp_path):
    run = read_run(write(tmp_path, {1: 1., 2: float('nan')}, text=False))
    assert run.planned is None and run.values[RATE] == {1: 2e-5, 2: 1e-5} and math.isnan(run.values['loss'][2])


def test_seeds_of_a_setting_share_a_colour(call, drawn, tmp_path):
    for seed in range(3):
        write(tmp_path / f'seed{seed}/inductive', {1: 1., 2: 2.}, seed=seed)
    other = write(tmp_path / 'seed0/other', {1: 1.})
    (other / 'config.py').write_text('lr = 2\nseed = 0\n')
    call(SCRIPT, *sorted(tmp_path.glob('*/*')), '--out', tmp_path / 'new')
    assert labels(drawn[0]) == ['seed*/inductive: 3 runs, iteration 2 of 5,000', 'seed0/other: iteration 1 of 5,000']
    colours = [line.get_color() for line in drawn[0].axes[0].lines]
    assert len(colours) == 4 and len(set(colours[:3])) == 1 and colours[3] != colours[0]
    assert (tmp_path / 'new/curves.png').exists()


def test_names_of_runs():
    assert joined(['a/b']) == 'a/b' and joined(['a', 'b']) == 'a, b'
    assert joined(['s1/x', 's2/x']) == 's*/x' and joined(['s1', 's2']) == 's*'
    assert joined(['x/inductive', 'x/transductive']) == 'x/*'


def test_runs_that_have_just_begun(call, fails, tmp_path):
    young, run = write(tmp_path / 'young', {}), write(tmp_path / 'run', {1: 1.})
    assert 'holds no iteration yet' in fails(SCRIPT, young)
    said = call(SCRIPT, young, run, tmp_path / 'curves.png').stderr
    assert f'left out: {young}' in said and 'curves of 1 run: ' in said


def test_bad_logs(call, fails, tmp_path):
    assert f'no *.log.json in {tmp_path}/nowhere: name the work folder' in fails(SCRIPT, tmp_path / 'nowhere')
    folder = write(tmp_path / 'run', {1: 1., 2: 2.})
    assert fails(SCRIPT, tmp_path).endswith(f'name the work folder of a training, such as {folder}.')
    log = next(folder.glob('*.log.json'))
    log.write_text('{"mode": "train", "it\n[1]\n\x00\n' + log.read_text())
    said = call(SCRIPT, folder).stderr
    assert said.count('3 damaged lines are left out') == 1 and 'Traceback' not in said
    log.write_bytes(b'\xff\x00\n' * 9)
    assert 'holds no iteration' in fails(SCRIPT, folder)
