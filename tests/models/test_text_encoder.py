"""CLIP's text tower against loops, and how class names become embeddings."""
import random
import time

import pytest
import torch

from models import text_encoder
from models.errors import UserError
from models.text_encoder import CLIPTextEncoder, count_tokens, embed_class_names, tokenize
from tests.models.naive import close, randomized

END = 49
SIZES = {'context_length': 7, 'vocab_size': 50, 'transformer_width': 16, 'transformer_heads': 4,
         'transformer_layers': 2, 'embed_dim': 8}


@pytest.fixture
def encoder() -> CLIPTextEncoder:
    return randomized(CLIPTextEncoder(**SIZES)).eval()


def test_what_follows_the_end_of_text_has_no_influence(encoder):
    first, second, other = encoder(torch.tensor([[48, 3, 7, END, 0, 0, 0], [48, 3, 7, END, 9, 8, 7],
                                                 [48, 4, 7, END, 0, 0, 0]]))
    assert close(second, first) and not close(other, first)


def fake_tokenizer(seen: list[str]):
    """Notes the texts; its tokens are the text's first letters."""
    def tokenizer(texts, length):
        seen.extend(texts)
        assert length == 7
        return torch.tensor([[48, *(ord(letter) % 40 for letter in text[-5:]), END] for text in texts])
    return tokenizer


@pytest.mark.parametrize('templates', [['a photo of a {}'], ['a photo of a {}.', 'This is one {} in the scene.', '{}']])
def test_class_embeddings(encoder, templates):
    names, seen = ['pottedplant', 'wall-concrete', 'TV {0}'], []
    embeddings = embed_class_names(encoder, names, templates, fake_tokenizer(seen))
    assert seen == [template.replace('{}', name) for name in names for template in templates], 'not verbatim'
    assert embeddings.dtype == torch.float32 and not embeddings.requires_grad
    for name, embedding in zip(names, embeddings):
        total = torch.zeros(8, dtype=torch.float64)
        for template in templates:
            tokens = fake_tokenizer([])([template.replace('{}', name)], 7)
            one = encoder(tokens)[0].double()
            total += one / one.square().sum().sqrt()
        assert close(embedding, total / total.square().sum().sqrt())


@pytest.mark.parametrize('value', [0., float('nan')])
def test_an_encoder_that_gives_no_embedding(encoder, value):
    encoder.text_projection.data.fill_(value)
    with pytest.raises(UserError, match=r"values for 'cat'.*weights are damaged"):
        embed_class_names(encoder, ['cat'], ['{}'], fake_tokenizer([]))


def test_a_class_with_several_names_is_the_mean_over_all_its_texts(encoder):
    templates = ['a photo of a {}', 'one {}']
    both, first = embed_class_names(encoder, [['sofa', 'couch'], 'sofa'], templates, fake_tokenizer([]))
    each = torch.cat([embed_class_names(encoder, [name], [template], fake_tokenizer([]))
                      for name in ('sofa', 'couch') for template in templates])
    assert close(both, torch.nn.functional.normalize(each.mean(dim=0), dim=0))
    assert not close(both, first)


def test_tokens_are_clips():
    tokens = tokenize(['a photo of a cat', 'A photo of a Cat.'])
    assert tokens.shape == (2, 77) and tokens.dtype == torch.int64
    assert tokens[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0] and not tokens[:, 8:].any()
    assert tokens[1, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 269, 49407]
    assert tokenize(['cat ' * 100])[0, [0, -1]].tolist() == [49406, 49407], 'a long text lost its end'


@pytest.mark.parametrize('text', ['abcdefghijklmnopqrstuvwxyz', 'a', '!?#', '0123456789 '])
def test_what_is_too_long_for_clip_is_refused_before_it_is_encoded(text):
    """Byte-pair encoding of such a word took 25 seconds, of one four times as long it did not end."""
    long = ''.join(random.Random(0).choices(text, k=1_000_000))
    for read in (count_tokens, lambda text: tokenize(['cat', text])):
        began = time.monotonic()
        with pytest.raises(UserError, match=r"…' is too long: it has [\d,]+ characters, and the 77 tokens that CLIP "
                                            r'reads hold 1,875 at most\. Use fewer words\.'):
            read(long)
        assert time.monotonic() - began < 1


def test_no_text_that_fits_is_refused():
    longest = ['thinkbigsundaywithmarsha', 'blackandwhitephotography']
    text = ' '.join(longest[place % 2] for place in range(75))
    assert count_tokens(text) == 75 and count_tokens(f'{text[:900]}{" " * 5000}{text[900:]}') > 0
    assert max(len(bytearray(map(text_encoder._tokenizer().byte_decoder.get, token.replace('</w>', ''))).decode(
        errors='ignore')) for token in text_encoder._tokenizer().encoder if '_of_text' not in token) == 24
    with pytest.raises(UserError, match='1,876 characters'):
        count_tokens(f'{text} a')


def test_many_texts_are_encoded_in_parts(monkeypatch):
    """Of two classes together, short texts first, and as each class alone."""
    encoder, seen = CLIPTextEncoder(context_length=77, vocab_size=49408, transformer_width=8, transformer_heads=1,
                                    transformer_layers=1, embed_dim=4), []
    names, templates = [['cat', 'a dog that barks', 'sofa', 'pot', 'dog'], 'long word', 'sofa'], ['a {}', 'the new {}']
    alone = torch.cat([embed_class_names(encoder, [name], templates) for name in names])
    encoder.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    monkeypatch.setattr(text_encoder, 'TEXTS_PER_BATCH', 4)
    monkeypatch.setattr(text_encoder, 'TEXTS_PER_GROUP', 4)
    assert torch.allclose(embed_class_names(encoder, names, templates), alone, atol=1e-6)
    first = sorted(count_tokens(template.format(name)) + 2 for name in [*names[0], names[1]] for template in templates)
    assert seen == [(4, first[3]), (4, first[7]), (4, first[11]), (2, count_tokens('the new sofa') + 2)]
    assert first[3] < first[7] < first[11]
