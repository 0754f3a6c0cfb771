"""Which labels a setting may see, pixel by pixel."""
import pytest
import torch

from models.resizing import Resizing
from models.training_labels import Setting, training_labels

IGNORE = 255

CLASSES, SEEN, UNSEEN = 6, [0, 2, 3, 5], [1, 4]


def naive(label, scores, setting, seen, unseen):
    """One pixel's label; `scores` are of all classes."""
    if label == 255 or setting == 'fully_supervised':
        return label
    if label in seen:
        return seen.index(label) if setting == 'inductive' else label
    return 255 if setting == 'inductive' else max(unseen, key=lambda index: scores[index])


def mapped(labels, setting, logits, seen=SEEN, unseen=UNSEEN):
    size = tuple(labels.shape[1:])
    return training_labels(labels, Setting(setting), seen=torch.tensor(seen), unseen=torch.tensor(unseen).long(),
                           logits=logits, resizing=Resizing(size, size, like=logits))


@pytest.mark.parametrize(('setting', 'seen', 'unseen'), [
    ('inductive', SEEN, UNSEEN), ('transductive', SEEN, UNSEEN), ('inductive', [4], [0, 1, 2, 3, 5]),
    ('transductive', [4], [0, 1, 2, 3, 5]), ('fully_supervised', list(range(6)), [])])
def test_against_a_loop(setting, seen, unseen):
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([*range(CLASSES), IGNORE])[torch.randint(7, (2, 8, 9), generator=generator)]
    logits = torch.randn(2, len(seen) if setting == 'inductive' else CLASSES, 8, 9, generator=generator)
    before = labels.clone()
    result = mapped(labels, setting, logits, seen, unseen)
    assert torch.equal(labels, before), 'the labels of the caller were changed'
    assert result.dtype == torch.int64
    for place in [(b, y, x) for b in range(2) for y in range(8) for x in range(9)]:
        b, y, x = place
        assert result[place] == naive(int(before[place]), logits[b, :, y, x].tolist(), setting, seen, unseen)


def test_more_classes_than_labels_of_a_byte():
    labels = torch.tensor([[[254, 255, 256, 299, 65535]]])
    seen = [index for index in range(300) if index != 256]
    assert mapped(labels, 'inductive', torch.zeros(1, 299, 1, 5), seen, [256]).tolist() == [
        [[254, 255, 65535, 298, 65535]]]


def test_pseudo_labels_are_among_the_unseen_and_have_no_threshold():
    labels = torch.tensor([[[1, 4, 0, 255]]])
    logits = torch.full((1, CLASSES, 1, 4), 5.)
    logits[:, UNSEEN] = -7.
    logits[:, 4] += 0.1
    logits.requires_grad_()
    result = mapped(labels, 'transductive', logits)
    assert result.tolist() == [[[4, 4, 0, 255]]] and not result.requires_grad
