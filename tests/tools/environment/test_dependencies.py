"""The lock fits the requirements; setup_env.sh installs it and checks its hashes, or says that it cannot."""
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY
from tools.environment.join_sources import APART, join

LOCK = (REPOSITORY / 'tools/environment/tested.lock').read_text()


def pins(lock: str) -> dict[str, str]:
    """Read the versions of a lock, by package."""
    return dict(re.findall(r'^([a-z\d][\w.-]*)==(\S+)', lock, flags=re.MULTILINE))


PINS = pins(LOCK)
REQUIREMENTS = ['requirements.txt', 'tests/requirements.txt', 'tools/download_requirements.txt',
                'tools/webapp_requirements.txt', 'tools/export_requirements.txt', 'tools/environment/tested.in']


@pytest.mark.parametrize('file', REQUIREMENTS)
def test_the_lock_holds_what_is_asked_for(file):
    lines = [line for line in (REPOSITORY / file).read_text().splitlines() if line and line[0] not in '#-']
    assert lines
    for requirement in map(Requirement, lines):
        assert PINS[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_each_package_has_hashes_and_no_place_is_named():
    packages = re.split(r'^(?=[a-z])', LOCK, flags=re.MULTILINE)[1:]
    assert len(packages) == len(PINS) > 100
    assert all(re.search(r'--hash=sha256:[\da-f]{64}\b', package) for package in packages)
    assert '://' not in LOCK and ' /' not in LOCK and 'file:' not in LOCK and '-index' not in LOCK
    assert 'opencv-python' not in PINS, 'it has the same files as opencv-python-headless'


# ---- setup_env.sh, with an interpreter that makes and installs nothing

STAND_IN = r"""#!/usr/bin/env bash
record() { # the arguments of an installation
  echo "$@" >>"$SAID/calls"
  while [ $# -gt 0 ]; do
    case $1 in
      -r) cat "$2" >>"$SAID/installed" ;;
      --dest) tar -czf "$2/mmcv-full-1.7.2.tar.gz" -C "$SOURCE" mmcv-full-1.7.2 ;;
      --wheel-dir) touch "$2/mmcv_full-1.7.2-stand_in.whl" && cat "$CXX" >"$SAID/compiler" ;;
    esac
    shift
  done
}
case "${0##*/} $*" in
  *'-m venv '*)
    headers=$3/lib/python3.11/site-packages/torch/include/ATen
    mkdir -p "$3/bin" "$headers" && cp "$0" "$3/bin/python"
    echo '#error C++20 or later compatible compiler is required to use ATen.' >"$headers/ATen.h" ;;
  'uv '*)
    record uv "$@"
    [ ! -e "$SAID/slow" ] || sleep 60
    [ ! -e "$SAID/no_uv" ] || { echo 'error: no such index'; exit 2; } ;;
  *'-m pip --version'*) ;;
  *'-m pip '*' config list') cat "$SAID/pip.conf" 2>/dev/null ;;
  *'-m pip '*)
    record pip "${@:4}"
    case "$*" in *uv.txt) cp "$0" "${0%/*}/uv" ;; esac
    [ ! -e "$SAID/break" ] || { echo 'no space left'; exit 1; } ;;
  *'version("torch")'*) echo "$WITH_TORCH" ;;
  *version_info*) echo "$WITH_PYTHON" ;;
  *'import tools, torch'*) ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


def make_sources(archive: Path) -> Path:
    """Make a folder like that of mmcv-full's source archive; return the folder of the C++ files."""
    folder = archive / 'mmcv/ops/csrc/pytorch'
    (folder / 'cpu').mkdir(parents=True)
    for name in (*(f'op{number}.cpp' for number in range(9)), *APART, 'cpu/nms.cpp', 'cpu/roi_align.cpp'):
        (folder / name).write_text(f'// {name}\n')
    return folder


@pytest.fixture
def setup(tmp_path):
    """Runs `setup_env.sh --apart` of a Python without dot and a torch; `said` is where the installations are kept."""
    said = tmp_path / 'said'
    said.mkdir()
    stand_in = tmp_path / 'python'
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    make_sources(tmp_path / 'mmcv-full-1.7.2')

    def setup(python: str = '311', torch: str | None = None, script=REPOSITORY / 'tools/setup_env.sh', apart=True,
              start=subprocess.run):
        environment = {name: value for name, value in os.environ.items() if name not in ('TORCH', 'CLIPRC_ENV')}
        return start(
            ['bash', script, *(['--apart'] if apart else [])], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment | {'PYTHON': str(stand_in), 'REAL_PYTHON': sys.executable, 'SAID': str(said),
                               'SOURCE': str(tmp_path), 'CLIPRC_CACHE': str(tmp_path / 'cache'),
                               'WITH_PYTHON': python, 'WITH_TORCH': torch or PINS['torch'],
                               **({'TORCH': torch} if torch else {})})

    setup.said = said
    setup.calls = lambda: (said / 'calls').read_text().splitlines() if (said / 'calls').exists() else []
    return setup


@pytest.mark.parametrize('without_uv', [None, 'no_uv', 'pip.conf'])
def test_the_lock_is_installed_once_and_its_hashes_checked(setup, without_uv):
    """Also after a failure, and by pip where uv fails or pip has an index of its own."""
    if not without_uv:
        (setup.said / 'break').touch()
        assert setup().returncode != 0
        for file in setup.said.iterdir():
            file.unlink()
    else:
        (setup.said / without_uv).write_text("global.index-url='https://packages.example'\n")
    done = setup()
    assert done.returncode == 0, done.stderr
    environment, = done.stdout.splitlines()
    assert os.path.basename(environment).startswith(f'py311-torch{PINS["torch"]}-')
    *before, everything, source, compiled, wheel = calls = setup.calls()
    assert [call.split()[0] for call in before] == {None: ['pip'], 'no_uv': ['pip', 'uv'], 'pip.conf': []}[without_uv]
    assert all('--require-hashes' in call for call in (*before, everything, source))
    assert everything.startswith('pip ' if without_uv else 'uv ')
    assert ('uv cannot install them (error: no such index)' in done.stderr) == (without_uv == 'no_uv')
    assert '--no-index' in compiled and 'mmcv-full-1.7.2' in compiled, 'not what was downloaded and checked'
    assert '--no-index' in wheel and wheel.endswith('.whl'), 'nothing but what was compiled here'
    pinned = (setup.said / 'installed').read_text()
    assert pins(pinned) == PINS and list(pins(pinned))[-1] == 'mmcv-full'
    if without_uv == 'pip.conf':
        assert pinned.count('--hash') == LOCK.count('--hash')
    assert (setup.said / 'compiler').read_text().endswith('"$@" -std=c++20\n'), "not what torch's headers ask for"
    assert 'made in 0 min' in done.stderr
    assert not os.path.exists(f'{environment}.work'), 'the downloads take space'
    assert setup().stdout == done.stdout
    assert setup.calls() == calls, 'it was made a second time'


def test_a_failure_shows_the_end_of_the_log(setup):
    (setup.said / 'break').touch()
    done = setup()
    assert done.returncode == 1 and not done.stdout
    assert 'no space left\nsetup_env: pip cannot install the packages; the whole log: ' in done.stderr
    assert 'no space left' in Path(done.stderr.rsplit('log: ', 1)[1].strip()).read_text()


def test_an_interrupted_setup_leaves_nothing_running(setup):
    (setup.said / 'slow').touch()
    # A shell cannot trap a signal that was ignored when it started, as SIGINT is for jobs in the background.
    process = setup(start=partial(subprocess.Popen, preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL)))
    limit = time.monotonic() + 60
    while not setup.calls() or not setup.calls()[-1].startswith('uv '):
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)  # waits for everything that could still write there
    assert process.returncode == 1 and 'stopped: run the same command again to continue' in stderr
    environment = setup.calls()[-1].split('--python ')[1].split('/bin/')[0]
    assert environment not in subprocess.run(['ps', '-eo', 'args'], text=True, capture_output=True).stdout
    (setup.said / 'slow').unlink()
    assert setup().stdout.strip() == environment


def test_each_source_is_in_one_unit(tmp_path):
    folder = make_sources(tmp_path)
    sources = {str(file.relative_to(folder)) for file in folder.rglob('*.cpp')}
    join(folder)
    units = [file.read_text() for file in sorted(folder.rglob('*.cpp'))]
    assert len(units) == 4 and all(unit.startswith('#include <torch/extension.h>\n') for unit in units)
    included = [re.findall(r'#include "(.*)\.hpp"\n#undef min\n#undef max\n', unit) for unit in units]
    assert sorted(f'{name}.cpp' for unit in included for name in unit) == sorted(sources)
    assert all((folder / name).with_suffix('.hpp').read_text() == f'// {name}\n' for name in sources)
    assert {f'{name}.cpp' for name in included[0] if name.startswith('cpu/')} == set(APART), 'their names clash'


@pytest.mark.parametrize('python, torch', [('312', None), ('311', '2.7.1')])
def test_elsewhere_the_ranges_are_installed_and_it_says_so(setup, python, torch):
    done = setup(python=python, torch=torch)
    assert done.returncode == 0, done.stderr
    assert 'is not the tested set' in done.stderr and 'hashes unchecked' in done.stderr
    torch = torch or PINS['torch']
    assert os.path.basename(done.stdout).startswith(f'py{python}-torch{torch}-')
    installer, everything, source, *_ = setup.calls()
    assert f'torch=={torch}' in everything and '--require-hashes' not in everything
    assert '--require-hashes' in installer and '--require-hashes' in source, 'these archives are the same for all'
    assert setup().stdout != done.stdout, 'the tested set has an environment of its own'


def test_a_ready_environment_is_linked_and_named(setup, tmp_path):
    (tmp_path / 'clone/tools').mkdir(parents=True)
    for name in ('tools/setup_env.sh', 'tools/environment', 'tests', 'requirements.txt'):
        (tmp_path / 'clone' / name).symlink_to(REPOSITORY / name)
    folder = setup().stdout.strip()
    done = setup(script=tmp_path / 'clone/tools/setup_env.sh', apart=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('setup_env: ready: Python 3.') and f'torch {PINS["torch"]}: source' in done.stdout
    assert os.readlink(tmp_path / 'clone/.venv') == folder
