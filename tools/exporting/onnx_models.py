"""ONNX models of a checkpoint, and the checks that they do as PyTorch does.

B windows, C classes, S pixels a side of a window, E CLIP space, K texts of L tokens.
"""
import logging
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from models import CLIPRC, CLIPTextEncoder
from models.class_names import templates_of
from models.errors import UserError
from models.inference import Segmenter
from models.resizing import Resizing
from models.text_encoder import tokenize

OPSET = 18
NEAR_TIE = 1e-4  # scores that are nearer to each other may change places
PACKAGES = ('onnx', 'onnxruntime', 'onnxscript')


def require_packages() -> None:
    """Raises a UserError that names the packages that lack."""
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if absent:
        raise UserError(f'ONNX needs {", ".join(absent)}:\n    pip install -r tools/export_requirements.txt')


class WindowScores(nn.Module):
    """Windows (B, 3, S, S), text embeddings (C, E) and penalties (C,) -> scores (B, C, S, S)."""

    def __init__(self, model: CLIPRC):
        super().__init__()
        self.encoder, self.head, self.side = model.backbone, model.decode_head, model.decode_head.img_size
        grid = self.encoder.input_resolution // self.encoder.patch_size
        self.resizing = Resizing((grid, grid), (self.side, self.side), like=self.encoder.proj)

    def forward(self, image: Tensor, text: Tensor, penalty: Tensor) -> Tensor:
        logits = functional_call(self.head, {'class_head.embeddings': text}, (self.encoder(image),)).logits
        return self.resizing(logits).sigmoid() - penalty[:, None, None]


def about(model: Segmenter) -> dict:
    """What a user of the ONNX model must know, as plain JSON values; embeddings are those of the training's classes.

    Raises:
        UserError: the config's test pipeline prepares images in a way that these values cannot say.
    """
    views = model.config.data.test.pipeline[-1]
    steps, scale = {step.type: step for step in views.get('transforms', ())}, views.get('img_scale')
    resize, normalise = steps.get('Resize', {}), steps.get('Normalize', {})
    head, windows = model.model.decode_head, model.model.test_cfg
    side, penalty = head.img_size, head.class_head.seen_penalty
    if not (resize.get('keep_ratio') and resize.get('min_size') and normalise.get('to_rgb') and scale):
        raise UserError('the config\'s test pipeline does not resize images by their short side (Resize with '
                        'keep_ratio and min_size) and Normalize them.')
    short = max(min(scale), resize.min_size)
    if short < side:
        raise UserError(f'the config\'s test pipeline makes images of {short} pixels, a window needs {side}.')
    words = list(model.class_names)
    rows = model.embed(words).numpy()
    return {
        'classes': words, 'prompts': list(templates_of(model.prompts)),
        'penalty': [penalty if word in model.seen_names else 0. for word in words],
        'window': side, 'stride': min(windows.get('stride') or (side,)) if windows.mode == 'slide' else side,
        'short_side': short, 'mean': list(normalise.mean), 'std': list(normalise.std),
        'text': [[float(str(value)) for value in row] for row in rows],
    }


def export_windows(model: CLIPRC, file: Path) -> WindowScores:
    """Writes the ONNX model of `WindowScores`, whose numbers of windows and classes are free, and returns this."""
    scores = WindowScores(model).eval()
    space = scores.head.class_head.embed_dims
    model.class_head.set_classes(3, torch.zeros(3, space), seen=[])  # buffers that the inputs replace
    example = torch.zeros(2, 3, scores.side, scores.side), torch.randn(3, space), torch.zeros(3)
    _export(scores, example, file, ('image', 'text', 'penalty'), 'scores',
            ({0: 'batch'}, {0: 'classes'}, {0: 'classes'}))
    return scores


def export_text(encoder: CLIPTextEncoder, file: Path) -> None:
    """Writes the ONNX model of the text tower: tokens (K, L) int64 -> embeddings (K, E), not normalised."""
    _export(encoder, (tokenize(['a', 'b'], encoder.context_length),), file, ('tokens',), 'embeddings', ({0: 'texts'},))


def _export(module: nn.Module, example: tuple[Tensor, ...], file: Path, inputs: Sequence[str], output: str,
            dynamic: tuple[dict[int, str], ...]) -> None:
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    logging.getLogger('onnxscript').setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        program = torch.onnx.export(module, example, dynamo=True, input_names=inputs, output_names=[output],
                                    dynamic_shapes=dynamic, opset_version=OPSET, verbose=False)
    program.save(file, external_data=False)


class Comparison(NamedTuple):
    """ONNX against PyTorch."""
    pixels: int
    other_labels: int  # pixels whose label differs, near ties aside
    difference: float  # largest, of scores

    def __str__(self) -> str:
        return (f'{self.pixels} pixels, {self.other_labels} labels differ; scores differ by {self.difference:.1e} at '
                'most')


def compare_windows(scores: WindowScores, file: Path, windows: Tensor, text: Tensor) -> dict[int, Comparison]:
    """Number of classes -> what both make of windows (n, 3, S, S): 1, 2, C and 2C + 1, of `text` (C, E) and random.

    A label differs where onnxruntime's is one that PyTorch scores lower than its own by more than a near tie.
    """
    random = torch.Generator().manual_seed(0)
    more = F.normalize(torch.randn(len(text) + 1, text.shape[1], generator=random), dim=1)
    every = torch.cat([text, more])
    penalties = 0.1 * torch.randint(2, (len(every),), generator=random)
    session = _session(file)
    comparisons = {}
    for count in sorted({1, 2, len(text), len(every)}):
        pixels = others = 0
        difference = 0.
        for some in windows.split(2):  # also a last one alone
            inputs = {'image': some, 'text': every[:count], 'penalty': penalties[:count]}
            with torch.no_grad():
                expected = scores(**inputs)
            found, = session.run(None, {name: value.numpy() for name, value in inputs.items()})
            found = torch.from_numpy(found)
            behind = expected.amax(dim=1) - expected.gather(1, found.argmax(dim=1, keepdim=True))[:, 0]
            pixels, others = pixels + behind.numel(), others + int((behind > NEAR_TIE).sum())
            difference = max(difference, float((found - expected).abs().max()))
        comparisons[count] = Comparison(pixels, others, difference)
    return comparisons


def compare_text(encoder: CLIPTextEncoder, file: Path, texts: Sequence[str]) -> float:
    """The largest difference of the two towers' unit embeddings of these texts, all at once and one alone."""
    session, difference = _session(file), 0.
    for some in (texts, texts[:1]):
        tokens = tokenize(some, encoder.context_length)
        with torch.no_grad():
            expected = F.normalize(encoder(tokens), dim=1)
        found, = session.run(None, {'tokens': tokens.numpy()})
        difference = max(difference, float((F.normalize(torch.from_numpy(found), dim=1) - expected).abs().max()))
    return difference


def _session(file: Path):
    import onnxruntime  # no requirement of the rest
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])


def windows_of(images: Sequence[np.ndarray], model: Segmenter) -> Tensor:
    """The first and the last window (n, 3, S, S) of each image, prepared as the model prepares it."""
    side, windows = model.model.decode_head.img_size, []
    for image in images:
        prepared = model.prepare(image)[0]
        windows += [prepared[:, :side, :side], prepared[:, -side:, -side:]]
    return torch.stack(windows)
