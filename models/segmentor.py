"""CLIP-RC as an mmsegmentation segmentor: wiring only.

    image -> vision encoder -> region-clue head <- text embeddings

A part of another `type` may stand in the place of ours. Derived from ours, it has what is asked of it:

    backbone      (BACKBONES) `forward(images)` -> ImageFeatures; `input_resolution`, `nearest_size`. What CLIP's
                  file does not hold, and what trains, has `prompt` in its name.
    decode_head   (HEADS) `forward(features)` -> Decoded, of which testing reads `logits` alone; `forward_train` ->
                  losses by name, `forward_test` -> scores; `class_head`, `img_size`, `num_classes`, `align_corners`.
    class_head    (HEADS, in the head) keeps split and embeddings, makes the queries, turns logits into `scores`.
    loss_decode   (LOSSES, in the head) `forward(logits, labels, resizing)` -> values by name: those with `loss` in
                  their name are added up, all are logged; `recovery_loss_weight`, `recovery`.
"""
import copy
import getpass
import inspect
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from mmcv import ConfigDict
from mmseg.models import EncoderDecoder, build_segmentor
from mmseg.models.builder import MODELS, SEGMENTORS, build_backbone
from torch import Tensor, nn

from .clip_layers import ResidualAttentionBlock
from .errors import UserError, building
from .precision import autocast
from .resizing import Resizing, resize
from .sliding_window import Stitched, Window, sliding
from .text_encoder import embed_class_names
from .training_labels import Setting
from .two_stream_decoder import CrossAttentionLayer
from .weights import checks, clip, cliprc, files, metadata
from .weights.clip_variant import text_encoder_of, text_options
from .weights.files import Checkpoint


def build(model: dict) -> 'CLIPRC':
    """The model of a config's `model`.

    Raises:
        UserError: an argument or a type that does not exist, or values that do not fit each other.
    """
    with building('the config\'s model cannot be built', _with_remedy):
        return build_segmentor(model)


def _with_remedy(message: str) -> str:
    """The message of an argument that a part of the model does not know, with those that it does; of an unknown type,
    with how a config names the user's own."""
    unknown = re.search(r'(\w+) is not in the models registry', message)
    if unknown:
        return (f'{unknown[0]}. If it is a part of your own, in MODULE.py beside the config: '
                "custom_imports = dict(imports=['MODULE']) there.")
    found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", message)
    part = MODELS.get(found[1]) if found else None
    if part is None:
        return message
    known = [name for name in inspect.signature(part).parameters if name != 'init_cfg']
    return f'{found[1]} has no {found[2]!r}, it has {", ".join(known)}.'


def _as_it_is(module: nn.Module) -> nn.Module:
    """The module with the buffers of now: classes that it gets later do not change what was asked of it before."""
    as_it_is = copy.copy(module)
    as_it_is._buffers = {**module._buffers}
    return as_it_is


@SEGMENTORS.register_module(name=['CLIPRC'])
class CLIPRC(EncoderDecoder):
    """The model, with the arguments of official configs.

    Args:
        backbone, decode_head: configs of the vision encoder and of the region-clue head.
        pretrained: CLIP file that `init_weights` loads into the vision encoder; never read in testing.
        both_class, base_class, novel_class: indices of all classes, of those with masks in training, and of the
            rest. `novel_class=[]` is the fully supervised setting. Without them call `set_classes`.
        self_training: the transductive setting.
        load_text_embedding: `.npy` file (C, E) with the embeddings of all classes, read once, here.
        text_encoder, pretrained_text, class_names, prompt_templates: when no such file is named, CLIP's text tower
            is built and embeds the class names once its weights are loaded.
        clip_name: open_clip's name of the CLIP, which tells what no tensor does, see `clip_variant`.
        ft_backbone: train the whole vision encoder. Otherwise only what has `exclude_key` in its name trains.

    Raises:
        UserError: lists, sizes or files that do not fit each other.
    """

    def __init__(self, *, backbone: dict, decode_head: dict, test_cfg: dict, train_cfg: dict | None = None,
                 pretrained: str | None = None, both_class: Sequence[int] | None = None,
                 base_class: Sequence[int] | None = None, novel_class: Sequence[int] | None = None,
                 self_training: bool = False, load_text_embedding: str | None = None,
                 text_encoder: dict | None = None, pretrained_text: str | None = None,
                 class_names: Sequence[str] | None = None, prompt_templates: Sequence[str] = ('a photo of a {}',),
                 clip_name: str | None = None, ft_backbone: bool = False, exclude_key: str = 'prompt',
                 init_cfg: dict | None = None):
        super().__init__(backbone=backbone, decode_head=decode_head, train_cfg=train_cfg,
                         test_cfg=ConfigDict(test_cfg), init_cfg=init_cfg)
        self.pretrained = pretrained
        self.pretrained_text = pretrained_text
        self.class_names = class_names
        self.prompt_templates = prompt_templates
        self.amp_dtype: torch.dtype | None = None  # of the products; everything else is float32
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(ft_backbone or exclude_key in name)
        if both_class is not None:
            seen = sorted(set(both_class) - set(novel_class or [])) if base_class is None else base_class
            self._check_lists(both_class, seen, novel_class, decode_head)
            self.set_classes(len(both_class), seen, self_training=self_training)

        self.tower = text_options({'text_encoder': text_encoder, 'backbone': backbone, 'clip_name': clip_name})
        self.text_encoder = None
        if load_text_embedding is not None:
            self.decode_head.class_head.set_embeddings(
                files.read_embeddings(load_text_embedding), source=load_text_embedding)
        elif text_encoder is not None and class_names is not None:
            self.text_encoder = build_backbone(text_encoder).requires_grad_(False)

    @staticmethod
    def _check_lists(both: Sequence[int], seen: Sequence[int], unseen: Sequence[int] | None,
                     decode_head: dict) -> None:
        """Official configs write the split several times; the copies must agree."""
        if sorted(both) != list(range(len(both))):
            raise UserError(f'both_class={list(both)} must name every class index from 0 once.')
        if unseen is not None and sorted([*seen, *unseen]) != sorted(both):
            raise UserError('base_class and novel_class must divide both_class: each index once in one of them.')
        if not seen:
            raise UserError('base_class is empty: a model needs a class with masks to train on.')
        for name, known in (('seen_idx', seen), ('all_idx', both)):
            if decode_head.get(name) is not None and sorted(decode_head[name]) != sorted(known):
                raise UserError(f'decode_head.{name}={list(decode_head[name])} differs from the segmentor\'s '
                                f'{sorted(known)}.')

    @property
    def setting(self) -> Setting:
        return self.decode_head.class_head.setting

    def set_classes(self, num_classes: int, seen: Sequence[int], *, self_training: bool = False) -> None:
        """Makes this a model of `num_classes` classes, those of the indices `seen` with masks in training."""
        setting = (Setting.FULLY_SUPERVISED if len(seen) == num_classes else
                   Setting.TRANSDUCTIVE if self_training else Setting.INDUCTIVE)
        self.decode_head.class_head.set_split(num_classes=num_classes, seen=seen, setting=setting)
        self.num_classes = self.out_channels = num_classes

    def set_words(self, embeddings: Tensor, seen: Sequence[int]) -> None:
        """Makes this a model of any words, of embeddings (W, E), for testing alone.

        Args:
            seen: indices of those whose masks training has shown; they get the seen penalty.
        """
        self.decode_head.class_head.set_split(num_classes=len(embeddings), seen=seen, setting=Setting.INDUCTIVE)
        self.decode_head.class_head.set_embeddings(embeddings)
        self.num_classes = self.out_channels = len(embeddings)

    def init_weights(self) -> None:
        """Loads CLIP's weights, where named, for training. All else has its initial values since construction."""
        if self.pretrained is not None:
            clip.load_vision_tower(self.backbone, files.read(self.pretrained))
        if self.text_encoder is not None and self.pretrained_text is not None:
            tower = clip.text_tower(files.read(self.pretrained_text))
            checks.check(tower, self.text_encoder.state_dict(), self.pretrained_text)
            self.text_encoder.load_state_dict(tower)
            self.decode_head.class_head.embeddings = None  # of other weights

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict, *args) -> None:
        """Every way of loading weights, torch's, mmcv's and mmseg's, passes here, and is strict."""
        if not prefix:
            cliprc.rename(state_dict)
        if (checkpoint := local_metadata.get('checkpoint')) is not None:  # mmcv's way: see `mmcv_compat`
            self.take_classes(checkpoint)
            if metadata.is_slim(checkpoint):
                state_dict.update(cliprc.completed(state_dict, self.state_dict()))
        cliprc.adapt(state_dict, self.state_dict(), prefix)
        if self.text_encoder is not None:
            self.decode_head.class_head.embeddings = None  # of other weights
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def take_classes(self, checkpoint: Checkpoint) -> None:
        """Makes a model that was built without classes one of those that a checkpoint was trained on.

        Their text embeddings come from a checkpoint of ours, or by the text tower in an official one.
        """
        head, told = self.decode_head.class_head, metadata.description(checkpoint)
        if told is not None and self.num_classes == 0:
            seen = [index for index, name in enumerate(told.class_names) if name not in told.unseen_names]
            self.set_classes(len(told.class_names), seen, self_training=told.setting == Setting.TRANSDUCTIVE.value)
            head.set_embeddings(told.embeddings, source=checkpoint.path)
        elif head.embeddings is None and self.text_encoder is None and clip.holds_text_tower(checkpoint):
            encoder = text_encoder_of(checkpoint, **self.tower)
            names = checkpoint.meta['CLASSES']
            if self.num_classes == 0:
                self.set_classes(len(names), range(len(names)))
            head.set_embeddings(embed_class_names(encoder, names, self.prompt_templates), source=checkpoint.path)

    def extract_feat(self, img: Tensor):
        """Images (B, 3, H, W) -> `ImageFeatures`."""
        class_head = self.decode_head.class_head
        if self.text_encoder is not None and class_head.embeddings is None:
            class_head.set_embeddings(embed_class_names(self.text_encoder, self.class_names, self.prompt_templates))
        return self.backbone(img)

    def encode_decode(self, img: Tensor, img_metas: list[dict] | None) -> Tensor:
        """Window (B, 3, H, W) -> scores (B, C, H, W)."""
        with autocast(img.device, self.amp_dtype):
            return self.decode_head.forward_test(self.extract_feat(img), size=img.shape[2:])

    def forward_train(self, img: Tensor, img_metas: list[dict], gt_semantic_seg: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) and labels (B, 1, H, W) -> losses and the accuracy."""
        with autocast(img.device, self.amp_dtype):
            return super().forward_train(img, img_metas, gt_semantic_seg)

    def segment(self, images: Sequence[Tensor], metas: Sequence[dict]) -> list[Tensor]:
        """Images (3, H, W), each of its own size -> class of each pixel, (H0, W0) int64, on their device.

        All windows of all images go through the model in batches of `windows_per_batch`; of scores no more exists at
        a time than of some classes.

        Args:
            metas: of each image `img_shape`, its (H, W) without padding, and `ori_shape`, (H0, W0).
        """
        return [scores.labels() for scores in self.stitch(images, metas)]

    def simple_test(self, img: Tensor, img_meta: list[dict], rescale: bool = True) -> list[np.ndarray]:
        """Images (B, 3, H, W) -> their label maps, (H0, W0) or of the images' own size."""
        return [scores.labels().cpu().numpy() for scores in self.stitch(img, img_meta, rescale=rescale)]

    def slide_inference(self, img: Tensor, img_meta: list[dict], rescale: bool) -> Tensor:
        """Images (B, 3, H, W) -> scores of all classes, (B, C, H0, W0), or at the images' own size."""
        return torch.cat([scores.all() for scores in self.stitch(img, img_meta, rescale=rescale)])

    whole_inference = slide_inference  # `test_cfg.mode` says which of them it is

    def stitch(self, images: Sequence[Tensor], metas: Sequence[dict], *, rescale: bool = True) -> list[Stitched]:
        """Images as for `segment` -> the scores of each, which are made when they are asked for."""
        places, views = [], []
        for image in images:
            size = tuple(image.shape[1:])
            if self.test_cfg.mode == 'whole':
                places.append([Window(0, 0, *size)])
                views.append(resize(image[None], self.backbone.nearest_size(size))[0])
            else:
                places.append(sliding(size, self.test_cfg.crop_size, self.test_cfg.stride))
                views += [window.of(image) for window in places[-1]]
        logits, class_head = iter(self._logits(views)), _as_it_is(self.decode_head.class_head)
        stitched = []
        for image, meta, windows in zip(images, metas, places, strict=True):
            of_image = torch.stack([next(logits) for _ in windows])
            size = tuple(meta['img_shape'][:2]) if rescale else tuple(image.shape[1:])
            window = windows[0].height, windows[0].width
            by_way_of = [] if self.test_cfg.mode == 'whole' else [(self.decode_head.img_size,) * 2]
            stitched.append(Stitched(
                of_image, windows, size=size, original=tuple(meta['ori_shape'][:2]) if rescale else size,
                resizing=Resizing(tuple(of_image.shape[2:]), *by_way_of, window, like=of_image),
                scores=class_head.scores))
        return stitched

    def _logits(self, views: Sequence[Tensor]) -> Iterator[Tensor]:
        """Windows (3, h, w) -> mask logits (C, Gh, Gw) of each, those of one size together."""
        at_once = self.test_cfg.get('windows_per_batch') or (16 if views[0].is_cuda else 1)
        for _, alike in groupby(views, key=lambda view: view.shape):
            for images in torch.stack(list(alike)).split(at_once):
                with autocast(images.device, self.amp_dtype):
                    logits = self.decode_head(self.extract_feat(images)).logits
                yield from logits

    def compile_layers(self) -> None:
        """Lets torch.compile work on each transformer block and decoder layer; state dicts stay as they are.

        Compiled code is kept apart for each kind of CPU instructions: torch 2.11 would take that of another
        ATEN_CPU_CAPABILITY from its cache, and compute nonsense with it.
        """
        kind = torch.backends.cpu.get_cpu_capability().replace(' ', '_')
        os.environ.setdefault('TORCHINDUCTOR_CACHE_DIR',
                              f'{tempfile.gettempdir()}/torchinductor_{getpass.getuser()}_{kind}')
        for layer in self.modules():
            if isinstance(layer, (ResidualAttentionBlock, CrossAttentionLayer)):
                layer.compile()

    def class_embeddings(self) -> np.ndarray:
        """The text embeddings in use, (C, E) float32."""
        return self.decode_head.class_head.embeddings.cpu().numpy().astype(np.float32)

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]
