"""CLIP-RC as an mmsegmentation segmentor: wiring only.

    picture -> vision encoder -> region-clue head <- text embeddings
"""
from collections.abc import Sequence

import numpy as np
import torch
from mmcv import ConfigDict
from mmseg.models import EncoderDecoder
from mmseg.models.builder import SEGMENTORS, build_backbone
from torch import Tensor

from . import clip_checkpoint
from .label_mapping import Setting
from .text_encoder import embed_class_names


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
        ft_backbone: train the whole vision encoder. Otherwise only what has `exclude_key` in its name trains.

    Raises:
        ValueError: lists, sizes or files that do not fit each other.
    """

    def __init__(self, *, backbone: dict, decode_head: dict, test_cfg: dict, train_cfg: dict | None = None,
                 pretrained: str | None = None, both_class: Sequence[int] | None = None,
                 base_class: Sequence[int] | None = None, novel_class: Sequence[int] | None = None,
                 self_training: bool = False, load_text_embedding: str | None = None,
                 text_encoder: dict | None = None, pretrained_text: str | None = None,
                 class_names: Sequence[str] | None = None, prompt_templates: Sequence[str] = ('a photo of a {}',),
                 ft_backbone: bool = False, exclude_key: str = 'prompt', init_cfg: dict | None = None):
        super().__init__(backbone=backbone, decode_head=decode_head, train_cfg=train_cfg,
                         test_cfg=ConfigDict(test_cfg), init_cfg=init_cfg)
        self.pretrained = pretrained
        self.pretrained_text = pretrained_text
        self.class_names = class_names
        self.prompt_templates = prompt_templates
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(ft_backbone or exclude_key in name)
        if both_class is not None:
            seen = sorted(set(both_class) - set(novel_class or [])) if base_class is None else base_class
            self._check_lists(both_class, seen, novel_class, decode_head)
            self.set_classes(len(both_class), seen, self_training=self_training)

        self.text_encoder = None
        if load_text_embedding is not None:
            self.decode_head.class_head.set_embeddings(
                clip_checkpoint.read_embeddings(load_text_embedding), source=load_text_embedding)
        elif text_encoder is not None and class_names is not None:
            self.text_encoder = build_backbone(text_encoder).requires_grad_(False)

    @staticmethod
    def _check_lists(both: Sequence[int], seen: Sequence[int], unseen: Sequence[int] | None,
                     decode_head: dict) -> None:
        """Official configs write the split several times; the copies must agree."""
        if sorted(both) != list(range(len(both))):
            raise ValueError(f'both_class={list(both)} must name every class index from 0 once.')
        if unseen is not None and sorted([*seen, *unseen]) != sorted(both):
            raise ValueError('base_class and novel_class must divide both_class: each index once in one of them.')
        for name, known in (('seen_idx', seen), ('all_idx', both)):
            if decode_head.get(name) is not None and sorted(decode_head[name]) != sorted(known):
                raise ValueError(f'decode_head.{name}={list(decode_head[name])} differs from the segmentor\'s '
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

    def init_weights(self) -> None:
        """Loads CLIP's weights, where named, for training. All else has its initial values since construction."""
        if self.pretrained is not None:
            clip_checkpoint.load_vision_tower(self.backbone, clip_checkpoint.read(self.pretrained))
        if self.text_encoder is not None and self.pretrained_text is not None:
            tower = clip_checkpoint.text_tower(clip_checkpoint.read(self.pretrained_text))
            clip_checkpoint.check(tower, self.text_encoder.state_dict(), self.pretrained_text)
            self.text_encoder.load_state_dict(tower)
            self.decode_head.class_head.embeddings = None  # of other weights

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Every way of loading weights, torch's, mmcv's and mmseg's, passes here, and is strict."""
        clip_checkpoint.adapt(state_dict, self.state_dict(), prefix)
        if self.text_encoder is not None:
            self.decode_head.class_head.embeddings = None  # of other weights
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extract_feat(self, img: Tensor):
        """Pictures (B, 3, H, W) -> `ImageFeatures`."""
        class_head = self.decode_head.class_head
        if self.text_encoder is not None and class_head.embeddings is None:
            class_head.set_embeddings(embed_class_names(self.text_encoder, self.class_names, self.prompt_templates))
        return self.backbone(img)

    def encode_decode(self, img: Tensor, img_metas: list[dict] | None) -> Tensor:
        """Window (B, 3, H, W) -> scores (B, C, H, W)."""
        return self.decode_head.forward_test(self.extract_feat(img), size=img.shape[2:])

    def class_embeddings(self) -> np.ndarray:
        """The text embeddings in use, (C, E) float32."""
        return self.decode_head.class_head.embeddings.cpu().numpy().astype(np.float32)

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]
