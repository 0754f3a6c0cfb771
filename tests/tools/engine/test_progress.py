"""What a user sees of a long work: lines in a log, one line on a terminal, and nothing left on it after an error."""
import sys

import pytest

from models.errors import UserError
from tools.engine import process
from tools.engine.progress import Progress


def said(capsys, monkeypatch, *, terminal: bool) -> str:
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: terminal, raising=False)
    with pytest.raises(ValueError), Progress(0, 40, 'images') as progress:
        for done in range(1, 39):
            progress.update(done)
        raise UserError('broken')
    return capsys.readouterr().err


def test_an_error_stands_on_a_line_of_its_own(capsys, monkeypatch):
    """Also where the progress is that of a generator, which ends after the error is said."""
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)

    def images():
        with Progress(0, 4, 'images') as progress:
            for done in range(1, 5):
                yield done
                progress.update(done)

    def main():
        for done in images():
            if done == 3:
                raise UserError('broken')

    with pytest.raises(SystemExit) as caught:
        process.run(main)
    assert caught.value.code == 'error: broken' and capsys.readouterr().err.endswith('left\033[K\n')


def test_a_log_has_a_line_every_tenth(capsys, monkeypatch):
    lines = said(capsys, monkeypatch, terminal=False).splitlines()
    assert [line.split(',')[0] for line in lines] == [f' {tenth}0% of 40 images: {4 * tenth}'
                                                    for tenth in range(1, 10)]


def test_a_terminal_has_one_line_that_is_ended(capsys, monkeypatch):
    text = said(capsys, monkeypatch, terminal=True)
    assert text.count('\r') == 38 and text.count('\n') == 1 and text.endswith('\n')


@pytest.mark.parametrize(('counted', 'rate'), [('images', '0.4/s'), ('', '0.0 MB/s')])
def test_slow_works_have_a_rate(capsys, monkeypatch, counted, rate):
    times = iter([0., 5.])
    monkeypatch.setattr('time.monotonic', lambda: next(times))
    Progress(0, 4, counted).update(2)
    assert rate in capsys.readouterr().err
