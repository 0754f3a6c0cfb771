"""Labels are right for any number of classes, any value of no class, and mean the same in training and in scores."""
import logging
import pickle
import shutil
import struct
import zlib

import numpy as np
import pytest
from mmcv import Config
from mmseg.datasets import build_dataset
from PIL import Image

from datasets.loading import MaskIds, load_mask
from datasets.metrics import areas
from datasets.zero_shot import missing_classes, warn_of_missing_classes
from models.errors import UserError
from tests.conftest import REPOSITORY
from tools.engine.data import evaluation_dataset, training_dataset

EXAMPLE = REPOSITORY / 'tests/data/custom'
COLOURS = ['red', 'yellow', 'green', 'blue', 'purple']
TRAIN = [dict(type='LoadImage'), dict(type='LoadLabels')]


def id_masks(root, values=lambda labels: labels, suffix='.png'):
    """The example's data with masks of ids; `values` makes them of class indices, 255 being no class."""
    shutil.copytree(EXAMPLE, root)
    palette = Config.fromfile(str(REPOSITORY / 'configs/custom/example.py')).dataset.palette
    for path in root.rglob('masks/*.png'):
        with Image.open(path) as image:
            colours = np.asarray(image)
        labels = np.full(colours.shape[:2], 255, np.uint8)
        for index, colour in enumerate(palette):
            labels[(colours == colour).all(axis=2)] = index
        path.unlink()
        Image.fromarray(values(labels)).save(path.with_suffix(suffix))
    return root


def settings(root, part='val', **changes):
    found = Config.fromfile(str(REPOSITORY / 'configs/custom/example.py')).data[part]
    for name in ('colour_masks', 'palette', 'ignored_colours'):
        found.pop(name)
    found.update(data_root=str(root), **changes)
    return found


def dataset_of(root, part='val', **changes):
    return build_dataset(settings(root, part, **changes), {'test_mode': part != 'train'})


def plain(root):
    return id_masks(root / 'plain')


@pytest.fixture
def expected(tmp_path):
    """Class indices of the first mask, 255 for no class."""
    return dataset_of(plain(tmp_path)).true_labels(0)


# ---- more than 255 classes

MANY = [f'thing number {index}' for index in range(256)] + COLOURS


def sixteen_bits(labels):
    return np.where(labels == 255, 65535, labels + np.uint16(256)).astype(np.uint16)


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_more_than_255_classes(tmp_path, expected, suffix):
    root = id_masks(tmp_path / 'many', sixteen_bits, suffix)
    dataset = dataset_of(root, classes=MANY, seg_map_suffix=suffix)
    truth = dataset.true_labels(0)
    assert truth.dtype == np.uint16 and dataset.ignore_index == 65535
    assert np.array_equal(truth, sixteen_bits(expected))
    perfect = [np.where(dataset.true_labels(index) == 65535, 256, dataset.true_labels(index)) for index in range(6)]
    scores = dataset.evaluate(perfect)
    assert scores['mIoU'] == scores['IoU.red'] == 1 and np.isnan(scores['IoU.thing number 0'])
    file, = dataset.format_results(perfect[:1], str(tmp_path / 'out'), indices=[0])
    with Image.open(file) as image:
        assert np.array_equal(np.asarray(image), perfect[0])


def test_training_pads_with_no_class_of_many(tmp_path):
    root = id_masks(tmp_path / 'many', sixteen_bits)
    pipeline = [*TRAIN, dict(type='RandomCrop', crop_size=(100, 100), cat_max_ratio=0.75),
                dict(type='Pad', size=(160, 160), pad_val=0, seg_pad_val=255), dict(type='DefaultFormatBundle')]
    labels = dataset_of(root, 'train', classes=MANY, pipeline=pipeline)[0]['gt_semantic_seg'].data
    assert set(labels.unique().tolist()) <= {*range(256, 261), 65535} and (labels[0, 100:] == 65535).all()


@pytest.mark.parametrize(('classes', 'reduce', 'kind', 'ignore'), [
    (255, False, np.uint8, 255), (256, False, np.uint16, 65535), (254, True, np.uint8, 255),
    (255, True, np.uint8, 255)])
def test_the_number_type_at_its_limits(tmp_path, classes, reduce, kind, ignore):
    masks = MaskIds([f'class {index}' for index in range(classes)], reduce_zero_label=reduce)
    ids = np.array([[*masks.ids, masks.void]], np.uint16)
    labels = masks.labels(ids, 'mask.png')
    assert labels.dtype == kind and labels.tolist() == [[*range(classes), ignore]]
    assert masks.void == (65535 if masks.ids.stop > 255 else 255)


def test_masks_of_8_bits_for_more_than_255_classes(tmp_path):
    dataset = dataset_of(plain(tmp_path), classes=[*COLOURS, *MANY[:256]])
    with pytest.raises(UserError, match=r'00\.png: 255 in a mask of 8 bits .* 261 classes or none.*65535'):
        dataset.true_labels(0)


def test_too_many_classes():
    with pytest.raises(UserError, match='65,536 classes: 65,535 at most'):
        MaskIds([str(index) for index in range(65_536)])


def test_floating_point_masks(tmp_path):
    root = plain(tmp_path)
    Image.fromarray(np.zeros((128, 128), np.float32)).save(root / 'val/masks/00.tif')
    with pytest.raises(UserError, match='floating-point values: save it with whole ids'):
        MaskIds(COLOURS).labels(np.zeros((2, 2), np.float32), 'mask.tif')


@pytest.mark.parametrize('value', [-1, 70_000])
def test_ids_of_32_bits_that_16_do_not_hold(value):
    with pytest.raises(UserError, match=rf'label ids \[{value}\] are out of range'):
        MaskIds(COLOURS).labels(np.array([[0, value]], np.int32), 'mask.png')


def test_counts_of_many_pixels_are_exact():
    """float32 stops counting at 2^24."""
    truth = np.zeros((4097, 4097), np.uint8)
    assert areas(truth, truth, 2)[0].tolist() == [4097**2, 0]


def test_test_py_with_more_than_255_classes(run, tmp_path):
    """From the command line: label maps, images of them, PNG files and scores."""
    root = id_masks(tmp_path / 'many', sixteen_bits)
    config = tmp_path / 'many.py'
    config.write_text(f"""_base_ = '{REPOSITORY}/configs/custom/example.py'
cross_dataset = True
many = dict(data_root={str(root)!r}, classes={MANY!r}, colour_masks=False, palette=None, ignored_colours=[])
data = dict(workers_per_gpu=0, train=many, val=many, test=many)
model = dict(pretrained_text='{REPOSITORY}/tools/miniature/clip.pt')
""")
    model = REPOSITORY / 'tools/miniature/model.safetensors'
    done = run('test.py', config, model, '--eval', 'mIoU', '--out', tmp_path / 'maps.pkl', '--show-dir',
               tmp_path / 'shown', '--work-dir', tmp_path)
    maps = pickle.loads((tmp_path / 'maps.pkl').read_bytes())
    assert maps[0].dtype == np.uint16 and all(labels.max() >= 256 for labels in maps)
    assert 'no mask holds a pixel of: thing number 0' in done.stderr
    row, = [line for line in done.stdout.splitlines() + done.stderr.splitlines() if '| thing number 0 ' in line]
    assert '100.00' not in row
    assert len(list((tmp_path / 'shown').glob('*.png'))) == 6
    run('test.py', config, model, '--format-only', '--work-dir', tmp_path)
    with Image.open(tmp_path / 'format_results/00.png') as image:
        assert np.array_equal(np.asarray(image), maps[0])


# ---- the value of no class

def void_is(value):
    return lambda labels: np.where(labels == 255, np.uint8(value), labels)


def test_another_value_of_no_class(tmp_path, expected):
    dataset = dataset_of(id_masks(tmp_path / 'void', void_is(254)), ignore_index=254)
    assert np.array_equal(dataset.true_labels(0), expected) and dataset.ignore_index == 255
    pipeline = [*TRAIN, dict(type='RandomCrop', crop_size=(64, 64), ignore_index=254),
                dict(type='Pad', size=(80, 80), seg_pad_val=254)]
    labels = dataset_of(tmp_path / 'void', 'train', ignore_index=254, pipeline=pipeline)[0]['gt_semantic_seg']
    assert set(np.unique(labels)) <= {*range(5), 255}


@pytest.mark.parametrize(('changes', 'words'), [
    ({'ignore_index': 0}, "ignore_index=0 is the id of class 'red'.*reduce_zero_label=True"),
    ({'ignore_index': 4}, "ignore_index=4 is the id of class 'purple'"),
    ({'ignore_index': 0, 'reduce_zero_label': True}, 'ignore_index=0 is no class already'),
    ({'ignore_index': -1}, 'ignore_index=-1: the id of pixels of no class is needed, from 0 to 65535'),
    ({'ignore_index': '255'}, "ignore_index='255'"),
    ({'gt_seg_map_loader_cfg': {}}, 'no argument gt_seg_map_loader_cfg'),
])
def test_values_of_no_class_that_cannot_be(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        dataset_of(plain(tmp_path), **changes)


def test_masks_with_another_value_of_no_class_than_the_config(tmp_path):
    dataset = dataset_of(plain(tmp_path), ignore_index=254)
    with pytest.raises(UserError, match=r'label ids \[255\] are out of range: .* 254 is no class \(ignore_index\)'):
        dataset.true_labels(0)


@pytest.mark.parametrize('step', [dict(type='Pad', size=(80, 80), seg_pad_val=0),
                                  dict(type='RandomCrop', crop_size=(80, 80), ignore_index=3)])
def test_steps_that_take_a_class_for_none(tmp_path, step):
    with pytest.raises(UserError, match=rf'{step["type"]} of the pipeline has .*=\d, .* ZeroShotDataset that is 255'):
        dataset_of(plain(tmp_path), 'train', pipeline=[*TRAIN, step])


# ---- one source of what ids mean

@pytest.mark.parametrize('loading', [dict(type='LoadLabels'), dict(type='LoadAnnotations')])
@pytest.mark.parametrize('reduce', [False, True])
def test_training_sees_the_labels_that_are_scored(tmp_path, loading, reduce):
    root = id_masks(tmp_path / 'ids', lambda labels: labels + np.uint8(reduce) if reduce else labels)
    changes = {'reduce_zero_label': reduce, 'pipeline': [dict(type='LoadImageFromFile'), loading]}
    for step in (loading, {**loading, 'reduce_zero_label': reduce}):
        train = dataset_of(root, 'train', **{**changes, 'pipeline': [dict(type='LoadImageFromFile'), step]})
        assert [type(step).__name__ for step in train.pipeline.transforms] == ['LoadImage', 'LoadLabels']
        assert np.array_equal(train[0]['gt_semantic_seg'], train.true_labels(0))
    (root / 'train/masks/00.png').unlink()
    Image.fromarray(np.full((128, 128), 77, np.uint8)).save(root / 'train/masks/00.png')
    with pytest.raises(UserError, match=r'00\.png: label ids \[77\]'):
        train[0]


@pytest.mark.parametrize('kind', ['LoadLabels', 'LoadAnnotations'])
@pytest.mark.parametrize('reduce', [False, True])
def test_pipeline_and_dataset_that_disagree(tmp_path, kind, reduce):
    pipeline = [TRAIN[0], dict(type=kind, reduce_zero_label=not reduce)]
    with pytest.raises(UserError, match=f'{kind} of the pipeline has reduce_zero_label={not reduce}, its dataset '
                                        f'ZeroShotDataset has {reduce}'):
        dataset_of(plain(tmp_path), 'train', reduce_zero_label=reduce, pipeline=pipeline)


def test_other_ways_to_read_masks_are_refused(tmp_path):
    with pytest.raises(UserError, match="LoadAnnotations of the pipeline: imdecode_backend='cv2' is not supported"):
        dataset_of(plain(tmp_path), 'train', pipeline=[TRAIN[0], dict(type='LoadAnnotations', imdecode_backend='cv2')])


# ---- which files are data

def test_hidden_files_and_folders_are_no_data(tmp_path):
    root = plain(tmp_path)
    for folder in ('images', 'masks'):
        hidden = root / 'val' / folder / '.ipynb_checkpoints'
        hidden.mkdir()
        for file in sorted((root / 'val' / folder).glob('00.*')):
            shutil.copy(file, hidden / f'00-checkpoint{file.suffix}')
            (file.parent / f'._{file.name}').write_bytes(b'of a Macintosh')
    assert [sample['filename'] for sample in dataset_of(root).img_infos] == [f'{index:02d}.jpg' for index in range(6)]


def test_an_image_that_a_split_names_twice_counts_once(tmp_path, caplog):
    root = plain(tmp_path)
    (root / 'split.txt').write_text('00\n01\n00\n\n02\n01\n')
    logging.getLogger('mmseg').propagate = True
    with caplog.at_level(logging.WARNING):
        dataset = dataset_of(root, split='split.txt')
    assert [sample['filename'] for sample in dataset.img_infos] == ['00.jpg', '01.jpg', '02.jpg']
    assert 'names 2 images more than once, which count once: 00, 01' in caplog.text


@pytest.mark.parametrize(('image', 'mask'), [('.jpg', '.png'), ('.png', '_mask.png'), ('_image.png', '.png')])
def test_images_and_masks_in_one_folder(tmp_path, expected, image, mask):
    root = tmp_path / 'plain'
    (root / 'together').mkdir()
    for file in sorted((root / 'val/images').glob('*.jpg')):
        with Image.open(file) as opened:
            opened.save(root / f'together/{file.stem}{image}')
        shutil.copy(root / f'val/masks/{file.stem}.png', root / f'together/{file.stem}{mask}')
    dataset = dataset_of(root, img_dir='together', ann_dir='together', img_suffix=image, seg_map_suffix=mask)
    assert len(dataset) == 6 and np.array_equal(dataset.true_labels(0), expected)


def test_images_and_masks_of_one_name(tmp_path):
    with pytest.raises(UserError, match=r'folder of both images and masks, and so are their endings \(\.png\)'):
        dataset_of(plain(tmp_path), img_dir='val/masks', img_suffix='.png')


def test_masks_in_a_folder_of_that_of_the_images(tmp_path, expected):
    root = tmp_path / 'plain'
    shutil.move(root / 'val/masks', root / 'val/images/masks')
    dataset = dataset_of(root, ann_dir='val/images/masks')
    assert len(dataset) == 6 and np.array_equal(dataset.true_labels(0), expected)


# ---- classes without a pixel

def binary(root):
    return id_masks(root / 'binary', lambda labels: np.where(labels == 255, 0, 255).astype(np.uint8))


def test_a_class_that_no_mask_contains(tmp_path, caplog):
    train = dataset_of(binary(tmp_path), 'train', classes=['background', 'blob'], unseen=[])
    assert missing_classes([train], [0, 1]) == ([1], 12)
    logging.getLogger('mmseg').propagate = True
    with caplog.at_level(logging.WARNING):
        warn_of_missing_classes([train], [0, 1], logging.getLogger('mmseg'))
    assert 'none of the 12 masks holds a pixel of: blob. 255 is no class in them' in caplog.text
    caplog.clear()
    val = dataset_of(tmp_path / 'binary', classes=['background', 'blob'], unseen=[])
    with caplog.at_level(logging.WARNING):
        val.evaluate([np.zeros((128, 128), np.uint8)] * 6, logger='mmseg')
    assert 'no mask holds a pixel of: blob' in caplog.text


def test_masks_are_looked_at_no_longer_than_a_class_is_missing(tmp_path):
    train = dataset_of(plain(tmp_path), 'train')
    missing, looked_at = missing_classes([train], range(5))
    assert not missing and looked_at < 12
    assert missing_classes([train], [], most=5) == ([], 0)
    assert missing_classes([dataset_of(binary(tmp_path), 'train')], range(5), most=5) == ([1, 2, 3, 4], 5)


# ---- several datasets

def config_of(**data):
    return Config({'data': data})


def test_datasets_of_a_list_are_scored_one_by_one(tmp_path):
    root = plain(tmp_path)
    first, second = settings(root), settings(root, img_dir='train/images', ann_dir='train/masks')
    both = evaluation_dataset(config_of(test=[first, second]), 'test', scored=True)
    assert both.names == ['val_images', 'train_images'] and len(both) == 18
    label_maps = [np.zeros((128, 128), np.uint8)] * 18
    parts = [areas for index, labels in enumerate(label_maps) for areas in both.pre_eval(labels, index)]
    scores = both.evaluate(parts)
    each = [dataset_of(root).evaluate(label_maps[:6]), evaluation_dataset(
        config_of(test=second), 'test', scored=True).evaluate(label_maps[6:])]
    for name, alone in zip(both.names, each, strict=True):
        for key, value in alone.items():
            assert scores[f'{name}.{key}'] == pytest.approx(value, nan_ok=True)
    assert scores['hIoU'] == pytest.approx(np.mean([alone['hIoU'] for alone in each]), abs=1e-4)
    assert both.locate(6)[::2] == ('train_images', 0)
    files = both.format_results(label_maps, str(tmp_path / 'out'))
    assert len({*files}) == 18


@pytest.mark.parametrize('way', ['lists', 'ConcatDataset'])
def test_several_folders_as_one_dataset(tmp_path, way):
    root = plain(tmp_path)
    folders = [{'img_dir': f'{part}/images', 'ann_dir': f'{part}/masks'} for part in ('val', 'train')]
    data = settings(root, **{key: [folder[key] for folder in folders] for key in folders[0]}) if way == 'lists' else \
        {'type': 'ConcatDataset', 'datasets': [settings(root, **folder) for folder in folders]}
    label_maps = [np.zeros((128, 128), np.uint8)] * 18
    apart, joint = (evaluation_dataset(config_of(test={**data, **pooled}), 'test', scored=True)
                    for pooled in ({}, {'separate_eval': False}))
    parts = [areas for index, labels in enumerate(label_maps) for areas in joint.pre_eval(labels, index)]
    assert joint.evaluate(parts)['IoU.red'] == pytest.approx(
        sum(int(area[0][0]) for area in parts) / sum(int(area[1][0]) for area in parts), abs=1e-4)
    assert 'val_images.IoU.red' in apart.evaluate(parts)


@pytest.mark.parametrize(('data', 'words'), [
    (lambda one: one | {'ann_dir': None}, r'data\.val: scoring needs masks.*ann_dir=FOLDER'),
    (lambda one: {'type': 'RepeatDataset', 'times': 2, 'dataset': one}, 'an image is scored once'),
    (lambda one: [one, one | {'classes': [*COLOURS[:4], 'pink']}], 'other classes'),
    (lambda one: one | {'ann_dir': ['val/masks', 'train/masks']}, 'ann_dir=.*: where folders are lists'),
])
def test_data_that_cannot_be_scored(tmp_path, data, words):
    with pytest.raises(UserError, match=words):
        evaluation_dataset(config_of(val=data(dict(settings(plain(tmp_path))))), 'val', scored=True)


@pytest.mark.parametrize('wrapped', [True, False])
def test_test_pipelines_without_a_flip(tmp_path, wrapped):
    """Whether in `MultiScaleFlipAug` or not: a list of one view."""
    norm = dict(mean=[0., 0., 0.], std=[1., 1., 1.], to_rgb=True)
    steps = [dict(type='Resize', img_scale=(64, 64)), dict(type='Normalize', **norm),
             dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])]
    pipeline = [TRAIN[0], *([dict(type='MultiScaleFlipAug', img_scale=(64, 64), transforms=steps[:1] + steps[1:])]
                            if wrapped else steps)]
    sample = dataset_of(plain(tmp_path), pipeline=pipeline)[0]
    assert sample['img'][0].shape == (3, 64, 64) and len(sample['img']) == len(sample['img_metas']) == 1


# ---- what newcomers met

@pytest.mark.parametrize('bits', [2, 4])
def test_greys_of_few_bits_are_the_ids_of_the_file(tmp_path, bits):
    """Pillow spreads them to 255."""
    ids = np.arange(2**bits, dtype=np.uint8).reshape(2, -1)
    file = tmp_path / 'mask.png'
    rows = b''.join(b'\0' + np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:].ravel()).tobytes()
                    for row in ids)
    head = struct.pack('>2I5B', ids.shape[1], 2, bits, 0, 0, 0, 0)
    file.write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        for kind, data in ((b'IHDR', head), (b'IDAT', zlib.compress(rows)), (b'IEND', b''))))
    masks = MaskIds([str(index) for index in range(2**bits)])
    assert np.array_equal(load_mask(str(file), masks), ids)


def test_greys_of_four_bits_in_a_tiff(tmp_path):
    fields = [(256, 4), (257, 1), (258, 4), (259, 1), (262, 1), (273, 8 + 2 + 12 * 8 + 4), (278, 1), (279, 2)]
    (tmp_path / 'mask.tif').write_bytes(
        b'II*\0' + struct.pack('<IH', 8, len(fields)) + b''.join(struct.pack('<HHII', tag, 4, 1, value)
                                                                for tag, value in fields) + bytes(4) + b'\x01\x3f')
    masks = MaskIds([str(index) for index in range(16)])
    assert load_mask(str(tmp_path / 'mask.tif'), masks).tolist() == [[0, 1, 3, 15]]


def test_a_palette_of_greys_that_are_not_the_ids(tmp_path):
    ids = np.array([[0, 1, 3, 255]], np.uint8)
    Image.fromarray(ids).save(tmp_path / 'mask.gif')
    with pytest.raises(UserError, match=r'mask\.gif: the mask has a palette of greys.*\[0, 1, 2, 3\] are shown as '
                                        r'\[0, 1, 3, 255\]'):
        load_mask(str(tmp_path / 'mask.gif'), MaskIds(COLOURS))
    image = Image.fromarray(np.array([[0, 7]], np.uint8))  # VOC's palette, of which these two are grey
    image.putpalette([0, 0, 0, 128, 0, 0, *[0] * 15, 128, 128, 128])
    image.save(tmp_path / 'voc.png')
    assert load_mask(str(tmp_path / 'voc.png'), MaskIds([str(index) for index in range(8)])).tolist() == [[0, 7]]
    image = Image.fromarray(ids)
    image.putpalette([value for grey in range(256) for value in (grey, grey, grey)])
    image.save(tmp_path / 'mask.png')
    assert load_mask(str(tmp_path / 'mask.png'), MaskIds(COLOURS)).tolist() == ids.tolist()


def test_results_of_nested_folders_do_not_meet(tmp_path):
    root = plain(tmp_path)
    for kind, ending in (('images', '.jpg'), ('masks', '.png')):
        (root / 'val' / kind / 'a').mkdir()
        shutil.copy(root / 'val' / kind / f'00{ending}', root / 'val' / kind / 'a' / f'b{ending}')
        shutil.copy(root / 'val' / kind / f'01{ending}', root / 'val' / kind / f'a_b{ending}')
    dataset = dataset_of(root)
    assert len({*dataset.format_results([np.zeros((2, 2), np.uint8)] * 8, str(tmp_path / 'out'))}) == 8


def test_a_test_pipeline_may_load_masks(tmp_path):
    pipeline = [*TRAIN, dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])]
    assert dataset_of(plain(tmp_path), pipeline=pipeline)[0]['img'][0].shape == (3, 128, 128)


def test_a_split_of_windows(tmp_path):
    root = plain(tmp_path)
    for kind, ending in (('images', '.jpg'), ('masks', '.png')):
        (root / 'val' / kind / 'a').mkdir()
        shutil.copy(root / 'val' / kind / f'00{ending}', root / 'val' / kind / 'a' / f'b{ending}')
    (root / 'split.txt').write_bytes('00\r\na\\b\r\n\x1a'.encode('utf-16'))
    assert [sample['filename'] for sample in dataset_of(root, split='split.txt').img_infos] == ['00.jpg', 'a/b.jpg']


@pytest.mark.parametrize(('changes', 'words'), [
    ({'reduce_zero_label': 'False'}, "reduce_zero_label='False' is neither True nor False"),
    ({'palette': [[1., .2, .3]] * 5}, 'is no colour'), ({'palette': [[300, 0, 3]] * 5}, 'is no colour'),
    ({'classes': ['red', 'yellow', 'green', 'blue', 'Blue ']}, 'class names occur twice: blue'),
])
def test_arguments_that_cannot_be(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        dataset_of(plain(tmp_path), **changes)


@pytest.mark.parametrize('times', [0, 1.5, None])
def test_repeats_that_cannot_be(tmp_path, times):
    with pytest.raises(UserError, match=rf'data\.train\.times={times}: a positive integer'):
        training_dataset(config_of(train={'type': 'RepeatDataset', 'times': times, 'dataset': settings(
            plain(tmp_path), 'train')}))
