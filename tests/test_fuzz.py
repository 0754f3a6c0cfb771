"""The short form of tests/fuzz.py: the same few hundred damaged files each time."""
from tests.fuzz import fuzz


def test_damaged_files_end_in_errors_of_ours(tmp_path):
    counts, wrong = fuzz(seed=0, folder=tmp_path / 'inputs', inputs=400)
    assert not wrong and counts['.pth', 'refused'] and counts['.png', 'accepted']
