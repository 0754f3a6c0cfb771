"""Text embeddings as the classifier: rows in use, queries, mask logits, test scores."""
import pytest
import torch

from models import TextClassHead
from models.training_labels import Setting
from tests.models.naive import close, unit

E, CLASSES, SEEN = 16, 5, [3, 0, 2]


def class_head(setting: str = 'inductive', seen=SEEN, **changes) -> TextClassHead:
    built = TextClassHead(embed_dims=E, **changes)
    built.set_classes(CLASSES, unit(CLASSES, E, dim=1), seen=seen, setting=Setting(setting))
    return built.eval()


@pytest.mark.parametrize(('setting', 'training', 'rows'), [
    ('inductive', True, [0, 2, 3]), ('inductive', False, range(5)), ('transductive', True, range(5)),
    ('transductive', False, range(5)), ('fully_supervised', True, range(5)), ('fully_supervised', False, range(5))])
def test_rows_in_use(setting, training, rows):
    seen = list(range(CLASSES)) if setting == 'fully_supervised' else SEEN
    assert torch.equal(class_head(setting, seen).train(training).rows_in_use(), unit(CLASSES, E, dim=1)[list(rows)])


@pytest.mark.parametrize(('setting', 'seen', 'shift'), [
    ('inductive', SEEN, [0.1, 0, 0.1, 0.1, 0]), ('transductive', SEEN, [0] * 5),
    ('fully_supervised', range(5), [0.1] * 5)])
def test_seen_penalty(setting, seen, shift):
    logits = 3 * torch.randn(2, CLASSES, 3, 4, dtype=torch.float64)
    expected = 1 / (1 + (-logits).exp())
    for c in range(CLASSES):
        expected[:, c] -= shift[c]
    built = class_head(setting, list(seen))
    assert close(built.scores(logits, built.penalty), expected, 1e-7)


@pytest.mark.parametrize('shape', [(CLASSES + 1, E), (CLASSES, E + 1), (CLASSES,)])
def test_embeddings_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=rf'^rows\.npy: .*{shape[0]}.* 5 classes .*width 16'):
        class_head().set_classes(CLASSES, torch.zeros(shape), source='rows.npy')


@pytest.mark.parametrize('seen', [[0, 5], [-1, 2]])
def test_seen_classes_out_of_range(seen):
    with pytest.raises(ValueError, match='5 classes'):
        class_head().set_classes(5, seen=seen)


def test_split_is_kept_in_ascending_order():
    built = class_head(seen=[3, 0, 2])
    assert (built.seen.tolist(), built.unseen.tolist(), built.num_classes) == ([0, 2, 3], [1, 4], 5)
    built.set_classes(2, seen=[0, 1], setting=Setting.FULLY_SUPERVISED)
    assert (built.seen.tolist(), built.unseen.tolist(), built.num_classes) == ([0, 1], [], 2)


def test_other_classes_need_other_embeddings():
    built = class_head()
    before = built.penalty
    built.set_classes(6, seen=[1])
    with pytest.raises(ValueError, match='no text embeddings: .*set_classes'):
        built.rows_in_use()
    assert before.flatten().tolist() == pytest.approx([0.1, 0, 0.1, 0.1, 0]), 'results of earlier classes change'
