"""Can the real code learn real images? `python tests/overfit.py --data-root VOC2012_FOLDER` exits 1 if it can't.

A small fully supervised model with an unfrozen vision encoder is trained by tools/train.py on 8 images and tested on
the same by test.py: at least 90% of the pixels of seen classes must be right. About 5 minutes on 2 CPU cores.
"""
import argparse
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGES = 8
SEEN = range(1, 16)  # ids in VOC's files
LEAST_ACCURACY = 0.90

CONFIG = '''
_base_ = '{repository}/configs/voc12/clip_rc_fully_vit-b_512x512_40k_voc_10_16.py'
size = (96, 96)
norm = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
model = dict(
    pretrained=None, load_text_embedding='{embeddings}', ft_backbone=True,
    backbone=dict(input_resolution=96, patch_size=8, width=128, layers=4, heads=4, output_dim=64, num_tokens=4,
                  region_level_bridge_size=4),
    decode_head=dict(img_size=96, in_channels=64, num_heads=4),
    test_cfg=dict(_delete_=True, mode='whole', crop_size=size))
train = [dict(type='LoadImage'), dict(type='LoadLabels'),
         dict(type='Resize', img_scale=size, keep_ratio=False), dict(type='Normalize', **norm),
         dict(type='DefaultFormatBundle'),
         dict(type='Collect', keys=['img', 'gt_semantic_seg'],
              meta_keys=('filename', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor'))]
test = [dict(type='LoadImage'), dict(type='MultiScaleFlipAug', img_scale=size, flip=False, transforms=[
    dict(type='Resize', keep_ratio=False), dict(type='RandomFlip'), dict(type='Normalize', **norm),
    dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])])]
split = dict(data_root='{data}', ann_dir='SegmentationClass', split='{names}')
data = dict(samples_per_gpu=8, workers_per_gpu=1, train=dict(pipeline=train, **split),
            val=dict(pipeline=test, **split), test=dict(pipeline=test, **split))
optimizer = dict(lr=1e-3)
lr_config = dict(warmup_iters=50)
runner = dict(max_iters={iterations})
checkpoint_config = dict(interval={iterations})
log_config = dict(interval=50)
'''


def images_of_seen_classes(data: Path) -> list[str]:
    """The first images of train.txt that hold no unseen class."""
    names = (data / 'ImageSets/Segmentation/train.txt').read_text().split()
    chosen = [name for name in names if not np.isin(
        np.asarray(Image.open(data / f'SegmentationClass/{name}.png')), range(16, 21)).any()]
    return chosen[:IMAGES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('?')[0] + '?')
    parser.add_argument('--data-root', type=Path, required=True, help="VOC2012's folder")
    parser.add_argument('--iterations', type=int, default=1200, help='of the training (default: 1200)')
    parser.add_argument('--device', default='auto', help='auto, cuda or cpu (default: auto)')
    args = parser.parse_args()
    data = args.data_root.resolve()
    names = images_of_seen_classes(data)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rows = np.random.default_rng(0).standard_normal((20, 64)).astype(np.float32)
        np.save(work / 'embeddings.npy', rows / np.linalg.norm(rows, axis=1, keepdims=True))
        (work / 'names.txt').write_text('\n'.join(names) + '\n')
        config = work / 'overfit.py'
        config.write_text(CONFIG.format(repository=REPOSITORY, embeddings=work / 'embeddings.npy', data=data,
                                        names=work / 'names.txt', iterations=args.iterations))
        for command in (['tools/train.py', config, '--work-dir', work, '--no-validate', '--seed', '0'],
                        ['test.py', config, work / 'latest.pth', '--out', work / 'labels.pkl']):
            subprocess.run([sys.executable, *command, '--device', args.device], check=True, cwd=REPOSITORY)
        predictions = pickle.loads((work / 'labels.pkl').read_bytes())
    right = total = 0
    for name, prediction in zip(names, predictions, strict=True):
        truth = np.asarray(Image.open(data / f'SegmentationClass/{name}.png'))
        counted = np.isin(truth, SEEN)
        right += int((prediction + 1 == truth)[counted].sum())
        total += int(counted.sum())
    accuracy = right / total
    print(f'{len(names)} images, {args.iterations} iterations: {accuracy:.1%} of {total} seen pixels right')
    sys.exit(0 if accuracy >= LEAST_ACCURACY else f'error: less than {LEAST_ACCURACY:.0%}: the model does not learn.')


if __name__ == '__main__':
    main()
