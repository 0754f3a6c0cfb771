"""What is measured: the model on random weights, the plain ViT, a test image, a training step, the oracle."""
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmcv import Config
from mmcv.parallel import collate
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from datasets import ZeroShotDataset
from models import CLIPRC
from tools.benchmarking.measuring import Job
from tools.engine import process
from tools.engine.build import build_model
from tools.engine.evaluation import label_maps
from tools.engine.process import Place

TEST_IMAGE = 375, 500  # a common size in PASCAL VOC


def model_of(config: Config, place: Place) -> CLIPRC:
    """The config's model with initial weights and random text embeddings."""
    torch.manual_seed(0)
    model = build_model(config)
    set_classes(model, model.num_classes, len(model.decode_head.class_head.seen))
    return model.to(place.device)


def set_classes(model: CLIPRC, classes: int, seen: int) -> None:
    """Makes it a model of so many classes, the first of them seen."""
    if classes != model.num_classes:
        model.set_classes(classes, list(range(seen)), self_training=model.setting.value == 'transductive')
    rows = torch.randn(classes, model.decode_head.class_head.embed_dims, generator=torch.Generator().manual_seed(0))
    model.decode_head.class_head.set_embeddings(F.normalize(rows, dim=1))


def plain_vit(model: CLIPRC) -> VisionTransformer:
    """timm's ViT of the encoder's width and depth, on as many tokens."""
    encoder = model.backbone
    return VisionTransformer(
        img_size=encoder.input_resolution, patch_size=encoder.patch_size, embed_dim=encoder.conv1.out_channels,
        depth=len(encoder.transformer.resblocks), num_heads=encoder.transformer.resblocks[0].attn.heads,
        reg_tokens=encoder.num_tokens + encoder.side**2, num_classes=0).eval()


def plain_pass(model: CLIPRC, device: torch.device) -> Job:
    """T: the plain ViT's forward pass on one image in float32."""
    vit = plain_vit(model).to(device)
    image = torch.randn(1, 3, *vit.patch_embed.img_size, device=device)
    return torch.no_grad()(lambda: vit(image))


class TestImage:
    """A drawn image in a folder: from its file to its scores, as testing does it. Two windows of 512 pixels."""

    def __init__(self, model: CLIPRC, config: Config, place: Place, folder: Path):
        random = np.random.default_rng(0)
        coarse = Image.fromarray(random.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        images, masks = folder / 'images', folder / 'masks'
        images.mkdir()
        masks.mkdir()
        coarse.resize(TEST_IMAGE[::-1], Image.Resampling.BICUBIC).save(images / 'drawn.jpg', quality=90)
        classes = [f'class {index}' for index in range(model.num_classes)]
        mask = random.integers(0, model.num_classes, (12, 16)).astype(np.uint8)
        Image.fromarray(mask).resize(TEST_IMAGE[::-1], Image.Resampling.NEAREST).save(masks / 'drawn.png')
        self.dataset = ZeroShotDataset(
            classes=classes, unseen=(), img_dir=str(images), ann_dir=str(masks), img_suffix='.jpg',
            seg_map_suffix='.png', pipeline=config.data.test.pipeline, test_mode=True)
        self.place, self.model, self.wrapped = place, model, process.wrap(model, place)

    def batch(self) -> dict:
        """What the loader gives."""
        return collate([self.dataset[0]], samples_per_gpu=1)

    def view(self) -> Tensor:
        """The image after the pipeline, (1, 3, H, W)."""
        return self.batch()['img'][0].to(self.place.device)

    def run(self) -> None:
        """File to scores."""
        self.score(label_maps(self.wrapped, [self.batch()], self.place)[0])

    def run_whole(self) -> None:
        """The same with the image in one pass."""
        usual, self.model.test_cfg.mode = self.model.test_cfg.mode, 'whole'
        try:
            self.run()
        finally:
            self.model.test_cfg.mode = usual

    def score(self, labels: np.ndarray) -> None:
        self.dataset.pre_eval(labels, 0)


def window_labels(model: CLIPRC, images: Tensor) -> list[Tensor]:
    """Labels of images that are windows."""
    shape = {'img_shape': tuple(images.shape[2:]), 'ori_shape': tuple(images.shape[2:])}
    return model.segment(images, [shape] * len(images))


def training_labels(model: CLIPRC, batch: int, side: int, device: torch.device) -> Tensor:
    """(B, 1, H, W): patches of random classes, and some of none."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(model.num_classes, (batch, 1, 4, 4), generator=generator)
    coarse[:, :, 0, 0] = 255
    return F.interpolate(coarse.float(), size=(side, side)).long().to(device)


def training_step(model: CLIPRC, losses_of: Callable[[Tensor, Tensor], dict[str, Tensor]], images: Tensor,
                  labels: Tensor) -> None:
    """Forward and backward pass."""
    model.zero_grad(set_to_none=True)
    losses = losses_of(images, labels)
    sum(value for name, value in losses.items() if 'loss' in name).backward()
