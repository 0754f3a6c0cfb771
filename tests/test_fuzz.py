"""The short form of tests/fuzz.py: the same few hundred damaged files each time."""
import subprocess
import sys

from tests.conftest import REPOSITORY


def test_damaged_files_end_in_errors_of_ours(tmp_path):
    """In a process of its own, for its limit of memory and in case of a crash."""
    done = subprocess.run([sys.executable, REPOSITORY / 'tests/fuzz.py', '--seed', '0', '--inputs', '400', '--out',
                           tmp_path / 'inputs'], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert '400 inputs, 0 with a wrong end' in done.stdout
    ends = {line.split()[0]: line for line in done.stdout.splitlines()[:-1]}
    assert ', 0 refused' not in ends['.pth'] and ' 0 accepted' not in ends['.png']
