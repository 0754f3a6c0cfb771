"""What must hold of any input, tried on inputs that hypothesis makes up.

The same few hundred each time; `HYPOTHESIS_PROFILE=long` tries thousands of others.
"""
import os
import random
from itertools import islice
from pprint import pformat

import numpy as np
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from datasets import ClassSplit
from datasets.masks import MaskColours
from datasets.sampling import PassSampler, SeededSamples
from models.class_names import clean_class_names, parse_class_names, synonyms, templates_of
from models.resizing import Resizing
from models.sliding_window import Stitched, Window, sliding
from models.training_labels import Setting, training_labels
from models.weights.config_text import read_config_text

IGNORE = 255

fixtures_are_shared = [HealthCheck.function_scoped_fixture]
settings.register_profile('same', derandomize=True, max_examples=40, deadline=None,
                          suppress_health_check=fixtures_are_shared)
settings.register_profile('long', max_examples=5000, deadline=None, suppress_health_check=fixtures_are_shared)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'same'))

sides = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)


# ---- which labels a setting may see

@st.composite
def splits(draw, most: int = 12):
    """Indices of the seen and of the unseen classes; one at least is seen."""
    count = draw(st.integers(1, most))
    unseen = draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
    return [index for index in range(count) if index not in unseen], sorted(unseen)


@given(splits(), st.sampled_from(Setting), st.integers(1, 2), sides, sides, seeds)
def test_training_labels_pixel_by_pixel(split, setting, batch, height, width, seed):
    seen, unseen = split
    generator = torch.Generator().manual_seed(seed)
    count = len(seen) + len(unseen)
    assume(unseen or setting is not Setting.TRANSDUCTIVE)
    labels = torch.tensor([*range(count), IGNORE])[torch.randint(count + 1, (batch, height, width),
                                                                 generator=generator)]
    logits = torch.randn(batch, count, height, width, generator=generator)
    before = labels.clone()
    mapped = training_labels(labels, setting, seen=torch.tensor(seen), unseen=torch.tensor(unseen).long(),
                             logits=logits, resizing=Resizing((height, width), like=logits))
    assert torch.equal(labels, before) and mapped.shape == labels.shape
    for place in np.ndindex(*labels.shape):
        label = int(labels[place])
        if setting is Setting.FULLY_SUPERVISED or label == IGNORE:
            wanted = label
        elif setting is Setting.INDUCTIVE:
            wanted = seen.index(label) if label in seen else IGNORE
        else:
            scores = logits[(place[0], slice(None), *place[1:])].sigmoid()
            wanted = label if label in seen else max(unseen, key=lambda index: float(scores[index]))
        assert int(mapped[place]) == wanted


# ---- class names

names = st.text(st.sampled_from('ab, ,\tÄ猫'), max_size=6)


@given(st.lists(names, max_size=5), st.lists(names, max_size=3))
def test_a_split_has_every_class_on_one_side(class_names, unseen):
    try:
        split = ClassSplit(tuple(class_names), tuple(unseen))
    except ValueError:
        whole = [word for name in class_names for word in synonyms(name)]
        known = {', '.join(synonyms(name)) for name in class_names}
        wrong = {', '.join(synonyms(name)) for name in unseen}
        assert '' in whole or len({*whole}) < len(whole) or not wrong <= known or len(wrong) == len(class_names)
        return
    assert sorted(split.seen + split.unseen) == list(range(len(class_names))) and split.seen
    assert {split.names[index] for index in split.unseen} == set(split.unseen_names)
    assert ClassSplit(split.names, split.unseen_names) == split


# ---- windows

@st.composite
def tilings(draw):
    """Size of an image, of windows, and their stride."""
    size, crop = ((draw(st.integers(1, 150)), draw(st.integers(1, 150))) for _ in range(2))
    stride = tuple(draw(st.integers(max(1, side // 6), side)) for side in crop)
    return size, crop, stride


@given(tilings())
def test_windows_cover_an_image_and_stay_in_it(tiling):
    size, crop, stride = tiling
    covered = torch.zeros(size)
    windows = sliding(size, crop, stride)
    for window in windows:
        assert (window.height, window.width) == (min(crop[0], size[0]), min(crop[1], size[1]))
        assert window.of(covered).shape == (window.height, window.width), 'it leaves the image'
        window.of(covered).add_(1)
    assert covered.min() >= 1 and len({*windows}) == len(windows)


@given(tilings(), st.integers(1, 3), sides, sides, seeds, st.booleans())
def test_stitching_is_the_mean_of_the_windows(tiling, classes, height, width, seed, whole):
    size, crop, stride = tiling
    windows = [Window(0, 0, *size)] if whole else sliding(size, crop, stride)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(windows), classes, 3, 4, generator=generator)
    resizing = Resizing((3, 4), (windows[0].height, windows[0].width), like=logits)

    penalty = torch.zeros(classes, 1, 1)

    def stitched(logits: torch.Tensor, original: tuple[int, int]) -> torch.Tensor:
        return Stitched(logits, windows, size=size, original=original, resizing=resizing,
                        scores=lambda logits, penalty: logits.sigmoid() - penalty, penalty=penalty).all()[0]

    summed, times = torch.zeros(classes, *size), torch.zeros(size)
    for window, some in zip(windows, logits, strict=True):
        window.of(summed).add_(resizing(some).sigmoid())
        window.of(times).add_(1)
    torch.testing.assert_close(stitched(logits, size), summed / times)
    constant = stitched(torch.full_like(logits, 0.3), (height, width))
    torch.testing.assert_close(constant, torch.full((classes, height, width), 0.3).sigmoid())


@given(sides, sides, sides, sides, seeds)
def test_resizing_stays_between_the_smallest_and_the_largest(h, w, height, width, seed):
    maps = torch.randn(2, h, w, generator=torch.Generator().manual_seed(seed))
    resized = Resizing((h, w), (height, width), like=maps)(maps)
    assert resized.shape == (2, height, width)
    assert resized.min() >= maps.min() - 1e-4 and resized.max() <= maps.max() + 1e-4


# ---- class names, prompts, texts

@given(st.text(max_size=60) | st.text(st.sampled_from('aB,;|\n \t\u200b'), max_size=20))
def test_class_names_as_typed(text):
    names = clean_class_names(parse_class_names(text), allow_empty=True)
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        parts = synonyms(name)
        assert all(parts) and len({part.casefold() for part in parts}) == len(parts)
        assert ' '.join(name.split()) == name
    assert clean_class_names(names, allow_empty=True) == names
    typed = '\n'.join(name.replace(', ', '|') for name in names)
    assert clean_class_names(parse_class_names(typed), allow_empty=True) == names


@given(st.lists(st.text(st.sampled_from('a {}'), max_size=8), max_size=3))
def test_a_prompt_has_one_place_for_the_name(texts):
    right = bool(texts) and all(text.count('{}') == 1 and set(text.replace('{}', '')) <= {'a', ' '} for text in texts)
    try:
        assert templates_of(texts) == tuple(texts) and right
        assert all(text.format('cat') == text.replace('{}', 'cat') for text in texts)
    except ValueError:
        assert not right


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-2**62, 2**62) | st.floats(allow_nan=False, allow_infinity=False) |
    st.text(st.characters(codec='utf-8'), max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.tuples(inside) | st.dictionaries(
        st.text('abc', max_size=3), inside, max_size=3), max_leaves=12)


@given(st.dictionaries(st.from_regex(r'[a-z_]{1,8}', fullmatch=True).filter(str.isidentifier), plain, max_size=4))
def test_configs_as_text(values):
    from keyword import iskeyword
    assume(not any(map(iskeyword, values)))
    text = ''.join(f'{name} = {pformat(value, width=120)}\n' for name, value in values.items())
    assert read_config_text(text) == values


# ---- files

@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=6, unique=True), st.integers(0, 2), seeds)
def test_mask_colours_pixel_by_pixel(colours, ignored, seed):
    classes = max(1, len(colours) - ignored)
    mask = np.array(colours, np.uint8)[np.random.default_rng(seed).integers(0, len(colours), (4, 5))]
    labels = MaskColours(colours[:classes], colours[classes:]).labels(mask, 'mask.png')
    for place in np.ndindex(4, 5):
        index = colours.index(tuple(int(value) for value in mask[place]))
        assert labels[place] == (index if index < classes else IGNORE)


# ---- which sample comes when

@given(st.integers(1, 30), seeds, st.integers(1, 5), st.integers(0, 70))
def test_every_pass_has_every_sample_with_any_number_of_processes(size, seed, processes, start):
    alone = list(islice(PassSampler(size, seed=seed), 4 * size + 80))
    for number in range(4):
        of_pass = alone[number * size:(number + 1) * size]
        assert [key[0] for key in of_pass] == [number] * size
        assert sorted(key[1] for key in of_pass) == list(range(size))
    shared = [list(islice(PassSampler(size, seed=seed, rank=rank, world_size=processes, start=start), 3))
              for rank in range(processes)]
    together = [key for step in zip(*shared, strict=True) for key in step]
    assert together == alone[start:start + len(together)]


class Draws:
    """A dataset whose samples are random numbers of three generators."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), float(torch.rand(1))


@given(seeds, st.integers(0, 1000), st.integers(0, 1000))
def test_draws_depend_on_the_key_alone(seed, number, index):
    samples = SeededSamples(Draws(), seed)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first = samples[number, index]
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    random.random(), np.random.rand(), torch.rand(1)
    assert samples[number, index] == first
    assert samples[number + 1, index][1:] != first[1:] and samples[number, index + 1][1:] != first[1:]
