"""The CLIP download against a web server on this host that can misbehave in the ways real ones do."""

import hashlib
import random
import shutil
import subprocess
import sys
from collections import namedtuple
from contextlib import nullcontext

import open_clip
import pytest

from tests.conftest import REPOSITORY
from tests.web_server import serving
from tools import download
from tools.engine import downloads

CONTENT = random.Random(0).randbytes(200_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MODELS = dict(download.MODELS)
HALF = len(CONTENT) // 2


@pytest.fixture
def server():
    with serving({'/clip.pt': CONTENT}) as server:
        server.url += '/clip.pt'
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small chunks, no waits, and no proxy between the script and the server."""
    monkeypatch.setattr(downloads, 'RETRY_WAITS', (0, 0, 0))
    monkeypatch.setattr(downloads, 'CHUNK', 1000)
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setattr(download, 'MODELS', {'ViT-B-16': SHA256})


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'pretrained' / 'ViT-B-16.pt'


@pytest.fixture
def part(out):
    """Where the beginning of `out` is kept; its folder is there."""
    out.parent.mkdir()
    return out.with_name('ViT-B-16.pt.part')


def run(url, out):
    """Returns the exit status."""
    try:
        download.main(['--url', url, '--out', str(out.parent)])
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code
    return 0


def assert_one_error(capsys, *parts):
    """The last line on stderr is the only error, and has all of `parts` in it."""
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if 'error: ' in line] == lines[-1:]
    assert lines[-1].startswith('error: ')
    assert not any('Traceback' in line for line in lines)
    for text in parts:
        assert str(text) in lines[-1]


def test_names_of_openais_files(monkeypatch):
    asked = []
    monkeypatch.setattr(download, 'MODELS', MODELS)
    monkeypatch.setattr(download, 'download', lambda *request: asked.append(request))
    download.main([])
    download.main([*MODELS])
    assert [name for name, *_ in asked] == ['ViT-B-16', *MODELS]
    for name, folder, url in asked:
        assert url.split('/')[-2:] == [MODELS[name], f'{name}.pt'] and folder == REPOSITORY / 'pretrained'


def test_hashes_are_those_that_open_clip_knows():
    for name, sha256 in MODELS.items():
        assert open_clip.get_pretrained_cfg(name.removesuffix('px'), 'openai')['url'].split('/')[-2] == sha256


def test_an_unknown_model(capsys):
    with pytest.raises(SystemExit):
        download.main(['ViT-B-17'])
    assert 'unknown model ViT-B-17; there are ViT-B-16' in capsys.readouterr().err


def test_runs_from_any_directory_with_the_standard_library_alone(tmp_path):
    (tmp_path / 'ViT-B-32.pt').write_bytes(CONTENT)
    done = subprocess.run([sys.executable, '-I', '-S', download.__file__, 'ViT-B-32', '--out', '.'], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith('error: ViT-B-32.pt is another file: it has the SHA-256')


@pytest.mark.parametrize(('have', 'supports_range', 'ranges', 'sent'), [
    (0, True, [None], [200_000]),
    (150_000, True, ['bytes=150000-'], [50_000]),
    (200_000, True, ['bytes=200000-'], []),  # only the hash is missing
    (HALF, False, [f'bytes={HALF}-'], [200_000])])
def test_a_part_is_resumed(server, out, part, capsys, have, supports_range, ranges, sent):
    server.supports_range = supports_range
    if have:
        part.write_bytes(CONTENT[:have])
    assert run(server.url, out) == 0
    assert out.read_bytes() == CONTENT and [*out.parent.iterdir()] == [out]
    assert (server.ranges, server.sent) == (ranges, sent)
    assert run(server.url, out) == 0 and server.ranges == ranges
    assert 'already there' in capsys.readouterr().out


def test_dropped_connection_is_continued_in_the_same_run(server, out):
    server.drops = 1
    assert run(server.url, out) == 0
    assert out.read_bytes() == CONTENT
    assert server.ranges == [None, f'bytes={HALF}-']
    assert sum(server.sent) == len(CONTENT)


def test_connection_that_keeps_dropping_leaves_the_part(server, out, capsys):
    server.drops = 100
    assert run(server.url, out) == 1
    assert_one_error(capsys, server.url, out, 'by hand')
    assert len(server.ranges) == 1 + len(downloads.RETRY_WAITS)
    assert not out.exists()
    assert out.with_name('ViT-B-16.pt.part').read_bytes() == CONTENT[:sum(server.sent)]


def test_wrong_hash_leaves_no_file(server, out, capsys):
    server.files['/clip.pt'] = wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    assert run(server.url, out) == 1
    assert list(out.parent.iterdir()) == []
    assert_one_error(capsys, SHA256, hashlib.sha256(wrong).hexdigest(), server.url, 'run this again')


def test_other_file_is_left_untouched(server, out, part, capsys):
    out.write_bytes(b'something else')
    assert run(server.url, out) == 1
    assert out.read_bytes() == b'something else'
    assert_one_error(capsys, out, SHA256, hashlib.sha256(b'something else').hexdigest(), 'delete it', '--out')
    assert server.ranges == []


def test_not_found_is_not_tried_again(server, out, capsys):
    url = server.url.replace('clip.pt', 'missing.pt')
    assert run(url, out) == 1
    assert_one_error(capsys, '404', url, out, 'by hand')
    assert len(server.ranges) == 1
    assert list(out.parent.iterdir()) == []


def test_folder_that_cannot_be_created(server, out, capsys):
    out.parent.write_text('a file in the place of the folder')
    assert run(server.url, out) == 1
    assert_one_error(capsys, server.url, out, '--out', 'by hand')
    assert out.parent.read_text() == 'a file in the place of the folder'
    assert server.ranges == []


@pytest.mark.parametrize(('missing', 'code'), [(0, 0), (1, 1)])
def test_free_space_is_checked_for_what_is_still_to_come(server, out, part, capsys, monkeypatch, missing, code):
    part.write_bytes(CONTENT[:HALF])
    usage = namedtuple('usage', 'free')(len(CONTENT) - HALF - missing)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    assert run(server.url, out) == code
    assert out.exists() == (code == 0)
    if code:
        assert part.read_bytes() == CONTENT[:HALF]
        assert_one_error(capsys, 'free', server.url, out)


def test_interrupted_run_can_be_resumed(server, out, capsys, monkeypatch):
    class Interrupted:
        def update(self, count):
            if out.with_name('ViT-B-16.pt.part').stat().st_size >= HALF:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(downloads, 'progress_bar', lambda *_: nullcontext(Interrupted()))
        assert run(server.url, out) == 130
    assert 'run this again' in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()
    have = out.with_name('ViT-B-16.pt.part').stat().st_size
    assert run(server.url, out) == 0
    assert out.read_bytes() == CONTENT
    assert server.ranges == [None, f'bytes={have}-']


@pytest.mark.parametrize('terminal', [False, True])
def test_progress_is_shown_on_a_terminal_alone(server, out, capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: terminal)
    if not terminal:
        monkeypatch.setitem(sys.modules, 'tqdm', None)  # it may be missing
    assert run(server.url, out) == 0
    assert ('100%' in capsys.readouterr().err) == terminal
