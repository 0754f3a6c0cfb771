"""The lock fits the requirements; setup_env.sh installs it and checks its hashes, or says that it cannot."""
import os
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY

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

STAND_IN = r'''#!/usr/bin/env bash
case "$*" in
  '-m venv '*)
    headers=$3/lib/python3.11/site-packages/torch/include/ATen
    mkdir -p "$3/bin" "$headers" && cp "$0" "$3/bin/python"
    echo '#error C++20 or later compatible compiler is required to use ATen.' >"$headers/ATen.h" ;;
  *'-m pip --version'*) ;;
  *'-m pip '*)
    echo "${@:4}" >>"$SAID/calls"
    while [ $# -gt 0 ]; do
      case $1 in
        -r) cat "$2" >>"$SAID/installed" ;;
        --wheel-dir) touch "$2/mmcv_full-1.7.2-stand_in.whl" && cat "$CXX" >"$SAID/compiler" ;;
      esac
      shift
    done
    [ ! -e "$SAID/break" ] ;;
  *'version("torch")'*) echo "$WITH_TORCH" ;;
  *version_info*) echo "$WITH_PYTHON" ;;
  *'import tools, torch'*) ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
'''


@pytest.fixture
def setup(tmp_path):
    """Runs `setup_env.sh --apart` of a Python without dot and a torch; `said` is where pip's calls are kept."""
    said = tmp_path / 'said'
    said.mkdir()
    stand_in = tmp_path / 'python'
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)

    def setup(python: str = '311', torch: str | None = None, script=REPOSITORY / 'tools/setup_env.sh', apart=True
              ) -> subprocess.CompletedProcess:
        environment = {name: value for name, value in os.environ.items() if name not in ('TORCH', 'CLIPRC_ENV')}
        return subprocess.run(
            ['bash', script, *(['--apart'] if apart else [])], text=True, capture_output=True,
            env=environment | {'PYTHON': str(stand_in), 'REAL_PYTHON': sys.executable, 'SAID': str(said),
                               'CLIPRC_CACHE': str(tmp_path / 'cache'), 'WITH_PYTHON': python,
                               'WITH_TORCH': torch or PINS['torch'], **({'TORCH': torch} if torch else {})})

    setup.said = said
    return setup


def test_the_lock_is_installed_once_and_its_hashes_checked(setup):
    """Also after an interrupted setup."""
    (setup.said / 'break').touch()
    assert setup().returncode != 0
    for file in setup.said.iterdir():
        file.unlink()
    done = setup()
    assert done.returncode == 0, done.stderr
    environment, = done.stdout.splitlines()
    assert os.path.basename(environment).startswith(f'py311-torch{PINS["torch"]}-')
    everything, compiled, wheel = (setup.said / 'calls').read_text().splitlines()
    assert '--require-hashes' in everything and '--require-hashes' in compiled
    assert '--no-index' in wheel and wheel.endswith('.whl'), 'nothing but what was compiled here'
    pinned = (setup.said / 'installed').read_text()
    assert pins(pinned) == PINS and list(pins(pinned))[-1] == 'mmcv-full'
    assert pinned.count('--hash') == LOCK.count('--hash')
    assert (setup.said / 'compiler').read_text().endswith('"$@" -std=c++20\n'), "not what torch's headers ask for"
    assert setup().stdout == done.stdout
    assert len((setup.said / 'calls').read_text().splitlines()) == 3, 'it was made a second time'


@pytest.mark.parametrize('python, torch', [('312', None), ('311', '2.7.1')])
def test_elsewhere_the_ranges_are_installed_and_it_says_so(setup, python, torch):
    done = setup(python=python, torch=torch)
    assert done.returncode == 0, done.stderr
    assert 'is not the tested set' in done.stderr and 'hashes unchecked' in done.stderr
    torch = torch or PINS['torch']
    assert os.path.basename(done.stdout).startswith(f'py{python}-torch{torch}-')
    everything, compiled, *_ = (setup.said / 'calls').read_text().splitlines()
    assert f'torch=={torch}' in everything and '--require-hashes' not in everything
    assert '--require-hashes' in compiled, "mmcv-full's archive is the same for all"
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
