"""Text embeddings as the classifier: classes that do not fit, and other classes."""
import pytest
import torch

from models import TextClassHead
from models.training_labels import Setting
from tests.models.naive import unit

E, CLASSES, SEEN = 16, 5, [3, 0, 2]


def class_head() -> TextClassHead:
    built = TextClassHead(embed_dims=E)
    built.set_classes(CLASSES, unit(CLASSES, E, dim=1), seen=SEEN, setting=Setting.INDUCTIVE)
    return built.eval()


@pytest.mark.parametrize('shape', [(CLASSES + 1, E), (CLASSES, E + 1), (CLASSES,)])
def test_embeddings_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=rf'^rows\.npy: .*{shape[0]}.* 5 classes .*width 16'):
        class_head().set_classes(CLASSES, torch.zeros(shape), source='rows.npy')


@pytest.mark.parametrize('seen', [[0, 5], [-1, 2]])
def test_seen_classes_out_of_range(seen):
    with pytest.raises(ValueError, match='5 classes'):
        class_head().set_classes(5, seen=seen)


def test_split_is_kept_in_ascending_order():
    built = class_head()
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
