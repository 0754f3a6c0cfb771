"""Every config builds and trains with the published settings; an official config file works unchanged."""
import json
import shutil
from pathlib import Path

import pytest
import torch
from mmcv import Config
from mmcv.runner import build_optimizer
from mmseg.datasets import DATASETS

from models.clip_layers import GELUS
from models.weights.files import Checkpoint
from tests.clip_files import VIT_B_16, VIT_B_32, VIT_L_14, clip_by_shape
from tests.conftest import GOLDEN, REPOSITORY
from tools.engine.build import build_model, dataset_facts
from tools.engine.config import as_data, as_text, load_config
from tools.engine.config_names import check_names

CONFIGS = REPOSITORY / 'configs'
LEAVES = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
VOC = 'voc12/clip_rc_{}.py'
COCO = 'coco/clip_rc_{}.py'
# leaf -> iterations, prompts, region tokens, weights of mask, dice and recovery, images per GPU, setting
PUBLISHED = {
    VOC.format('zero_vit-b_512x512_40k_voc_10_16'): (40000, 10, 16, 100, 1, 2, 8, 'inductive'),
    VOC.format('zero_vit-b_512x512_20k_voc_10_16_st'): (20000, 10, 16, 100, 1, 2, 8, 'transductive'),
    VOC.format('fully_vit-b_512x512_40k_voc_10_16'): (40000, 10, 16, 100, 1, 0, 8, 'fully_supervised'),
    COCO.format('zero_vit-b_512x512_80k_coco_stuff164k_100_16'): (80000, 100, 16, 200, 3, 50, 2, 'inductive'),
    COCO.format('zero_vit-b_512x512_40k_coco_stuff164k_100_16_st'): (40000, 100, 16, 200, 3, 50, 2, 'transductive'),
    COCO.format('fully_vit-b_512x512_80k_coco_stuff164k_100_16'): (80000, 100, 16, 100, 1.5, 1, 2, 'fully_supervised'),
}


# leaf -> CLIP, kind of GELU, patches a side, patches of a region
OTHER_CLIPS = {Path(f'other_clips/voc_{name}.py'): values for name, values in {
    'vit-b-32': (VIT_B_32, 'quick', 16, 4), 'vit-l-14': (VIT_L_14, 'quick', 36, 9),
    'open_clip_vit-b-16': (VIT_B_16, 'plain', 32, 8)}.items()}


def leaves_of(*folders: str) -> list[Path]:
    return [leaf for leaf in LEAVES if leaf.parent.name in folders]


def on_clip(sizes: dict[str, int]) -> Checkpoint:
    """A file whose image tower is CLIP-RC's on this CLIP."""
    weights = {f'backbone.{name.removeprefix("visual.")}': value
               for name, value in clip_by_shape(**sizes).weights.items() if name.startswith('visual.')}
    return Checkpoint(weights, {}, 'some.pth')


def build(config: Config) -> torch.nn.Module:
    """The config's model; its random initial values are not drawn, which would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ('uniform_', 'normal_', 'erfinv_', 'clamp_', 'mul_', 'add_'):
            patch.setattr(torch.Tensor, name, lambda tensor, *args, **options: tensor)
        return build_model(config)


@pytest.fixture(scope='module')
def models():
    """Builds each leaf once, and keeps it with parameters that take no memory."""
    built = {}

    def get(leaf):
        if leaf not in built:
            config = load_config(CONFIGS / leaf)
            if leaf in OTHER_CLIPS:  # sizes come from a checkpoint with the shapes of that CLIP
                with torch.device('meta'):
                    built[leaf] = config, build_model(config, on_clip(OTHER_CLIPS[leaf][0]))
            else:
                built[leaf] = config, build(config)
            for parameter in built[leaf][1].parameters():
                parameter.data = parameter.data.new_zeros(()).expand(parameter.shape)
        return built[leaf]

    return get


def assert_published_optimizer(config: Config, model: torch.nn.Module) -> None:
    """Every tensor that trains does so at 2e-4 and decays by 0.01, norms included."""
    groups = {id(parameter): group for group in build_optimizer(model, config.optimizer).param_groups
              for parameter in group['params']}
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any('norm' in name for name in trainable) and any('prompt' in name for name in trainable)
    for name, parameter in trainable.items():
        assert groups[id(parameter)]['lr'] == pytest.approx(2e-4), name
        assert groups[id(parameter)]['weight_decay'] == pytest.approx(0.01), name
        assert groups[id(parameter)]['betas'] == (0.9, 0.999) and groups[id(parameter)]['eps'] == 1e-8
    assert {name for name, _ in model.named_parameters()} - set(trainable) == {
        name for name, _ in model.named_parameters() if name.startswith('backbone.') and 'prompt' not in name}
    assert config.optimizer.type == 'AdamW' and not config.get('optimizer_config', {}).get('grad_clip')
    assert {**config.lr_config} == {'policy': 'poly', 'power': 0.9, 'min_lr': 1e-6, 'by_epoch': False,
                                    'warmup': 'linear', 'warmup_iters': 1500, 'warmup_ratio': 1e-6}


@pytest.mark.parametrize('leaf', LEAVES, ids=str)
def test_every_leaf_builds_and_says_how_to_run_it(models, leaf, tmp_path):
    text = (CONFIGS / leaf).read_text()
    assert len(text.splitlines()) <= 20
    head = [line for line in text.splitlines() if line.startswith('#')]
    assert any(f'configs/{leaf}' in line for line in head), 'the header has no command'
    config, model = models(leaf)
    assert as_data(config)
    copy = tmp_path / 'copy.py'
    copy.write_text(as_text(config))
    assert as_data(Config.fromfile(str(copy))) == as_data(config)
    assert model.num_classes == len(dataset_facts(config).split.names)
    if config.get('cross_dataset'):  # nothing is trained
        assert not dataset_facts(config).split.unseen and 'runner' not in config
    elif config.model.backbone.input_resolution > 500:  # the miniature's models have a schedule of their own
        assert_published_optimizer(config, model)


@pytest.mark.parametrize('leaf', leaves_of('voc12', 'coco'), ids=str)
def test_published_settings(models, leaf):
    config, model = models(leaf)
    iterations, prompts, regions, mask, dice, recovery, images, setting = PUBLISHED[str(leaf)]
    assert config.runner == {'type': 'IterBasedRunner', 'max_iters': iterations}
    assert config.checkpoint_config == {'by_epoch': False, 'interval': iterations // 10}
    assert (config.evaluation.interval, config.evaluation.metric) == (iterations // 10, 'mIoU')
    encoder, losses = model.backbone, model.decode_head.losses
    assert encoder.prompt_embeddings.shape == (1, prompts, 768)
    assert encoder.region_level_bridge.shape == (regions, 768)
    assert (losses.mask_weight, losses.dice_weight, losses.recovery_loss_weight) == (mask, dice, recovery)
    assert model.setting.value == setting
    assert (model.decode_head.recovery_decoder is None) == (recovery == 0)
    assert (config.data.samples_per_gpu, config.total_batch_size) == (images, 16)
    assert config.load_from is config.resume_from is None


@pytest.mark.parametrize('leaf', leaves_of('other_clips'), ids=str)
def test_other_clips(models, leaf):
    config, model = models(leaf)
    sizes, gelu, patches, of_region = OTHER_CLIPS[leaf]
    encoder, side = model.backbone, patches * sizes['patch']
    assert encoder.conv1.weight.shape == (sizes['width'], 3, sizes['patch'], sizes['patch'])
    blocks = encoder.transformer.resblocks
    assert (len(blocks), blocks[0].attn.heads) == (sizes['layers'], sizes['width'] // 64)
    assert all(isinstance(block.mlp.gelu, GELUS[gelu]) for block in blocks)
    assert encoder.positional_embedding.shape == (1 + patches**2, sizes['width'])
    assert patches // encoder.side == of_region and model.decode_head.q_proj.out_features == sizes['embed']
    assert model.setting.value == 'inductive' and config.runner.max_iters == 40000
    for part in ('val', 'test'):
        augmentation = config.data[part].pipeline[1]
        assert augmentation.img_scale == (4 * side, side) and augmentation.transforms[0].min_size == side
    steps = {step.type: step for step in config.data.train.pipeline}
    assert steps['RandomCrop'].crop_size == steps['Pad'].size == config.model.test_cfg.crop_size == (side, side)
    assert config.model.test_cfg.stride == (round(426 * side / 512),) * 2 and steps['Resize'].img_scale[1] == side


@pytest.mark.parametrize('leaf', leaves_of('voc12', 'coco', 'context'), ids=str)
def test_pipelines(models, leaf):
    config, _ = models(leaf)
    train = {step.type: {name: value for name, value in step.items() if name != 'type'}
             for step in config.data.train.pipeline}
    assert list(train)[2:8] == ['Resize', 'RandomCrop', 'RandomFlip', 'PhotoMetricDistortion', 'Normalize', 'Pad']
    assert train['LoadLabels'] == {}, 'the dataset knows what its labels are'
    assert train['Resize'] == {'img_scale': (2048, 512), 'ratio_range': (0.5, 2.0)}
    assert train['RandomCrop'] == {'crop_size': (512, 512), 'cat_max_ratio': 0.75}
    assert train['RandomFlip'] == {'prob': 0.5}
    assert train['Pad'] == {'size': (512, 512), 'pad_val': 0, 'seg_pad_val': 255}
    norm = {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375], 'to_rgb': True}
    assert train['Normalize'] == norm
    for part in ('val', 'test'):
        augmentation = config.data[part].pipeline[1]
        assert (augmentation.img_scale, augmentation.flip) == ((2048, 512), False)
        assert augmentation.transforms[0] == {'type': 'Resize', 'keep_ratio': True, 'min_size': 512}
        assert augmentation.transforms[2] == {'type': 'Normalize', **norm}
        assert config.data[part] == config.data.val


def test_which_images(models):
    config, _ = models(next(iter(PUBLISHED)))
    assert config.data.val.split == 'ImageSets/Segmentation/val.txt'
    assert list(zip(config.data.train.split, config.data.train.ann_dir)) == [
        ('ImageSets/Segmentation/train.txt', 'SegmentationClass'),
        ('ImageSets/Segmentation/aug.txt', 'SegmentationClassAug')]


@pytest.mark.parametrize('leaf', leaves_of('voc12', 'coco', 'cross_dataset'), ids=str)
def test_official_checkpoints_fit_their_configs(leaf):
    """By names and shapes, with values that take no room: strictly, the recorded dead tensors and text tower apart."""
    own, other = ('voc', 'coco') if leaf.parent.name == 'voc12' else ('coco', 'voc')
    with torch.device('meta'):
        model = build_model(Config.fromfile(str(CONFIGS / leaf)))
    with pytest.raises(ValueError, match='of another shape: backbone.prompt_embeddings'):
        model.load_state_dict(recorded_weights(other), assign=True)
    model.load_state_dict(recorded_weights(own), assign=True)
    assert not any(value.is_meta for value in model.state_dict().values())


def recorded_weights(name: str) -> dict[str, torch.Tensor]:
    shapes = json.loads((GOLDEN / f'{name}_checkpoint_keys.json').read_text())
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


# How the published configs are written (without effect there, as here: lists of layers, `num_classes`, `dec_layers`).
OFFICIAL = '''
_base_ = ['../_base_/models/clip_rc.py', '../_base_/datasets/{dataset}_512x512.py',
          '../_base_/default_runtime.py', '../_base_/schedules/schedule_{schedule}.py']
base_class = {base}
novel_class = {novel}
both_class = list(range({classes}))
pretrained = 'ViT-B-16.pt'
model = dict(
    type='CLIPRC', pretrained=pretrained, pretrained_text=pretrained,
    backbone=dict(type='CLIPVisionTransformerWithRLB', patch_size=16, width=768, output_dim=512, get_embeddings=True,
                  drop_path_rate=0.1, layers=12, input_resolution=512, out_indices=[11], num_tokens={prompts},
                  prompt_dim=768, total_d_layer=11, region_level_bridge_size=16, style='pytorch'),
    text_encoder=dict(type='CLIPTextEncoder', context_length=77, embed_dim=512, transformer_width=512,
                      transformer_heads=8, transformer_layers=12, style='pytorch'),
    decode_head=dict(type='ATMSingleHeadSeg', img_size=512, in_channels=512, seen_idx=base_class, all_idx=both_class,
                     channels=512, num_layers=3, num_classes=len(base_class), num_heads=8, use_proj=False,
                     use_stages=1, embed_dims=512,
                     loss_decode=dict(type='SegLoss', dec_layers=3, mask_weight={mask}, dice_weight={dice},
                                      loss_weight=1.0, recovery_loss_weight={recovery})),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(426, 426)),
    base_class=base_class, novel_class=novel_class, both_class=both_class, {extra}
    ft_backbone=False, exclude_key='prompt',
    load_text_embedding='configs/_base_/datasets/text_embedding/{embeddings}.npy')
lr_config = dict(policy='poly', power=0.9, min_lr=1e-6, by_epoch=False, warmup='linear', warmup_iters=1500,
                 warmup_ratio=1e-6)
optimizer = dict(type='AdamW', lr=0.00002, weight_decay=0.01, paramwise_cfg=dict(custom_keys={{
    'backbone': dict(lr_mult=10.0), 'text_encoder': dict(lr_mult=0.0), 'norm': dict(decay_mult=0.),
    'ln': dict(decay_mult=0.), 'head': dict(lr_mult=10.)}}))
data = dict(samples_per_gpu={images}, workers_per_gpu=8)
'''
# protocols in print: dataset type, number of classes, indices of the unseen ones
SPLITS = {
    'voc12': ('PascalVOC20', 20, [15, 16, 17, 18, 19]),
    'coco': ('COCOStuff164k', 171, [19, 23, 28, 29, 36, 51, 76, 88, 94, 112, 133, 136, 137, 157, 160]),
    'context60': ('PascalContext60', 60, [1, 7, 8, 15, 20, 25, 32, 34, 49, 55]),
    'context59': ('PascalContext59', 59, [0, 6, 7, 14, 19, 24, 31, 33, 48, 54]),
    'context59misindexed': ('PascalContext59', 59, [0, 2, 3, 7, 9, 13, 17, 19, 31, 37]),
}


@pytest.mark.parametrize('leaf', leaves_of('voc12', 'coco'), ids=str)
def test_an_official_leaf_works_unchanged(models, tmp_path, leaf):
    iterations, prompts, _, mask, dice, recovery, images, setting = PUBLISHED[str(leaf)]
    _, classes, novel = SPLITS[leaf.parent.name]
    novel = [] if setting == 'fully_supervised' else novel
    dataset, embeddings = {'voc12': ('voc12_20_aug', 'voc12_single'), 'coco': ('cocostuff', 'coco_multi')}[
        leaf.parent.name]
    shutil.copytree(CONFIGS, tmp_path / 'configs')
    path = tmp_path / 'configs' / leaf
    path.write_text(OFFICIAL.format(
        dataset=dataset, schedule=f'{iterations // 1000}k', classes=classes, novel=novel, prompts=prompts, mask=mask,
        base=[index for index in range(classes) if index not in novel], dice=dice, recovery=recovery, images=images,
        embeddings=embeddings, extra='self_training=True,' if setting == 'transductive' else ''))
    config = Config.fromfile(str(path))
    check_names(config, path)
    official, (our_config, ours) = build(config), models(leaf)
    assert {name: tensor.shape for name, tensor in official.state_dict().items()} == {
        name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert official.setting is ours.setting
    for name in ('seen', 'unseen', 'penalty'):
        assert torch.equal(getattr(official.decode_head.class_head, name), getattr(ours.decode_head.class_head, name))
    for name in ('mask_weight', 'dice_weight', 'recovery_loss_weight'):
        assert getattr(official.decode_head.losses, name) == getattr(ours.decode_head.losses, name)
    assert_published_optimizer(config, official)
    for name in ('runner', 'checkpoint_config', 'evaluation', 'lr_config'):
        assert config[name] == our_config[name]


# ---- the splits

@pytest.mark.parametrize('leaf', leaves_of('voc12', 'coco', 'context'), ids=str)
def test_splits_by_name_are_the_published_indices(models, leaf):
    config, _ = models(leaf)
    name, classes, unseen = SPLITS[config.protocol]
    for part in ('train', 'val', 'test'):
        split = dataset_facts(Config({'data': {'test': config.data[part]}})).split
        assert config.data[part].type == name and len(split.names) == classes and split.unseen == unseen


@pytest.mark.parametrize('leaf', leaves_of('context'), ids=str)
def test_context_leaves(models, leaf):
    """Lengths, crop and mask weights as other methods print them; what is ours is said to be."""
    config, model = models(leaf)
    marks = {'_fully_': 'fully_supervised', '_st.py': 'transductive'}
    setting = next((setting for mark, setting in marks.items() if mark in leaf.name), 'inductive')
    assert (config.runner.max_iters, model.setting.value) == (20000 if setting == 'transductive' else 40000, setting)
    assert f'_{config.protocol}_10_16' in leaf.stem
    assert (model.decode_head.losses.mask_weight, model.decode_head.losses.dice_weight) == (100, 1)
    assert ' ours' in (CONFIGS / leaf).read_text()


def test_official_names_of_types():
    assert DATASETS.get('ZeroCOCOStuffDataset') is DATASETS.get('COCOStuff164k')
    assert DATASETS.get('ZeroPascalVOCDataset20') is DATASETS.get('PascalVOC20')
