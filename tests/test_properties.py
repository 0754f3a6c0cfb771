"""What must hold of any input, tried on inputs that hypothesis makes up.

The same few hundred each time; `HYPOTHESIS_PROFILE=long` tries thousands of others.
"""
import os
import random
from itertools import islice
from pprint import pformat

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from datasets.sampling import PassSampler, SeededSamples
from models.class_names import clean_class_names, parse_class_names, synonyms
from models.resizing import Resizing
from models.sliding_window import Stitched, Window, sliding
from models.weights.config_text import read_config_text

settings.register_profile('same', derandomize=True, max_examples=40, deadline=None)
settings.register_profile('long', max_examples=5000, deadline=None)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'same'))

sides = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)


# ---- windows

@st.composite
def tilings(draw):
    """Size of an image, of windows, and their stride."""
    size, crop = ((draw(st.integers(1, 150)), draw(st.integers(1, 150))) for _ in range(2))
    stride = tuple(draw(st.integers(max(1, side // 6), side)) for side in crop)
    return size, crop, stride


@given(tilings(), st.integers(1, 3), sides, sides, seeds, st.booleans())
def test_stitching_is_the_mean_of_the_windows(tiling, classes, height, width, seed, whole):
    """The windows cover the image and stay in it, or the mean would not be finite, or not add up."""
    size, crop, stride = tiling
    windows = [Window(0, 0, *size)] if whole else sliding(size, crop, stride)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(windows), classes, 3, 4, generator=generator)
    resizing = Resizing((3, 4), (windows[0].height, windows[0].width), like=logits)

    penalty = torch.zeros(classes, 1, 1)

    def stitched(logits: torch.Tensor, original: tuple[int, int]) -> torch.Tensor:
        result = Stitched(logits, windows, size=size, original=original, resizing=resizing,
                          scores=lambda logits, penalty: logits.sigmoid() - penalty, penalty=penalty)
        scores, (index, value) = result.all(), result.best()
        assert torch.equal(index, scores.argmax(dim=1)) and torch.equal(value, scores.amax(dim=1))
        assert torch.equal(result.top(classes).value, scores.sort(dim=1, descending=True).values)
        return scores[0]

    summed, times = torch.zeros(classes, *size), torch.zeros(size)
    for window, some in zip(windows, logits, strict=True):
        window.of(summed).add_(resizing(some).sigmoid())
        window.of(times).add_(1)
    torch.testing.assert_close(stitched(logits, size), summed / times)
    constant = stitched(torch.full_like(logits, 0.3), (height, width))
    torch.testing.assert_close(constant, torch.full((classes, height, width), 0.3).sigmoid())


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
