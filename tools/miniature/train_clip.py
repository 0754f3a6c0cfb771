#!/usr/bin/env python3
"""Train the miniature's CLIP on drawn images and captions: `python tools/miniature/train_clip.py FILE`.

A caption names all objects of its image, those of unseen classes too, as the captions of CLIP's web images did; masks
are not used. The loss is the symmetric contrastive loss of Radford et al. 2021, where images of equal captions are
positives of each other; a random half of the patches is dropped (Li et al. 2023, FLIP). The file has OpenAI's format.
"""
import argparse
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # so that `datasets` and `tools` are this repository's
import models  # noqa: F401  first: silences the notices of mmcv's import

# isort: split
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.runner import set_random_seed
from mmcv.utils import get_logger
from torch import Tensor, nn

from datasets.miniature import Miniature
from models.clip_layers import LayerNorm, Transformer
from models.errors import UserError
from models.text_encoder import CLIPTextEncoder, embed_class_names, tokenize
from tools.engine.arguments import positive_int
from tools.engine.errors import run
from tools.engine.files import atomic_path, make_folder
from tools.miniature.world import draw_scene

SIZE, PATCH = 64, 8  # pixels
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # as in the configs
LEARNING_RATE = 1e-3  # the highest
SINGLE = 0.1  # share of the iterations on images of one object, at the start
KEPT = 0.5  # share of the patches that is used after that
CAPTIONS = ('a photo of {}', 'a picture of {}', 'there is {}', '{}')


def waves(side: int, width: int) -> Tensor:
    """Return sines and cosines of row and column, (side * side, width): random positions learn shapes late."""
    frequencies = 1.5 * 100**(-torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * frequencies  # (side, width / 4)
    line = 0.5 * torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    return torch.cat([line[:, None].expand(-1, side, -1), line.expand(side, -1, -1)], dim=2).flatten(0, 1)


class ImageTower(nn.Module):
    """CLIP's image transformer, read at the class token; parameter names are OpenAI's."""

    def __init__(self, *, width: int, layers: int, embed_dim: int):
        super().__init__()
        scale = width**-0.5
        self.conv1 = nn.Conv2d(3, width, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.cat([torch.zeros(1, width), waves(SIZE // PATCH, width)]))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, layers, width // 64)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, embed_dim))

    def forward(self, images: Tensor, kept: float = 1.) -> Tensor:
        """Embed images (B, 3, SIZE, SIZE) -> (B, E) from a random share `kept` of their patches."""
        patches = self.conv1(images).flatten(2).transpose(1, 2) + self.positional_embedding[1:]
        if kept < 1:
            chosen = torch.rand(patches.shape[:2]).argsort(dim=1)[:, :round(kept * patches.shape[1])]
            patches = patches.gather(1, chosen[..., None].expand(-1, -1, patches.shape[2]))
        cls = (self.class_embedding + self.positional_embedding[0]).expand(len(images), 1, -1)
        x = self.ln_pre(torch.cat([cls, patches], dim=1))
        for block in self.transformer.resblocks:
            x = block(x)
        return self.ln_post(x[:, 0]) @ self.proj


def draw(seed: int, index: int, most: int = 4) -> tuple[np.ndarray, list[int]]:
    """Draw an image (3, SIZE, SIZE) uint8 with 1 to `most` objects; return it with their classes."""
    objects = 1 + index % most
    scene = draw_scene([seed, index], objects=(objects, objects), radii=(14, 30 if objects > 1 else 56))
    image = cv2.resize(scene.image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return image.transpose(2, 0, 1), scene.classes


def draw_all(seed: int, count: int, most: int = 4) -> tuple[Tensor, list[list[int]]]:
    """Draw images (count, 3, SIZE, SIZE) uint8; return them with the classes of each."""
    with ProcessPoolExecutor() as processes:
        drawn = list(processes.map(partial(draw, seed, most=most), range(count), chunksize=100))
    return torch.from_numpy(np.stack([image for image, _ in drawn])), [classes for _, classes in drawn]


def caption(classes: list[int], random: np.random.Generator) -> str:
    """Make a caption such as 'a photo of a red paint, a blue dots and a green checks', in random order."""
    names = [f'a {Miniature.CLASSES[index]}' for index in random.permutation(classes)]
    listed = ' and '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return CAPTIONS[random.integers(len(CAPTIONS))].format(listed)


def normalised(images: Tensor) -> Tensor:
    return (images.float() - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """Compare images and texts (B, E); same (B, B): 1 where the captions name the same objects, else 0."""
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    targets = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


@torch.no_grad()
def accuracy(image_tower: ImageTower, text_encoder: CLIPTextEncoder, images: Tensor, classes: list[list[int]]
             ) -> float:
    """Return the share of images of one object whose own class name is the most similar one."""
    names = embed_class_names(text_encoder, Miniature.CLASSES, ['a photo of a {}'])
    found = (image_tower(normalised(images)) @ names.T).argmax(dim=1)
    return float((found == torch.tensor(classes)[:, 0]).float().mean())


def as_saved(image_tower: ImageTower, text_encoder: CLIPTextEncoder, scale: Tensor, used: Tensor) -> dict:
    """Return float16 weights in OpenAI's format; rows of the vocabulary that no caption uses are zero."""
    weights = {f'visual.{name}': value for name, value in image_tower.state_dict().items()}
    weights |= text_encoder.state_dict()
    vocabulary = torch.zeros_like(weights['token_embedding.weight'])
    vocabulary[used] = weights['token_embedding.weight'][used]
    weights |= {'token_embedding.weight': vocabulary, 'logit_scale': scale}
    weights = {name: value.detach().half() for name, value in weights.items()}
    integers = {'input_resolution': torch.tensor(SIZE), 'context_length': torch.tensor(77),
                'vocab_size': torch.tensor(len(vocabulary))}
    return weights | integers


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the miniature's CLIP.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('file', type=Path, help='file to write when training ends')
    parser.add_argument('--iterations', type=positive_int, default=2000, help='training steps')
    parser.add_argument('--batch', type=positive_int, default=64, help='images per step')
    parser.add_argument('--width', type=positive_int, default=128, help='channels of the image tower')
    parser.add_argument('--layers', type=positive_int, default=4, help='layers of the image tower')
    parser.add_argument('--embed-dim', type=positive_int, default=64, help='channels of the embeddings')
    parser.add_argument('--pool', type=positive_int, default=20000,
                        help='number of drawn images; mirroring doubles them')
    parser.add_argument('--seed', type=int, default=0, help='seed of images, captions and weights')
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.file.is_dir():
        raise UserError(f'{args.file} is a folder: name a file in it, such as {args.file / "clip.pt"}.')
    make_folder(args.file.absolute().parent)
    logger = get_logger('mmseg')
    set_random_seed(args.seed)
    random = np.random.default_rng(args.seed)
    image_tower = ImageTower(width=args.width, layers=args.layers, embed_dim=args.embed_dim)
    text_encoder = CLIPTextEncoder(transformer_width=64, transformer_heads=1, transformer_layers=3,
                                   embed_dim=args.embed_dim)
    scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    parameters = [*image_tower.parameters(), *text_encoder.parameters(), scale]
    optimizer = torch.optim.AdamW([{'params': [p for p in parameters if p.ndim > 1], 'weight_decay': 0.05},
                                   {'params': [p for p in parameters if p.ndim < 2], 'weight_decay': 0.}],
                                  lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(
        (i + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * i / args.iterations)))
    logger.info('drawing %d images (some minutes)', args.pool)
    pool, classes = draw_all(1000 + args.seed, args.pool)
    held_out = draw_all(1, 500, most=1)
    length = 2 + max(len(tokenize([caption([0] * 4, random)])[0].nonzero()) for _ in range(50))
    used = torch.zeros(text_encoder.token_embedding.num_embeddings, dtype=torch.bool)
    started = time.time()
    for iteration in range(args.iterations):
        first = iteration < SINGLE * args.iterations
        chosen = random.integers(0, args.pool // 4, args.batch) * 4 if first else random.integers(
            0, args.pool, args.batch)
        images = pool[chosen]
        images = torch.where(torch.rand(args.batch, 1, 1, 1) < 0.5, images, images.flip(3))
        tokens = tokenize([caption(classes[i], random) for i in chosen])[:, :length]
        used[tokens.unique()] = True
        keys = np.array([sum(100**place * (name + 1) for place, name in enumerate(sorted(classes[i]))) for i in chosen])
        same = torch.from_numpy(keys[:, None] == keys[None]).float()
        embedded = image_tower(normalised(images), 1 if first else KEPT)
        loss = contrastive_loss(embedded, text_encoder(tokens), scale.exp(), same)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            scale.clamp_(max=math.log(100))
        if (iteration + 1) % 100 == 0 or iteration < 3:
            logger.info('iteration %d of %d, %.0f s, loss %.3f, accuracy %.3f', iteration + 1, args.iterations,
                        time.time() - started, loss.item(), accuracy(image_tower, text_encoder, *held_out))
    with atomic_path(args.file) as file:
        torch.save(as_saved(image_tower, text_encoder, scale, used), file)


if __name__ == '__main__':
    run(main)
