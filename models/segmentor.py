"""CLIP-RC as an mmsegmentation segmentor: wiring only.

    image -> vision encoder -> region-clue head <- text embeddings

`models/README.md` lists the interface of a part that replaces one of these.
"""
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from mmcv import ConfigDict
from mmseg.models import EncoderDecoder
from mmseg.models.builder import SEGMENTORS, build_backbone, build_head
from torch import Tensor

from .precision import autocast
from .resizing import Resizing, resize
from .sliding_window import Stitched, Window, sliding
from .text_encoder import embed_class_names
from .training_labels import Setting, setting_of
from .vision_encoder import ImageFeatures
from .weights import checks, clip, cliprc, files


@SEGMENTORS.register_module(name=['CLIPRC'])
class CLIPRC(EncoderDecoder):
    """The model, with the arguments of official configs.

    Args:
        backbone, decode_head: configs of the vision encoder and of the region-clue head.
        pretrained: CLIP file that `init_weights` loads into the vision encoder; never read in testing.
        both_class, base_class, novel_class: indices of all classes, of those with masks in training, and of the
            rest. `novel_class=[]` is the fully supervised setting. Without them call `class_head.set_classes`.
        self_training: the transductive setting.
        load_text_embedding: `.npy` file (C, E) with the embeddings of all classes, read once, here.
        text_encoder, pretrained_text, class_names, prompt_templates: without such a file, CLIP's text encoder is built
            and `embed_class_names` computes the embeddings.
        ft_backbone: train the whole vision encoder. Otherwise only parameters with `exclude_key` in their name train.
        clip_name: open_clip's name of the CLIP, read from the config by `weights.clip_variant`.

    Raises:
        UserError: sizes or files that do not fit each other.
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
        self.pretrained, self.pretrained_text = pretrained, pretrained_text
        self.class_names, self.prompt_templates = class_names, prompt_templates
        self.amp_dtype: torch.dtype | None = None  # of linear layers, convolutions and attention; the rest is float32
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(ft_backbone or exclude_key in name)
        if both_class is not None:
            seen = sorted(set(both_class) - set(novel_class or [])) if base_class is None else base_class
            rows = None if load_text_embedding is None else files.read_embeddings(load_text_embedding)
            self.class_head.set_classes(len(both_class), rows, seen=seen, source=load_text_embedding,
                                        setting=setting_of(len(both_class), seen, self_training=self_training))
        self.text_encoder = None
        if load_text_embedding is None and text_encoder is not None and class_names is not None:
            self.text_encoder = build_backbone(text_encoder).requires_grad_(False)

    def _init_decode_head(self, decode_head: dict) -> None:
        self.decode_head = build_head(decode_head)
        self.align_corners = self.decode_head.align_corners

    @property
    def class_head(self):
        return self.decode_head.class_head

    @property
    def num_classes(self) -> int:
        return self.class_head.num_classes

    out_channels = num_classes  # mmseg reads both

    @property
    def setting(self) -> Setting:
        return self.class_head.setting

    def init_weights(self) -> None:
        """Load CLIP's weights, if a file is named, for training. The rest keeps its values from construction."""
        if self.pretrained is not None:
            clip.load_vision_tower(self.backbone, files.read(self.pretrained))
        if self.text_encoder is not None and self.pretrained_text is not None:
            tower = clip.text_tower(files.read(self.pretrained_text))
            checks.check(tower, self.text_encoder.state_dict(), self.pretrained_text)
            self.text_encoder.load_state_dict(tower)
        if self.text_encoder is not None:
            self.embed_class_names()

    def embed_class_names(self) -> None:
        """Compute the text embeddings of `class_names` by the model's own text encoder, once its weights are loaded."""
        rows = embed_class_names(self.text_encoder, self.class_names, self.prompt_templates)
        self.class_head.set_classes(self.num_classes, rows, source='class_names')

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Adapt the names of official and own weights; every loader (torch's, mmcv's, mmseg's) is strict here."""
        cliprc.adapt(state_dict, self.state_dict(), prefix)
        if self.text_encoder is not None:
            self.class_head.embeddings = None  # of other weights: call `embed_class_names` again
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extract_feat(self, img: Tensor) -> ImageFeatures:
        """Encode images (B, 3, H, W)."""
        return self.backbone(img)

    def encode_decode(self, img: Tensor, img_metas: list[dict] | None) -> Tensor:
        """Window (B, 3, H, W) -> scores (B, C, H, W)."""
        with autocast(img.device, self.amp_dtype):
            return self.decode_head.forward_test(self.extract_feat(img), size=img.shape[2:])

    def forward_train(self, img: Tensor, img_metas: list[dict], gt_semantic_seg: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) and labels (B, 1, H, W), int64 or uint8 -> losses and the accuracy in percent."""
        with autocast(img.device, self.amp_dtype):
            return super().forward_train(img, img_metas, gt_semantic_seg.long())

    @staticmethod
    def _parse_losses(losses: dict[str, Tensor | list[Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses -> their sum, and this process's values for the log, which stay on the device.

        mmseg's version waits for the device, and for all processes, at each value.
        """
        values = {name: sum(each.mean() for each in value) if isinstance(value, list) else value.mean()
                  for name, value in losses.items()}
        values['loss'] = sum(value for name, value in values.items() if 'loss' in name)
        return values['loss'], {name: value.detach() for name, value in values.items()}

    def segment(self, images: Sequence[Tensor], metas: Sequence[dict]) -> list[Tensor]:
        """Images (3, H, W), each of its own size -> class of each pixel, (H0, W0) int64, on their device.

        The windows of all images go through the model in batches of `windows_per_batch`; scores are computed for a
        chunk of classes at a time.

        Args:
            metas: of each image `img_shape`, its (H, W) without padding, and `ori_shape`, (H0, W0).
        """
        return [scores.labels() for scores in self.stitch(images, metas)]

    def simple_test(self, img: Tensor, img_meta: list[dict], rescale: bool = True) -> list[np.ndarray]:
        """Images (B, 3, H, W) -> their label maps, (H0, W0) or, without `rescale`, of the images' own size."""
        return [scores.labels().cpu().numpy() for scores in self.stitch(img, img_meta, rescale=rescale)]

    def slide_inference(self, img: Tensor, img_meta: list[dict], rescale: bool) -> Tensor:
        """Images (B, 3, H, W) -> scores of all classes, (B, C, H0, W0), or (B, C, H, W) without `rescale`."""
        return torch.cat([scores.all() for scores in self.stitch(img, img_meta, rescale=rescale)])

    whole_inference = slide_inference  # mmseg calls the one that `test_cfg.mode` names; `stitch` reads the mode

    def stitch(self, images: Sequence[Tensor], metas: Sequence[dict], *, rescale: bool = True) -> list[Stitched]:
        """Images as for `segment` -> the mask logits of their windows, from which `Stitched` computes scores."""
        places, views = [], []
        for image in images:
            size = tuple(image.shape[1:])
            if self.test_cfg.mode == 'whole':
                places.append([Window(0, 0, *size)])
                views.append(resize(image[None], self.backbone.nearest_size(size))[0])
            else:
                places.append(sliding(size, self.test_cfg.crop_size, self.test_cfg.stride))
                views += [window.of(image) for window in places[-1]]
        logits = iter(self._logits(views))
        stitched = []
        for image, meta, windows in zip(images, metas, places, strict=True):
            of_image = torch.stack([next(logits) for _ in windows])  # (n, C, Gh, Gw)
            size = tuple(meta['img_shape'][:2]) if rescale else tuple(image.shape[1:])
            window = windows[0].height, windows[0].width
            between = [] if self.test_cfg.mode == 'whole' else [(self.decode_head.img_size,) * 2]
            stitched.append(Stitched(
                of_image, windows, size=size, original=tuple(meta['ori_shape'][:2]) if rescale else size,
                resizing=Resizing(tuple(of_image.shape[2:]), *between, window, like=of_image),
                scores=self.class_head.scores, penalty=self.class_head.penalty))
        return stitched

    def _logits(self, views: Sequence[Tensor]) -> Iterator[Tensor]:
        """Windows (3, h, w) -> mask logits (C, Gh, Gw) of each; consecutive windows of one size share batches."""
        batch = self.test_cfg.get('windows_per_batch') or (16 if views[0].is_cuda else 1)
        for _, alike in groupby(views, key=lambda view: view.shape):
            for images in torch.stack(list(alike)).split(batch):
                with autocast(images.device, self.amp_dtype):
                    logits = self.window_logits(images)
                yield from logits

    def window_logits(self, images: Tensor) -> Tensor:
        """Windows (B, 3, h, w) -> mask logits (B, C, Gh, Gw)."""
        return self.decode_head(self.extract_feat(images)).logits

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        """List the parameters that require gradients."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]
