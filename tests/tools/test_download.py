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
    """Returns the exit status or, of an error, the message."""
    try:
        download.main(['--url', url, '--out', str(out.parent)])
    except SystemExit as end:
        return end.code
    return 0


def test_names_of_openais_files(monkeypatch):
    asked = []
    monkeypatch.setattr(download, 'MODELS', MODELS)
    monkeypatch.setattr(downloads, 'obtain', lambda *request: asked.append(request) or 1)
    download.main([])
    download.main([*MODELS])
    assert [path for path, *_ in asked] == [REPOSITORY / f'pretrained/{name}.pt' for name in ('ViT-B-16', *MODELS)]
    for path, (url,), expected in asked:
        assert url.split('/')[-2:] == [MODELS[path.stem], path.name] and expected == {'sha256': MODELS[path.stem]}


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
    assert done.returncode == 1 and done.stderr.startswith('checking ViT-B-32.pt\nerror: ViT-B-32.pt has the SHA-256')


@pytest.mark.parametrize(('have', 'supports_range', 'drops', 'ranges', 'sent'), [
    (0, True, 0, [None], [200_000]),
    (0, True, 1, [None, f'bytes={HALF}-'], [HALF, HALF]),
    (150_000, True, 0, ['bytes=150000-'], [50_000]),
    (200_000, True, 0, ['bytes=200000-'], []),  # only the hash is missing
    (HALF, False, 0, [f'bytes={HALF}-'], [200_000])])
def test_a_part_is_resumed(server, out, part, capsys, have, supports_range, drops, ranges, sent):
    """Whether it is left from an earlier run, or from a connection that was dropped."""
    server.supports_range, server.drops = supports_range, drops
    if have:
        part.write_bytes(CONTENT[:have])
    assert run(server.url, out) == 0
    assert out.read_bytes() == CONTENT and [*out.parent.iterdir()] == [out]
    assert (server.ranges, server.sent) == (ranges, sent)
    assert run(server.url, out) == 0 and server.ranges == ranges
    assert capsys.readouterr().out.count('its SHA-256 is right') == 2


WRONG = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
DIFFERS = f'has the SHA-256 {hashlib.sha256(WRONG).hexdigest()}, expected {SHA256}'


@pytest.mark.parametrize(('change', 'requests', 'sent', 'words'), [
    (lambda server, out: server.files.update({'/clip.pt': WRONG}), 1, 0, [DIFFERS, 'was deleted. Run this again']),
    (lambda server, out: (out.parent.mkdir(), out.write_bytes(WRONG)), 0, 0, [DIFFERS, 'another file. Delete it']),
    (lambda server, out: server.files.clear(), 1, 0, ['404', 'Run this again to resume', 'by hand']),
    (lambda server, out: setattr(server, 'drops', 100), 4, 187_500, ['Run this again to resume', 'by hand']),
    (lambda server, out: out.parent.write_text('a file'), 0, 0, ['File exists']),
], ids=['wrong file from the server', 'another file there', 'not found', 'always dropped', 'no folder'])
def test_failures(server, out, change, requests, sent, words):
    change(server, out)
    before = out.exists() and out.read_bytes()
    error = run(server.url, out)
    for word in ['error: ', str(out.parent), *words, '--out names another folder, and --url a mirror']:
        assert word in error
    assert len(server.ranges) == requests and (out.exists() and out.read_bytes()) == before
    part = out.with_name('ViT-B-16.pt.part')
    assert (part.read_bytes() if part.exists() else b'') == CONTENT[:sent]


@pytest.mark.parametrize('missing', [0, 1])
def test_free_space_is_checked_for_what_is_still_to_come(server, out, part, monkeypatch, missing):
    part.write_bytes(CONTENT[:HALF])
    usage = namedtuple('usage', 'free')(len(CONTENT) - HALF - missing)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    ended = run(server.url, out)
    assert 'are free in' in ended and part.read_bytes() == CONTENT[:HALF] if missing else ended == 0 and out.exists()


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


def test_two_downloads_of_a_file_at_a_time(server, out, part):
    with downloads.alone(out):
        part.write_bytes(CONTENT[:HALF])
        assert 'another process is downloading' in run(server.url, out)
    assert not server.ranges and part.read_bytes() == CONTENT[:HALF]
    assert run(server.url, out) == 0 and [*out.parent.iterdir()] == [out]
