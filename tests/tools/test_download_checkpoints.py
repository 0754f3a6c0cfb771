"""The authors' checkpoints: gdown's own code against a local server that stands for Google Drive, and mirrors."""
import hashlib
import io
import json
import shutil
import socket
import sys
from collections import namedtuple

import gdown  # noqa: F401  its module below
import pytest
import requests
import torch

from tests.conftest import REPOSITORY
from tests.web_server import serving
from tools import download
from tools.downloading import authors
from tools.engine import downloads


def checkpoint(seed: int) -> bytes:
    file = io.BytesIO()
    torch.save({'state_dict': {'w': torch.rand(50_000, generator=torch.Generator().manual_seed(seed))}}, file)
    return file.getvalue()


CONTENT, OTHER = checkpoint(0), checkpoint(1)
SHA256, HALF = hashlib.sha256(CONTENT).hexdigest(), len(CONTENT) // 2
NAME = 'voc12-inductive'
KEY = download.CHECKPOINTS[NAME][1]
PAGE = f'https://drive.google.com/file/d/{KEY}/view'
FILE, WARNING = '/download?id=file', f'/uc?id={KEY}'
CONFIRM = b'''<!DOCTYPE html><html><body><form id="download-form" action="https://drive.usercontent.google.com/download">
<input type="hidden" name="id" value="file"></form></body></html>'''.replace(b'\n', b'')  # "too large to be scanned"
QUOTA = b'''<!DOCTYPE html><html><body><p class="uc-error-caption">Sorry</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></body></html>'''
HTML, ATTACHED = {'Content-Type': 'text/html'}, {'Content-Disposition': 'attachment; filename="latest.pth"',
                                                 'Content-Type': 'application/octet-stream'}


@pytest.fixture
def drive(monkeypatch):
    """A server that gdown takes for Google Drive; it warns first that the file is too large to be scanned."""
    with serving({WARNING: CONFIRM, FILE: CONTENT}) as server:
        server.headers = {WARNING: HTML, FILE: ATTACHED}
        get = requests.Session.get
        server.asked = []

        def to_server(session, url, **options):
            server.asked.append(url)
            assert '.google.com/' in url, 'another address'
            return get(session, f'{server.url}/{url.split("google.com/")[1]}', **options)

        monkeypatch.setattr(requests.Session, 'get', to_server)
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(downloads, 'RETRY_WAITS', (0, 0, 0))
    monkeypatch.setattr(downloads, 'CHUNK', 1000)
    monkeypatch.setattr(authors, 'RETRIES', 1)
    monkeypatch.setattr(sys.modules['gdown.download'], 'CHUNK_SIZE', 1000)
    monkeypatch.setattr(sys.modules['gdown.download'], '_wait_or_cancel', lambda **_: None)
    monkeypatch.setenv('no_proxy', '*')


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'pretrained' / f'{NAME}.pth'


def run(out, *options) -> int | str:
    """Returns the exit status or, of an error, the message."""
    try:
        download.main([NAME, '--out', str(out.parent), *options])
    except SystemExit as end:
        return end.code
    return 0


def names(out) -> set[str]:
    return {file.name for file in out.parent.iterdir()}


def test_the_first_download_is_trusted_and_later_ones_are_compared_with_it(drive, out, capsys):
    assert run(out) == 0
    assert out.read_bytes() == CONTENT and names(out) == {out.name, f'{out.name}.json'}
    said = capsys.readouterr().out
    assert f'{len(CONTENT):,} bytes, SHA-256 {SHA256}, trusted on first use: nobody has published its hash' in said
    assert f'test.py configs/voc12/clip_rc_zero_vit-b_512x512_40k_voc_10_16.py {out} --eval mIoU' in said
    assert json.loads(out.with_name(f'{out.name}.json').read_text()) == {
        'size': len(CONTENT), 'sha256': SHA256, 'source': PAGE}
    asked = len(drive.asked)
    assert run(out) == 0 and len(drive.asked) == asked, 'it is there'
    assert 'as at the first download' in capsys.readouterr().out

    out.unlink()
    drive.files[FILE] = OTHER
    error = run(out)
    assert f'has the SHA-256 {hashlib.sha256(OTHER).hexdigest()}, expected {SHA256}, and was deleted' in error
    assert f'({out}.json): if the authors have replaced theirs, delete this record' in error
    assert names(out) == {f'{out.name}.json'}
    out.with_name(f'{out.name}.json').unlink()
    assert run(out) == 0 and out.read_bytes() == OTHER
    out.write_bytes(CONTENT)
    assert 'it is truncated, or another file. Delete it' in run(out) and out.read_bytes() == CONTENT


@pytest.mark.parametrize('supports_range', [True, False])
def test_a_cut_connection_is_resumed_where_the_server_allows(drive, out, monkeypatch, supports_range, capsys):
    """After the retries of a run, too."""
    monkeypatch.setattr(authors, 'RETRIES', 0)
    drive.files, drive.headers = {WARNING: CONTENT}, {WARNING: ATTACHED}
    drive.supports_range, drive.drops = supports_range, 1
    error = run(out)
    assert 'incomplete' in error and f'open {PAGE} in a browser, save the file as {out}' in error
    part, = out.parent.iterdir()
    have = part.stat().st_size
    assert HALF - 1000 <= have <= HALF and part.read_bytes() == CONTENT[:have]
    drive.ranges.clear()
    assert run(out) == 0 and out.read_bytes() == CONTENT
    assert f'bytes={have}-' in drive.ranges
    assert ('starting anew' in capsys.readouterr().err) == (not supports_range)
    assert names(out) == {out.name, f'{out.name}.json'}


@pytest.mark.parametrize(('page', 'words'), [
    (QUOTA, 'Too many users have viewed or downloaded this file recently.'),
    (b'<html><body>Sign in</body></html>', 'Cannot retrieve the public link of the file.')], ids=['quota', 'login'])
def test_a_page_instead_of_the_file_is_never_saved(drive, out, page, words):
    drive.files[WARNING] = page
    error = run(out)
    assert error.startswith(f'error: Google Drive does not give the file (Failed to retrieve file url: {words}')
    assert f'open {PAGE} in a browser, save the file as {out}, and run this again, which checks it' in error
    assert '\n' not in error and not names(out)


@pytest.mark.parametrize(('content', 'words'), [
    (QUOTA, 'is a web page, not a checkpoint'), (CONTENT[:HALF], 'is truncated or damaged, not a checkpoint'),
    (CONTENT[:HALF] + b'!' + CONTENT[HALF + 1:], 'is damaged (')], ids=['page', 'half', 'bit'])
@pytest.mark.parametrize('way', ['drive', 'mirror', 'by hand'])
def test_what_is_no_checkpoint_is_not_trusted(drive, out, content, words, way):
    """Whether the server sends it as the file, or a browser has saved it."""
    drive.files[FILE] = content
    out.parent.mkdir()
    if way == 'by hand':
        out.write_bytes(content)
    error = run(out, *(['--url', drive.url + FILE] if way == 'mirror' else []))
    assert words in error and str(out) in error and PAGE in error
    assert names(out) == ({out.name} if way == 'by hand' else set())


def test_a_file_put_there_by_hand_is_checked_and_recorded(drive, out, capsys):
    out.parent.mkdir()
    out.write_bytes(CONTENT)
    assert run(out) == 0 and not drive.asked
    assert f'SHA-256 {SHA256}, trusted on first use' in capsys.readouterr().out


def test_a_mirror_is_resumed(drive, out):
    out.parent.mkdir()
    out.with_name(f'{out.name}.part').write_bytes(CONTENT[:HALF])
    assert run(out, '--url', drive.url + FILE) == 0
    assert out.read_bytes() == CONTENT and drive.ranges == [f'bytes={HALF}-']
    assert json.loads(out.with_name(f'{out.name}.json').read_text())['source'] == drive.url + FILE


def test_a_network_that_refuses(out, monkeypatch):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        closed = f'http://127.0.0.1:{probe.getsockname()[1]}/'
    get = requests.Session.get
    monkeypatch.setattr(requests.Session, 'get', lambda session, url, **options: get(session, closed, **options))
    error = run(out)
    assert error.startswith('error: Google Drive does not give the file (Download failed after 1 retries:') or \
        error.startswith('error: cannot reach Google Drive (')
    assert 'Connection refused' in error and f'open {PAGE} in a browser, save the file as {out}' in error


def test_a_full_disk(drive, out, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: namedtuple('usage', 'free')(0))
    assert 'MB are needed and 0 MB are free in' in run(out)
    assert not out.exists()


def test_without_gdown(out, monkeypatch):
    monkeypatch.setattr(authors.importlib.util, 'find_spec', lambda name: None)
    error = run(out)
    assert f'pip install -r {REPOSITORY / "tools/download_requirements.txt"}; or open {PAGE}' in error


def test_a_damaged_record(drive, out):
    out.parent.mkdir()
    out.with_name(f'{out.name}.json').write_text('{}')
    assert 'is damaged: delete it to trust the next one' in run(out) and not drive.asked


def test_the_list(out, capsys):
    out.parent.mkdir()
    out.write_bytes(CONTENT)
    download.main(['--list', '--out', str(out.parent)])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert {*download.FILES} == {*lines} - {'to'}
    assert lines[NAME].endswith(f'{out.name}    there') and lines['ViT-B-16'].endswith('not there')
