"""Any image, any class names: right labels on drawn images of any file type; names are embedded once."""
import logging
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from models.inference import load_model
from models.inference.segmenter import Segmenter
from models.text_encoder import embed_class_names
from tests.conftest import GPU
from tests.models.inference.conftest import MODEL


def agreement(labels: np.ndarray, scene, classes: int = 20) -> float:
    """Share of the objects' pixels that have the true class."""
    objects = scene.labels > 0
    return float((labels[objects] == scene.labels[objects] - 1).mean())


def test_the_classes_of_the_training(miniature, scene):
    result = miniature.segment(scene.image)
    assert result.class_names == list(miniature.class_names) and len(result.class_names) == 20
    assert agreement(result.labels, scene) > 0.9
    assert result.labels.dtype == np.uint8 and result.labels.shape == scene.labels.shape


def test_a_model_in_a_line(miniature):
    device = miniature.device
    assert repr(miniature) == f'<Segmenter: trained on 20 classes, 15 of them with masks; prompts: single; ' \
                              f'device: {device}>'
    other = Segmenter(miniature.model, miniature.config, tower=miniature.tower, class_names=(), seen_names=(),
                      prompts=('a {}', 'the {}'), known={})
    assert repr(other) == f'<Segmenter: trained on unknown classes; prompts: 2 texts; device: {device}>'


def test_class_names_in_any_order_and_with_synonyms(miniature, scene):
    names = [miniature.class_names[index] for index in reversed(scene.classes)]
    result = miniature.segment(scene.image, [f'{name}, {name}s' for name in names])
    assert result.class_names[0] == f'{names[0]}, {names[0]}s'
    truth = {1 + index: place for place, index in enumerate(reversed(scene.classes))}
    objects = scene.labels > 0
    wanted = np.vectorize(truth.get)(scene.labels[objects])
    assert (result.labels[objects] == wanted).mean() > 0.9


def test_a_list_gives_the_same_as_one_by_one(miniature, scene):
    large = np.asarray(Image.fromarray(scene.image).resize((200, 150)))
    together = miniature.segment([scene.image, large, scene.image[:70]])
    for result, image in zip(together, (scene.image, large, scene.image[:70]), strict=True):
        alone = miniature.segment(image)
        assert result.labels.shape == image.shape[:2]
        assert np.array_equal(result.labels, alone.labels) and np.allclose(result.best, alone.best, atol=1e-5)
    assert miniature.segment([]) == []


@pytest.mark.parametrize('size', [(1, 1), (1, 20), (3, 2), (500, 30), (64, 64)])
def test_sizes(miniature, size):
    result = miniature.segment(np.full((*size, 3), 90, np.uint8), ['red dots', 'blue paint'])
    assert result.labels.shape == size and result.scores.shape == (2, *size)


def test_a_later_call_does_not_change_scores(miniature, image):
    result, again = (miniature.segment(image, ['red dots', 'red stripes']) for _ in range(2))
    wanted = again.scores
    miniature.segment(image, ['red stripes', 'blue dots', 'yellow checks'])
    assert np.array_equal(result.scores, wanted)


def test_the_seen_penalty_is_for_classes_trained_with_masks(miniature, image):
    """'red dots' was seen, 'red stripes' not, a new class neither; case and synonyms do not matter."""
    assert 'red dots' in miniature.seen_names and 'red stripes' not in miniature.seen_names
    miniature.segment(image, ['Red  Dots', 'red stripes', 'dots of red, red dots', 'balloon'])
    penalty = miniature.model.decode_head.class_head.penalty.flatten()
    assert torch.allclose(penalty, torch.tensor([0.1, 0, 0.1, 0]))


def test_threshold_and_background(miniature, image):
    plain = miniature.segment(image)
    strict = miniature.segment(image, threshold=0.3)
    assert np.array_equal(strict.labels == strict.unlabelled, plain.best < 0.3)
    kept = strict.labels != strict.unlabelled
    assert kept.any() and not kept.all() and np.array_equal(strict.labels[kept], plain.labels[kept])
    assert (miniature.segment(image, threshold=1).labels == 255).all()
    names = list(miniature.class_names)
    some, others = names[:10], names[10:]
    result = miniature.segment(image, some, background=others)
    assert result.class_names == some and result.scores.shape[0] == 10
    assert np.array_equal(result.labels, np.where(plain.labels < 10, plain.labels, 255))
    as_text = miniature.segment(image, some, background=', '.join(others))
    assert np.array_equal(as_text.labels, result.labels)
    for empty in ('', [], ' , '):
        assert np.array_equal(miniature.segment(image, names, background=empty).labels, plain.labels)
    with pytest.raises(ValueError, match='threshold'):
        miniature.segment(image, threshold=1.5)


def test_class_names_are_embedded_once(image, monkeypatch):
    model, embedded = load_model(MODEL), []

    def counting(encoder, names, templates):
        embedded.extend(names)
        return embed_class_names(encoder, names, templates)
    monkeypatch.setattr('models.inference.segmenter.embed_class_names', counting)
    model.segment(image)
    assert embedded == [] and model._encoder is None  # the training's names are in the checkpoint
    model.segment(image, ['Red Dots'])  # CLIP ignores case
    assert embedded == []
    model.segment(image, ['red dots', 'balloon'])
    assert embedded == [['red paint'], ['balloon']]  # the first to check the CLIP
    model.segment([image, image], ['balloon', 'kite, dragon', 'red dots'])
    assert embedded[2:] == [['kite', 'dragon']]
    model.segment(image, ['balloon'], prompts=['a {} here'])
    assert embedded[3:] == [['balloon']]


def test_more_class_names_than_the_cache_holds_are_embedded_once(image, monkeypatch):
    """In batches, each of which is kept even if a later one fails."""
    model, batches = load_model(MODEL), []

    def counting(encoder, names, templates):
        batches.append([name for name, in names])
        if len(batches) == 4:
            raise RuntimeError
        return embed_class_names(encoder, names, templates)
    monkeypatch.setattr('models.inference.segmenter.CACHE_SIZE', 3)
    monkeypatch.setattr('models.inference.segmenter.NAMES_PER_BATCH', 4)
    monkeypatch.setattr('models.inference.segmenter.embed_class_names', counting)
    names = [f'thing {index}' for index in range(10)]
    with pytest.raises(RuntimeError):
        model.segment(image, names)
    for _ in range(2):
        model.segment(image, names)
    assert batches[1:] == [names[:4], names[4:8], names[8:], names[8:]]  # after the one that checks the CLIP


def test_too_many_class_names(miniature, image, monkeypatch):
    monkeypatch.setattr(Segmenter, 'embed', None)
    with pytest.raises(ValueError, match='70,000 classes: 65,535 at most'):
        miniature.segment(image, [f'thing {index}' for index in range(70_000)])


@pytest.mark.parametrize('name', ['猫', '😀', 'قطة', '<b>bold</b>', '{}', 'a\u200bb'])
def test_class_names_in_any_script(miniature, image, name):
    result = miniature.segment(image, [name, 'red dots'])
    assert result.class_names == [name, 'red dots']
    result.overlay()


@pytest.mark.parametrize(('names', 'prompts', 'message'), [
    (['kitten', 'word ' * 100], None, "'word word .*…' is too long: CLIP reads 77 tokens.*has 106.*fewer words"),
    ([f'kitten, {"x" * 500}'], None, 'too long'), (['kitten'], ['a photo of a {}', f'{"x" * 64_000} {{}}'], 'too long'),
    (['kitten', '&nbsp;'], None, 'nothing that CLIP reads')])
def test_class_names_that_clip_cannot_read(miniature, image, names, prompts, message, monkeypatch):
    """They are refused before anything is embedded."""
    monkeypatch.setattr('models.inference.segmenter.embed_class_names', None)
    with pytest.raises(ValueError, match=message):
        miniature.segment(image, names, prompts=prompts)


def test_many_class_names(miniature, image):
    """More than a byte of labels can count."""
    names = ['red dots', *(f'thing {index}' for index in range(299))]
    result = miniature.segment(image, names)
    assert result.labels.dtype == np.uint16 and result.unlabelled == 65535
    assert np.array_equal(np.asarray(result.label_image()), result.labels)


def test_threads_wait_for_each_other(miniature, image):
    lists = [['red dots', 'blue paint'], ['yellow checks', 'green stripes', 'red paint'], ['blue dots']]
    wanted = [miniature.segment(image, names).labels for names in lists]
    found = {}

    def work(place: int) -> None:
        found[place] = [miniature.segment(image, lists[place]).labels for _ in range(5)]
    threads = [threading.Thread(target=work, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(labels, wanted[place]) for place in range(3) for labels in found[place])


def test_an_unreliable_result_is_warned_of(scene, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger('mmseg'), 'propagate', True)
    model = load_model(MODEL)
    assert "the miniature's model, which knows only its own drawn world" in caplog.text
    caplog.clear()
    names = [model.class_names[index] for index in scene.classes]
    for chosen in (None, names, names[:1]):
        assert model.segment(scene.image, chosen).summary()['warning'] is None
    assert caplog.messages == []
    noise = np.random.default_rng(0).integers(90, 110, (64, 80, 3), dtype=np.uint8)
    for _ in range(2):
        warning = model.segment(noise, ['aeroplane', 'potted plant']).summary()['warning']
        assert 'recognises none of these classes in this image' in warning and "the miniature's model" in warning
    assert caplog.messages == [warning], 'once'


def test_autocast(scene):
    short = load_model(MODEL, amp='bfloat16')
    assert isinstance(short, Segmenter) and agreement(short.segment(scene.image).labels, scene) > 0.9
    with pytest.raises(ValueError, match='amp'):
        load_model(MODEL, amp='int8')


@pytest.mark.gpu
def test_the_gpu_gives_the_labels_of_the_cpu(miniature, scene):
    names = ['red dots', 'balloon', 'blue paint']
    on_gpu = load_model(MODEL, device=GPU).segment([scene.image, scene.image], names)
    on_cpu = miniature.segment(scene.image, names)
    assert all((result.labels == on_cpu.labels).mean() > 0.99 for result in on_gpu)
