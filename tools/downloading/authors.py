"""The authors' checkpoints: fetched from Google Drive by gdown, and checked, though nobody has published their hashes.

Imports nothing of this repository but `downloads`, as the command works without an environment.
"""
import errno
import importlib.util
import json
import re
import runpy
import sys
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tools.engine import downloads

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT = (10, downloads.TIMEOUT)  # seconds until a connection stands, and without a byte
RETRIES = 3


def obtain(path: Path, page: str, key: str, mirror: str | None) -> None:
    """Download a checkpoint unless it is there, and compare it with the first download, whose facts are kept beside it.

    Nobody has published a hash, so the first file is trusted: `NAME.pth.json` keeps its size and SHA-256.

    Args:
        page: its address for a browser.
        key: Google Drive's id of the file.
        mirror: an address to use instead of Google Drive.

    Raises:
        OSError: it cannot be downloaded, is no checkpoint, or differs from the first one; the message has the remedy.
    """
    record = path.with_name(f'{path.name}.json')
    known = read_record(record)

    def get(urls: Sequence[str], part: Path) -> None:
        if mirror:
            downloads.fetch_from_any(urls, part)
        else:
            fetch_from_drive(key, part, f'open {page} in a browser, save the file as {path}, and run this again, which '
                                        'checks it')
        try:
            check_is_checkpoint(part)
        except OSError as error:
            part.unlink()
            raise OSError(f'what came for {path} {error}, and was deleted. Run this again, or open {page} in a '
                          f'browser, and save the file as {path}') from error

    if path.exists():
        try:
            check_is_checkpoint(path)
        except OSError as error:
            raise OSError(f'{path} {error}: delete it and run this again, or save the file of {page} there') from error
    try:
        size = downloads.obtain(path, [mirror or page], known, get)
    except downloads.Differs as error:
        raise OSError(f'{error}. Expected is the file of the first download ({record}): if the authors have replaced '
                      'theirs, delete this record and run this again' if known else error) from error
    digest = known.get('sha256') or downloads.hash_of(path)
    if not known:
        record.write_text(json.dumps({'size': size, 'sha256': digest, 'source': mirror or page}, indent=1) + '\n')
    print(f'{path}: {size:,} bytes, SHA-256 {digest}, ' + (
        f'as at the first download ({record})' if known else
        f'trusted on first use: nobody has published its hash. {record.name} keeps it, and every later download must '
        'have the same'))


def read_record(record: Path) -> dict[str, int | str]:
    """Read size and SHA-256 of the first download; empty if there was none.

    Raises:
        OSError: the record is damaged.
    """
    if not record.exists():
        return {}
    try:
        facts = json.loads(record.read_text())
        return {'size': int(facts['size']), 'sha256': str(facts['sha256'])}
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f'{record}, which keeps the SHA-256 of the first download, is damaged: delete it to trust the '
                      'next one') from error


def check_is_checkpoint(path: Path) -> None:
    """Raise an OSError, whose text is the end of a sentence, if a file is no checkpoint, or a damaged one."""
    kinds = runpy.run_path(str(REPOSITORY / 'models/file_kinds.py'))
    kind, description = kinds['kind_of'](path)
    if kind != kinds['WEIGHTS']:
        described = re.split('[.:,] ', description)[0]  # without what to do with such a file
        raise OSError(f'is {described or "truncated or damaged"}, not a checkpoint')
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise OSError(f'is damaged ({damaged})')


def fetch_from_drive(key: str, part: Path, by_hand: str) -> None:
    """Fetch a file of Google Drive to `part`; gdown resumes its own `PART????????.part` beside it.

    Args:
        by_hand: what to do if Google Drive does not give it.

    Raises:
        OSError: Google Drive gives a page instead of the file, as when too many have downloaded it lately; the network
            refuses; the disk is full.
    """
    if importlib.util.find_spec('gdown') is None:
        raise OSError('Google Drive needs gdown: pip install -r '
                      f'{REPOSITORY / "tools/download_requirements.txt"}; or {by_hand}')
    import gdown
    print(f'downloading from Google Drive to {part}', file=sys.stderr)

    def partial() -> dict[Path, int]:
        return {file: file.stat().st_size for file in part.parent.glob(f'{part.name}????????.part')}

    for again in (True, False):
        before = partial()
        if len(before) > 1:  # gdown would refuse to choose
            for file in sorted(before, key=before.get)[:-1]:
                file.unlink()
        before = {file: size for file, size in before.items() if size and file.exists()}
        with ExitStack() as stack:
            try:
                gdown.download(id=key, output=str(part), quiet=True, use_cookies=False, resume=True, retries=RETRIES,
                               timeout=TIMEOUT, progress=Progress(part.parent, stack))
                return
            except (gdown.exceptions.DownloadError, LookupError, AssertionError) as error:
                if again and before and before == partial():  # the server does not continue this file: start anew
                    for file in before:
                        file.unlink()
                    print('it cannot be resumed: starting anew', file=sys.stderr)
                    continue
                reason = ' '.join(str(error).split()).split(' You may still be able')[0]
                raise OSError(f'Google Drive does not give the file ({reason or type(error).__name__}): try again '
                              f'later, or {by_hand}') from error
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise OSError(error.errno, error.strerror, str(part)) from error
                raise OSError(f'cannot reach Google Drive ({error}): run this again to resume, or {by_hand}') from error


class Progress:
    """Show gdown's progress in a bar; at the first chunk check that there is room for the rest.

    Args:
        stack: closes the bar.
    """

    def __init__(self, folder: Path, stack: ExitStack):
        self.folder, self.stack, self.bar, self.done = folder, stack, None, 0

    def __call__(self, done: int, total: int | None) -> None:
        if self.bar is None:
            downloads.require_space((total or done) - done, self.folder)
            self.bar = self.stack.enter_context(downloads.progress_bar(total, done))
        else:
            self.bar.update(done - self.done)
        self.done = done
