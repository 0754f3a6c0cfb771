"""The short form of tests/fuzz.py: the same few hundred damaged files each time."""
from tests import fuzz


def test_damaged_files_end_in_errors_of_ours(tmp_path):
    counts, found = fuzz.fuzz(seed=0, inputs=400, keep=tmp_path)
    assert found == [], f'to be read again from {tmp_path}'
    assert sum(counts.values()) == 400 and {ending for ending, _ in counts} == {*fuzz.READERS}
    assert counts['.pth', 'refused'] and counts['.png', 'taken']
