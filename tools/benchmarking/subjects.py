"""The subjects of the benchmark: a model with random weights, the plain ViT, a test image, a training step."""
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmcv import Config
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from models import CLIPRC
from models.label_format import label_format
from tools.engine.build import build_model
from tools.engine.process import Place

TEST_IMAGE = 500, 375  # width, height: a common size in PASCAL VOC


def model_of(config: Config, place: Place, classes: int | None = None) -> CLIPRC:
    """Build the config's model with initial weights and random text embeddings, for its own classes or so many."""
    torch.manual_seed(0)
    model = build_model(config)
    count = classes or model.num_classes
    rows = torch.randn(count, model.class_head.embed_dims, generator=torch.Generator().manual_seed(0))
    model.class_head.set_classes(count, F.normalize(rows, dim=1), seen=range(classes) if classes else None)
    return model.to(place.device)


def plain_vit(model: CLIPRC) -> VisionTransformer:
    """Build timm's ViT with the encoder's width, depth and number of tokens: the yardstick T."""
    encoder = model.backbone
    return VisionTransformer(
        img_size=encoder.input_resolution, patch_size=encoder.patch_size, embed_dim=encoder.conv1.out_channels,
        depth=len(encoder.transformer.resblocks), num_heads=encoder.transformer.resblocks[0].attn.heads,
        reg_tokens=encoder.num_tokens + encoder.side**2, num_classes=0).eval()


def drawn_settings(classes: int, folder: Path, pipeline: list[dict]) -> dict:
    """Draw an image, of two windows of 512 pixels, and its mask into `folder`; return the settings of their dataset.

    The JPEG has some 90 KB, as PASCAL VOC's have: what decoding takes depends on it.
    """
    random = np.random.default_rng(0)
    image = 0
    for cells, share in ((24, .6), (96, .2), (384, .2)):  # coarse to fine
        noise = Image.fromarray(random.integers(0, 255, (cells, cells * 4 // 3, 3), dtype=np.uint8))
        image = image + share * np.asarray(noise.resize(TEST_IMAGE, Image.Resampling.BICUBIC), np.float32)
    mask = Image.fromarray(random.integers(0, classes, (12, 16)).astype(label_format(classes).dtype))
    for name in ('images', 'masks'):
        (folder / name).mkdir(parents=True)
    Image.fromarray(image.astype(np.uint8)).save(folder / 'images/drawn.jpg', quality=90)
    mask.resize(TEST_IMAGE, Image.Resampling.NEAREST).save(folder / 'masks/drawn.png')
    return dict(type='ZeroShotDataset', classes=[f'class {index}' for index in range(classes)], unseen=[],
                img_dir=str(folder / 'images'), ann_dir=str(folder / 'masks'), img_suffix='.jpg',
                seg_map_suffix='.png', pipeline=pipeline)


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
