"""ONNX models of a checkpoint, and their comparison with PyTorch.

B windows, C classes, S side of a window in pixels, E CLIP space, K texts of L tokens.
"""
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

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
NEAR_TIE = 1e-4  # labels may differ where scores are closer than this


class WindowScores(nn.Module):
    """Scores windows: (B, 3, S, S), text embeddings (C, E) and penalties (C,) -> (B, C, S, S)."""

    def __init__(self, model: CLIPRC):
        super().__init__()
        self.encoder, self.head, self.side = model.backbone, model.decode_head, model.decode_head.img_size
        grid = self.encoder.input_resolution // self.encoder.patch_size
        self.resizing = Resizing((grid, grid), (self.side, self.side), like=self.encoder.proj)

    def forward(self, image: Tensor, text: Tensor, penalty: Tensor) -> Tensor:
        logits = functional_call(self.head, {'class_head.embeddings': text}, (self.encoder(image),)).logits
        return self.resizing(logits).sigmoid() - penalty[:, None, None]


def facts(model: Segmenter) -> dict:
    """Return what a user of the ONNX model must know, as plain JSON values, for the classes of the training.

    Raises:
        UserError: these values cannot describe how the config's test pipeline prepares images.
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
        raise UserError(f'the config\'s test pipeline resizes images to {short} pixels, but a window needs {side}.')
    names = list(model.class_names)
    return {
        'class_names': names, 'prompts': list(templates_of(model.prompts)),
        'penalty': [penalty if name in model.seen_names else 0. for name in names],
        'window': side, 'stride': min(windows.get('stride') or (side,)) if windows.mode == 'slide' else side,
        'short_side': short, 'mean': list(normalise.mean), 'std': list(normalise.std),
        'text': [[float(str(value)) for value in row] for row in model.embed(names).numpy()],
    }


def export_windows(model: CLIPRC, file: Path) -> WindowScores:
    """Write the ONNX model of `WindowScores`, for any number of windows and classes; returns the `WindowScores`."""
    scores = WindowScores(model).eval()
    space = scores.head.class_head.embed_dims
    model.class_head.set_classes(3, torch.zeros(3, space), seen=[])  # buffers that the inputs replace
    example = torch.zeros(2, 3, scores.side, scores.side), torch.randn(3, space), torch.zeros(3)
    _export(scores, example, file, ('image', 'text', 'penalty'), 'scores',
            ({0: 'batch'}, {0: 'classes'}, {0: 'classes'}))
    return scores


def export_text(encoder: CLIPTextEncoder, file: Path) -> None:
    """Write the ONNX model of the text tower: tokens (K, L) int64 -> embeddings (K, E), not normalised."""
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


def compare_windows(scores: WindowScores, file: Path, windows: Tensor, text: Tensor
                    ) -> Iterator[tuple[int, int, float]]:
    """Compare both on windows (n, 3, S, S), for 1, 2, C and 2C + 1 classes from `text` (C, E) and random rows.

    Yields:
        the number of classes, of pixels whose label differs, and the largest difference of scores. A label counts as
        different if PyTorch scores it lower than its own label by more than `NEAR_TIE`.
    """
    random = torch.Generator().manual_seed(0)
    more = F.normalize(torch.randn(len(text) + 1, text.shape[1], generator=random), dim=1)
    rows = torch.cat([text, more])
    penalties = 0.1 * torch.randint(2, (len(rows),), generator=random)
    session = _session(file)
    for count in sorted({1, 2, len(text), len(rows)}):
        others, difference = 0, 0.
        for batch in windows.split(2):  # the last batch may be a single window
            inputs = {'image': batch, 'text': rows[:count], 'penalty': penalties[:count]}
            with torch.no_grad():
                expected = scores(**inputs)
            found, = session.run(None, {name: value.numpy() for name, value in inputs.items()})
            found = torch.from_numpy(found)
            behind = expected.amax(dim=1) - expected.gather(1, found.argmax(dim=1, keepdim=True))[:, 0]
            others += int((behind > NEAR_TIE).sum())
            difference = max(difference, float((found - expected).abs().max()))
        yield count, others, difference


def compare_text(encoder: CLIPTextEncoder, file: Path, texts: Sequence[str]) -> float:
    """Return the largest difference between unit embeddings of both towers, for all texts together and for one."""
    session, difference = _session(file), 0.
    for batch in (texts, texts[:1]):
        tokens = tokenize(batch, encoder.context_length)
        with torch.no_grad():
            expected = F.normalize(encoder(tokens), dim=1)
        found, = session.run(None, {'tokens': tokens.numpy()})
        difference = max(difference, float((F.normalize(torch.from_numpy(found), dim=1) - expected).abs().max()))
    return difference


def _session(file: Path):
    import onnxruntime  # an optional package
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])


def windows_of(images: Sequence[np.ndarray], model: Segmenter) -> Tensor:
    """Return the first and the last window (n, 3, S, S) of each image, prepared as the model does."""
    side, windows = model.model.decode_head.img_size, []
    for image in images:
        prepared = model.prepare(image)[0]
        windows += [prepared[:, :side, :side], prepared[:, -side:, -side:]]
    return torch.stack(windows)
