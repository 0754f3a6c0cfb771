"""Special cases of the labels that a setting trains with; test_oracle.py has the general ones."""
import torch

from models.resizing import Resizing
from models.training_labels import Setting, training_labels

CLASSES, SEEN, UNSEEN = 6, [0, 2, 3, 5], [1, 4]


def mapped(labels, setting, logits, seen=SEEN, unseen=UNSEEN):
    size = tuple(labels.shape[1:])
    return training_labels(labels, Setting(setting), seen=torch.tensor(seen), unseen=torch.tensor(unseen).long(),
                           logits=logits, resizing=Resizing(size, size, like=logits))


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
