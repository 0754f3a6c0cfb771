"""The subjects of the benchmark: a model with random weights, the plain ViT, a test image, a training step."""
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
from tools.engine import process
from tools.engine.build import build_model
from tools.engine.evaluation import label_maps
from tools.engine.process import Place

TEST_IMAGE = 375, 500  # a common size in PASCAL VOC


def model_of(config: Config, place: Place) -> CLIPRC:
    """Build the config's model with initial weights and random text embeddings."""
    torch.manual_seed(0)
    model = build_model(config)
    rows = torch.randn(model.num_classes, model.class_head.embed_dims, generator=torch.Generator().manual_seed(0))
    model.class_head.set_classes(model.num_classes, F.normalize(rows, dim=1))
    return model.to(place.device)


def plain_vit(model: CLIPRC) -> VisionTransformer:
    """Build timm's ViT with the encoder's width, depth and number of tokens: the yardstick T."""
    encoder = model.backbone
    return VisionTransformer(
        img_size=encoder.input_resolution, patch_size=encoder.patch_size, embed_dim=encoder.conv1.out_channels,
        depth=len(encoder.transformer.resblocks), num_heads=encoder.transformer.resblocks[0].attn.heads,
        reg_tokens=encoder.num_tokens + encoder.side**2, num_classes=0).eval()


class TestImage:
    """Tests a drawn image from its file to its scores, as test.py does. It has two windows of 512 pixels."""

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

    def run(self) -> None:
        """Test the image, from file to scores."""
        batch = collate([self.dataset[0]], samples_per_gpu=1)  # as the loader does
        self.dataset.pre_eval(label_maps(self.wrapped, [batch], self.place)[0], 0)

    def run_whole(self) -> None:
        """Test it in one pass of the whole image."""
        usual, self.model.test_cfg.mode = self.model.test_cfg.mode, 'whole'
        try:
            self.run()
        finally:
            self.model.test_cfg.mode = usual


def window_labels(model: CLIPRC, images: Tensor) -> list[Tensor]:
    """Label images that are one window each."""
    shape = {'img_shape': tuple(images.shape[2:]), 'ori_shape': tuple(images.shape[2:])}
    return model.segment(images, [shape] * len(images))


def training_labels(model: CLIPRC, batch: int, side: int, device: torch.device) -> Tensor:
    """Draw labels (B, 1, H, W): patches of random classes and of no class (255)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(model.num_classes, (batch, 1, 4, 4), generator=generator)
    coarse[:, :, 0, 0] = 255
    return F.interpolate(coarse.float(), size=(side, side)).long().to(device)


def training_step(model: CLIPRC, images: Tensor, labels: Tensor) -> None:
    """Run a forward and backward pass."""
    model.zero_grad(set_to_none=True)
    losses = model.forward_train(images, [{}] * len(images), labels)
    sum(value for name, value in losses.items() if 'loss' in name).backward()
