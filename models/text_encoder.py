"""CLIP's text encoder, and the embedding of class names (CLIP section 3.1.4: prompt engineering and ensembling).

K texts, L tokens of context, V vocabulary, W width, E CLIP space, C classes.
"""
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from mmcv.runner import BaseModule
from mmseg.models.builder import BACKBONES
from torch import Tensor, nn
from tqdm import tqdm

from .clip_layers import LayerNorm, Transformer
from .errors import UserError

if TYPE_CHECKING:
    from open_clip import SimpleTokenizer

CONTEXT_LENGTH = 77
VOCABULARY = 49408
LONGEST_TOKEN = 24  # characters of the longest in CLIP's vocabulary: "thinkbigsundaywithmarsha"
TEXTS_PER_BATCH = 256
TEXTS_PER_GROUP = 2**14  # in memory together, to be sorted by length; more where classes have several names


@BACKBONES.register_module(name=['CLIPTextEncoder'])
class CLIPTextEncoder(BaseModule):
    """CLIP's causal transformer, read at the end-of-text token and projected to E.

    Args:
        context_length, vocab_size: L, V.
        transformer_width, transformer_heads, transformer_layers: W, attention heads, blocks.
        embed_dim: E.
        gelu: 'quick', as in OpenAI's CLIP, or 'plain', as in most of open_clip's.
        style: official configs have it; ignored, as in the published code.
    """

    def __init__(self, *, context_length: int = CONTEXT_LENGTH, vocab_size: int = VOCABULARY,
                 transformer_width: int = 512, transformer_heads: int = 8, transformer_layers: int = 12,
                 embed_dim: int = 512, gelu: str = 'quick', style: str = 'pytorch', init_cfg: dict | None = None):
        super().__init__(init_cfg)
        self.context_length = context_length
        self.token_embedding = nn.Embedding(vocab_size, transformer_width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(context_length, transformer_width))
        self.transformer = Transformer(transformer_width, transformer_layers, transformer_heads, gelu)
        self.ln_final = LayerNorm(transformer_width)
        self.text_projection = nn.Parameter(transformer_width**-0.5 * torch.randn(transformer_width, embed_dim))
        causal = torch.ones(context_length, context_length, dtype=torch.bool).tril()
        self.register_buffer('causal', causal, persistent=False)  # (L, L)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode token ids (K, L), without columns after the end of all texts if wished, to (K, E), not normalised."""
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        for block in self.transformer.resblocks:
            x = block(x, self.causal[:length, :length])
        end = tokens.argmax(dim=-1)  # end-of-text has the largest id of the vocabulary
        x = self.ln_final(x[torch.arange(x.shape[0], device=x.device), end])
        return x @ self.text_projection


def tokenize(texts: Sequence[str], context_length: int = CONTEXT_LENGTH) -> Tensor:
    """Turn texts into CLIP's byte-pair tokens, (K, L) int64, by open_clip's tokenizer.

    Raises:
        UserError: a text has more characters than fit into L tokens.
    """
    return _tokenizer()([_short_enough(text, context_length) for text in texts], context_length)


def count_tokens(text: str, context_length: int = CONTEXT_LENGTH) -> int:
    """Count the tokens of a text, without start and end. `tokenize` cuts texts that exceed the context.

    Raises:
        UserError: the text has more characters than fit into L tokens.
    """
    return len(_tokenizer().encode(_short_enough(text, context_length)))


def _short_enough(text: str, context_length: int) -> str:
    """Return the text with single blanks, if its characters can fit into L tokens, which include start and end.

    Byte-pair encoding takes time with the square of a word's length: minutes for tens of thousands of letters. A token
    has at most `LONGEST_TOKEN` characters and a blank.

    Raises:
        UserError: they cannot fit.
    """
    text, most = ' '.join(text.split()), (context_length - 2) * (LONGEST_TOKEN + 1)
    if len(text) > most:
        raise UserError(f'{text[:39] + "…"!r} is too long: it has {len(text):,} characters, and the {context_length} '
                        f'tokens that CLIP reads hold {most:,} at most. Use fewer words.')
    return text


@cache
def _tokenizer() -> 'SimpleTokenizer':
    from open_clip import SimpleTokenizer  # a slow import, needed for tokenising only
    return SimpleTokenizer()


@torch.no_grad()
def embed_class_names(encoder: CLIPTextEncoder, names: Sequence[str | Sequence[str]], templates: Sequence[str],
                      tokenizer: Callable[[Sequence[str], int], Tensor] = tokenize) -> Tensor:
    """Compute the embeddings of class names, (C, E) float32 with unit rows.

    Each name is put into each template (`'a photo of a {}'`) verbatim; the normalised embeddings of a class are
    averaged and normalised again. A class may have several names.

    Raises:
        UserError: an embedding is zero or not finite, because the encoder's weights are damaged.
    """
    classes = [[name] if isinstance(name, str) else name for name in names]
    total, rows = len(templates) * sum(map(len, classes)), []
    with tqdm(total=total, unit='text', desc='text embeddings', delay=5, disable=None) as bar:
        per_group = max(1, TEXTS_PER_GROUP // len(templates))
        for group in (classes[start:start + per_group] for start in range(0, len(classes), per_group)):
            texts = [template.format(synonym) for synonyms in group for synonym in synonyms for template in templates]
            encoded = _encode(encoder, tokenizer(texts, encoder.context_length), bar)
            of_classes = F.normalize(encoded, dim=-1).split([len(templates) * len(synonyms) for synonyms in group])
            for synonyms, embeddings in zip(group, of_classes, strict=True):
                rows.append(F.normalize(embeddings.mean(dim=0), dim=-1))
                if not (rows[-1].isfinite().all() and rows[-1].any()):
                    raise UserError(f'CLIP\'s text encoder gives zeros or infinite values for {synonyms[0]!r}: its '
                                    'weights are damaged. Fetch or copy the CLIP file again.')
    return torch.stack(rows)


def _encode(encoder: CLIPTextEncoder, tokens: Tensor, bar: tqdm) -> Tensor:
    """Encode tokens (K, L) to (K, E) float32, short texts together: columns after the end of all have no effect."""
    device = encoder.text_projection.device
    lengths = tokens.argmax(dim=1) + 1
    encoded = torch.empty(len(tokens), encoder.text_projection.shape[1], device=device)
    for batch in lengths.argsort().split(TEXTS_PER_BATCH):
        encoded[batch.to(device)] = encoder(tokens[batch, :int(lengths[batch].max())].to(device)).float()
        bar.update(len(batch))
    return encoded
