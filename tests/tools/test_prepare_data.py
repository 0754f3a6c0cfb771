"""Each benchmark, from small invented archives on a local server to its folders, and what can go wrong on the way."""
import errno
import hashlib
import io
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests import data_archives
from tests.web_server import serving
from tools import prepare_data
from tools.engine import downloads, errors, files
from tools.preparation import context, parallel, sources, verify

MAKERS = {'voc12': data_archives.voc12, 'coco_stuff164k': data_archives.coco_stuff164k,
          'pascal_context': lambda: data_archives.pascal_context(list(context.CATEGORIES)),
          'ade20k': data_archives.ade20k}
REAL = dict(sources.BENCHMARKS)
EVERY = pytest.mark.parametrize('name', MAKERS)


class Case:
    """A benchmark whose archives are small and on a local server."""

    def __init__(self, name, server, root, monkeypatch):
        self.name, self.server, self.root, self.monkeypatch = name, server, root, monkeypatch
        self.made = MAKERS[name]()
        self.archives = list(self.made.files)
        for archive in self.archives:
            server.files[f'/{archive}'] = self.made.archive(archive)
        self.publish()

    def publish(self):
        """Puts the server's archives in the place of the real ones, with the same facts known of them."""
        archives = []
        for archive in REAL[self.name].archives:
            content = self.server.files[f'/{archive.name}']
            published = {what: (len(content) if what == 'size' else hashlib.new(what, content).hexdigest(), source)
                         for what, (_, source) in archive.published.items()}
            archives.append(archive._replace(urls=(f'{self.server.url}/{archive.name}',), published=published))
        splits = [split._replace(count=self.made.counts[split.name]) for split in REAL[self.name].splits]
        self.monkeypatch.setitem(sources.BENCHMARKS, self.name, REAL[self.name]._replace(
            archives=tuple(archives), splits=tuple(splits)))

    def forget(self, archive):
        """Nothing is published of an archive."""
        benchmark = sources.BENCHMARKS[self.name]
        self.monkeypatch.setitem(sources.BENCHMARKS, self.name, benchmark._replace(archives=tuple(
            each._replace(published={}) if each.name == archive else each for each in benchmark.archives)))

    def change(self, archive, name, content):
        """Another content of a file in an archive, which is published so."""
        self.made.files[archive][name] = content
        self.server.files[f'/{archive}'] = self.made.archive(archive)
        self.publish()

    def put(self, archives=None):
        """Puts archives where a user would: all, without a list of them."""
        (self.root / 'downloads').mkdir(parents=True, exist_ok=True)
        for archive in self.archives if archives is None else archives:
            (self.root / 'downloads' / archive).write_bytes(self.server.files[f'/{archive}'])

    def run(self, *arguments):
        """The exit status or, of an error, the message."""
        self.monkeypatch.setattr(sys, 'argv', ['prepare_data.py', self.name, '--root', str(self.root), '--workers', '1',
                                               *arguments])
        try:
            errors.run(prepare_data.main)
        except SystemExit as error:
            return error.code
        return 0

    def fails(self, *parts, arguments=()):
        """The run ends with one line that has all of `parts` in it."""
        message = self.run(*arguments)
        assert isinstance(message, str) and message.startswith('error: ') and '\n' not in message, message
        for part in parts:
            assert str(part) in message, message

    def tree(self):
        """Path -> time of the last change and content, of all files but the archives."""
        return {str(path.relative_to(self.root)): (path.stat().st_mtime_ns, path.read_bytes())
                for path in sorted(self.root.rglob('*')) if path.is_file() and 'downloads' not in path.parts}


@pytest.fixture
def server():
    with serving({}) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(downloads, 'RETRY_WAITS', (0, 0))
    monkeypatch.setenv('no_proxy', '*')


@pytest.fixture
def case(server, tmp_path, monkeypatch):
    return lambda name: Case(name, server, tmp_path / 'data', monkeypatch)


def labels_of(path):
    with Image.open(path) as image:
        assert image.mode in ('L', 'P')
        return np.asarray(image)


# ---- the table

def test_what_is_published_has_a_source_and_the_form_of_such_a_thing():
    for archive in {archive.name: archive for each in REAL.values() for archive in each.archives}.values():
        for what, (value, source) in archive.published.items():
            assert source.startswith((sources.TFDS, sources.TORCHVISION, sources.GLUONCV)), archive.name
            if what == 'size':
                assert isinstance(value, int) and value > 1e8
            else:
                assert len(bytes.fromhex(value)) == hashlib.new(what).digest_size
        for url in archive.urls:
            assert url.startswith('http') and url.endswith(f'/{archive.name}')


@EVERY
def test_every_folder_of_a_split_comes_from_an_archive(name):
    targets = set().union(*(archive.targets for archive in REAL[name].archives))
    assert {folder for split in REAL[name].splits for folder in (split.images, split.masks)} <= targets


def test_the_splits_fit_those_of_the_configs():
    counts = {name: {split.name: split.count for split in each.splits} for name, each in REAL.items()}
    assert counts['voc12']['train'] + counts['voc12']['aug'] == 10_582
    assert sum(counts['coco_stuff164k'].values()) == 123_287


# ---- from archives to folders

@EVERY
def test_download_unpack_convert_verify(case, name, capsys):
    case = case(name)
    assert case.run('--download', '--workers', '2') == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f'{name} is complete.' and 'Traceback' not in printed.err
    for path, content in case.made.images.items():
        assert (case.root / path).read_bytes() == content
    for path, labels in case.made.masks.items():
        np.testing.assert_array_equal(labels_of(case.root / path), labels, err_msg=path)
    for path, names in case.made.lists.items():
        assert (case.root / path).read_text().split() == names
    tree = case.tree()
    assert set(tree) == {*case.made.images, *case.made.masks, *case.made.lists}, 'and nothing else'
    assert {path.name for path in (case.root / 'downloads').iterdir()} == {'.lock', *case.archives}

    requests = len(case.server.ranges)
    assert case.run('--download') == 0 and len(case.server.ranges) == requests
    shutil.rmtree(case.root / 'downloads')  # archives are not needed any more
    assert case.run() == 0
    assert case.run('--verify') == 0
    assert case.tree() == tree and not (case.root / 'downloads').exists()


@EVERY
def test_archives_of_the_users_own(case, name, capsys):
    case = case(name)
    case.fails(case.root / 'downloads', *case.archives, f'{case.server.url}/{case.archives[0]}', '--download')
    case.put(case.archives[:-1])
    case.fails(case.archives[-1], '--download')
    case.put()
    assert case.run() == 0 and case.server.ranges == []
    err = capsys.readouterr().err
    assert ('no size or checksum is published' in err) == (name == 'coco_stuff164k')


def test_only_the_archives_of_missing_files_are_needed(case):
    case = case('voc12')
    case.put()
    assert case.run() == 0
    tree = case.tree()
    shutil.rmtree(case.root / 'downloads')
    lost = next(path for path in case.made.masks if 'Aug/2008' in path)
    (case.root / lost).unlink()
    case.fails('benchmark.tgz')
    assert not (case.root / 'downloads').exists(), 'nothing was to be put into it'
    case.put(['benchmark.tgz'])
    assert case.run() == 0
    again = case.tree()
    assert again.pop(lost)[1] == tree.pop(lost)[1] and again == tree, 'nothing else was written'


def test_hidden_files_of_an_archive_are_left_out(case):
    case = case('ade20k')
    case.change('ADEChallengeData2016.zip', 'ADEChallengeData2016/images/training/._ADE_train_00000001.jpg', b'junk')
    assert case.run('--download') == 0


def test_as_a_command_from_another_folder(run, tmp_path):
    done = run('tools/prepare_data.py', 'ade20k', '--verify', '--root', tmp_path, check=False)
    assert done.returncode == 1 and 'ADE' in done.stdout and 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith('error: ade20k in ')


# ---- downloads

def test_a_dropped_download_is_resumed(case):
    case = case('ade20k')
    content = case.server.files['/ADEChallengeData2016.zip']
    case.server.drops = 100
    case.fails('cannot download ADEChallengeData2016.zip', 'Run this again', arguments=['--download'])
    part = case.root / 'downloads/ADEChallengeData2016.zip.part'
    assert 0 < part.stat().st_size < len(content)
    half = part.stat().st_size
    case.server.drops, case.server.ranges[:] = 0, []
    assert case.run('--download') == 0
    assert case.server.ranges == [f'bytes={half}-'] and not part.exists()


def test_the_second_address_is_tried_when_the_first_is_gone(case, server):
    case = case('ade20k')
    benchmark = sources.BENCHMARKS['ade20k']
    archive = benchmark.archives[0]
    archive = archive._replace(urls=(f'{server.url}/gone/{archive.name}', *archive.urls))
    case.monkeypatch.setitem(sources.BENCHMARKS, 'ade20k', benchmark._replace(archives=(archive,)))
    assert case.run('--download') == 0
    del server.files['/ADEChallengeData2016.zip']
    shutil.rmtree(case.root)
    case.fails('404', *archive.urls, 'by hand', arguments=['--download'])


@pytest.mark.parametrize('change', [lambda content: content[:-1], lambda content: content[:-1] + b'x'])
def test_the_server_sends_another_file(case, server, change):
    case = case('voc12')
    server.files['/benchmark.tgz'] = change(server.files['/benchmark.tgz'])
    case.fails('benchmark.tgz', 'MD5', hashlib.md5(server.files['/benchmark.tgz']).hexdigest(), 'was deleted',
               arguments=['--download'])
    assert {path.name for path in (case.root / 'downloads').iterdir()} == {'.lock', 'VOCtrainval_11-May-2012.tar'}
    assert case.tree() == {}


@pytest.mark.parametrize(('change', 'parts'), [(lambda content: content[:-1], ['bytes, expected', 'truncated']),
                                               (lambda content: content[:-1] + b'x', ['SHA-256', 'another file'])])
def test_another_file_is_there(case, change, parts):
    case = case('ade20k')
    case.put()
    path = case.root / 'downloads/ADEChallengeData2016.zip'
    path.write_bytes(change(path.read_bytes()))
    before = path.read_bytes()
    case.fails(path, 'Delete it', case.server.url, *parts, arguments=['--download'])
    assert path.read_bytes() == before and case.server.ranges == []


@pytest.mark.parametrize('what', ['download the archives', 'unpack ADEChallengeData2016.zip'])
def test_space_is_looked_for_before_work(case, monkeypatch, what):
    case = case('ade20k')
    if what.startswith('unpack'):
        case.put()
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: namedtuple('usage', 'free')(1000))
    case.fails(what, '0.00 GB are free', '--root', arguments=['--download'])
    assert case.server.ranges == [] and case.tree() == {}


def test_the_disk_fills_up_while_downloading(case, monkeypatch):
    case = case('ade20k')

    def open_part(path, *args, **kwargs):
        if path.suffix == '.part':
            raise OSError(errno.ENOSPC, 'No space left on device')
        return real_open(path, *args, **kwargs)

    real_open = Path.open
    monkeypatch.setattr(Path, 'open', open_part)
    case.fails('the disk is full', 'ADEChallengeData2016.zip.part', 'run this again', arguments=['--download'])


# ---- damaged archives

@pytest.mark.parametrize(('name', 'archive'), [
    ('voc12', 'VOCtrainval_11-May-2012.tar'), ('voc12', 'benchmark.tgz'),
    ('coco_stuff164k', 'stuffthingmaps_trainval2017.zip'), ('pascal_context', 'trainval_merged.json')])
@pytest.mark.parametrize('kept', [0, 0.1, 0.5])
def test_a_cut_off_archive_whose_size_nobody_published(case, name, archive, kept):
    case = case(name)
    case.forget(archive)
    case.put()
    path = case.root / 'downloads' / archive
    content = path.read_bytes()
    path.write_bytes(content[:int(kept * len(content))])
    case.fails(path, 'get it again')
    path.write_bytes(content)
    assert case.run() == 0


def test_a_damaged_file_in_an_archive_is_named(case):
    case = case('ade20k')
    archive = 'ADEChallengeData2016.zip'
    content = case.server.files[f'/{archive}']
    inside = f'{archive.removesuffix(".zip")}/images/validation/ADE_val_00000001.jpg'
    place = content.index(inside.encode()) + len(inside) + 100
    case.server.files[f'/{archive}'] = content[:place] + bytes([content[place] ^ 255]) + content[place + 1:]
    case.publish()
    case.put()
    case.fails(inside, case.root / 'downloads' / archive, 'get it again')


@pytest.mark.parametrize(('name', 'archive', 'inside', 'content', 'parts'), [
    ('voc12', 'benchmark.tgz', 'benchmark_RELEASE/dataset/cls/2008_000021.mat', b'MATLAB', ['MATLAB']),
    ('coco_stuff164k', 'stuffthingmaps_trainval2017.zip', 'val2017/000000000049.png', b'\x89PNG', ['does not decode']),
    ('coco_stuff164k', 'stuffthingmaps_trainval2017.zip', 'val2017/000000000049.png',
     data_archives.encoded(np.full((2, 2), 11, dtype=np.uint8)), ['no label ids [11]'])])
@pytest.mark.parametrize('workers', ['1', '2'])
def test_a_mask_that_can_not_be_converted_is_named(case, name, archive, inside, content, parts, workers):
    case = case(name)
    assert inside in case.made.files[archive], 'the case is wrong'
    case.change(archive, inside, content)
    case.put()
    case.fails(inside, case.root / 'downloads' / archive, *parts, arguments=['--workers', workers])


@pytest.mark.parametrize(('old', 'new', 'parts'), [
    (b'"annos_segmentation"', b'"annotations"', ['not laid out', "no 'annos_segmentation'"]),
    (b'"image_id"', b'"id"', ['not laid out', "no 'image_id'"]),
    (b'"category_id": 23,', b'"category_id": 24,', ['2008_000003', 'category 24']),
    (b'"counts": "', b'"counts": "~', ['2008_000003', 'run-length code']),
    (b'"size": [14, 16]', b'"size": [16, 14]', ['2008_000003', "the image's size"]),
    (b'"size": [14, 16]', b'"size": null', ['not laid out']),
    (b'{', b'[{', ['damaged'])])
def test_other_annotations(case, old, new, parts):
    case = case('pascal_context')
    content = case.made.files['trainval_merged.json']['']
    assert old in content, 'the case is wrong'
    case.change('trainval_merged.json', '', content.replace(old, new, -1 if old == b'"image_id"' else 1))
    case.put()
    case.fails(case.root / 'downloads/trainval_merged.json', *parts)


@pytest.mark.parametrize('path', ['../outside.jpg', 'ADEChallengeData2016/images/training/../../../../outside.jpg',
                                  '/tmp/outside.jpg', '..\\outside.jpg'])
def test_paths_that_lead_out_of_the_folder_are_not_unpacked(case, path):
    case = case('ade20k')
    case.change('ADEChallengeData2016.zip', path, b'outside')
    case.put()
    assert case.run() == 0
    assert not list(case.root.parent.rglob('outside.jpg')) and not Path('/tmp/outside.jpg').exists()


# ---- runs that end early

@pytest.mark.parametrize('workers', ['1', '2'])
def test_the_disk_fills_up_while_unpacking(case, monkeypatch, workers):
    case = case('coco_stuff164k')
    case.put()
    real_save = Image.Image.save

    def save(image, path, *args):
        if '000000000050' in str(path):
            Path(path).write_bytes(b'half')
            raise OSError(errno.ENOSPC, 'No space left on device')
        real_save(image, path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, 'save', save)
        case.fails('the disk is full', 'run this again', arguments=['--workers', workers])
    before = case.tree()
    assert not [path for path in before if '000000000050_label' in path], 'no file, and no part of one'
    assert case.run() == 0
    assert case.tree().items() >= before.items(), 'existing files were made again'


@pytest.mark.parametrize(('name', 'folder'), [('voc12', 'VOCdevkit/VOC2012/SegmentationClassAug'),
                                              ('pascal_context', 'VOCdevkit/VOC2010/SegmentationClassContext')])
@pytest.mark.parametrize('end', [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_is_resumed(case, monkeypatch, name, folder, end, capfd):
    """Interrupted while it slowly writes the first masks."""
    case = case(name)
    case.put()
    real_save = Image.Image.save

    def save(image, path, *args):
        time.sleep(0.3)
        real_save(image, path, *args)

    def run():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(case.run('--workers', '2'))

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, 'save', save)
        patch.setattr(parallel, 'CHUNK', 1)
        process = multiprocessing.get_context('fork').Process(target=run)
        process.start()
    deadline = time.monotonic() + 30
    while not list((case.root / folder).glob('*.png')) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, end)
    process.join(20)
    assert process.exitcode == (130 if end == signal.SIGINT else -end)
    if end == signal.SIGINT:
        assert capfd.readouterr().err.splitlines()[-1] == 'stopped.'
    time.sleep(0.5)  # workers that outlive their parent notice it
    before = case.tree()
    time.sleep(0.5)
    assert case.tree() == before, 'still at work'
    masks = [path for path in before if path.startswith(folder)]
    assert 0 < len(masks) < len([path for path in case.made.masks if path.startswith(folder)]), 'the case is wrong'
    for path, (_, content) in before.items():
        if path.endswith(('.png', '.jpg')):
            Image.open(io.BytesIO(content)).load()
    assert case.run() == 0
    after = case.tree()
    assert after.items() >= before.items(), 'existing files were made again'
    assert set(after) == {*case.made.images, *case.made.masks, *case.made.lists}


def test_one_run_at_a_time(case):
    case = case('ade20k')
    case.put()

    def hold(ready):
        with files.lock_folder(case.root / 'downloads', 'taken'):
            ready.set()
            time.sleep(60)

    ready = multiprocessing.get_context('fork').Event()
    process = multiprocessing.get_context('fork').Process(target=hold, args=(ready,))
    process.start()
    assert ready.wait(20)
    case.fails('another run is using', case.root / 'downloads')
    process.kill()
    process.join()
    assert case.run() == 0


def test_a_worker_that_is_killed():
    with pytest.raises(ValueError, match='--workers 1'):
        list(parallel.parallel(kill_oneself, [0] * 3, 2, 'files'))


def kill_oneself(task):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_root_that_can_not_be_written(case):
    case = case('ade20k')
    case.root.write_text('a file')
    case.fails(case.root, 'cannot write', arguments=['--download'])
    case.fails(case.root, '--root', arguments=['--verify'])


@EVERY
@pytest.mark.parametrize('arguments', [[], ['--verify']])
def test_a_root_inside_the_layout(case, name, arguments):
    case = case(name)
    whole, first = case.root, Path(REAL[name].splits[0].images)
    (whole / first).mkdir(parents=True)
    for inner in [first, *first.parents][:-1]:
        case.root = whole / inner
        case.fails(case.root, f'--root {whole}', arguments=arguments)
    assert not any(path.is_file() for path in whole.rglob('*'))


@pytest.mark.parametrize('count', ['x', '0', '-1', '1.5'])
def test_workers_that_are_no_count(case, count, capsys):
    assert case('ade20k').run('--workers', count) == 2
    assert f"--workers: '{count}' is not a positive integer" in capsys.readouterr().err


# ---- verifying

def test_verify_without_anything(case, capsys):
    case = case('voc12')
    case.fails('no folder', case.root, '--root', arguments=['--verify'])
    case.root.mkdir()
    case.fails('incomplete or wrong', arguments=['--verify'])
    out = capsys.readouterr().out
    assert 'train: no file VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt; 0 of 2 images' in out
    assert 'classes in val: 0 of 20' in out
    assert list(case.root.iterdir()) == []


def replace_mask(case, change):
    """Changes the first mask of val."""
    path = sorted(path for path in case.made.masks if 'val' in path or 'Class/2007_000011' in path)[0]
    change(case.root / path)
    return path


def turn(path):
    """A note in the file that viewers, and the loader, turn it by."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    with Image.open(path) as image:
        image.load()
        image.save(path, exif=exif)


def save(array, path, format='PNG'):
    path.write_bytes(data_archives.encoded(np.array(array, dtype=np.uint8), format))


@pytest.mark.parametrize('name', ['coco_stuff164k', 'voc12'])
@pytest.mark.parametrize(('change', 'parts'), [
    (lambda path: save(np.full(data_archives.SIZE, 201), path), ['label ids [201] are out of range']),
    (lambda path: save(np.zeros((14, 15)), path), ['the mask is 15x14 pixels, its image 16x14']),
    (lambda path: save(np.zeros((14, 16, 3)), path), ['8-bit label', 'RGB']),
    (lambda path: path.write_bytes(path.read_bytes()[:-40]), ['does not decode']),
    (lambda path: path.unlink(), ['no mask in '])])
def test_verify_finds_wrong_masks(case, name, change, parts, capsys):
    case = case(name)
    case.put()
    assert case.run() == 0
    path = replace_mask(case, change)
    before = case.tree()
    case.fails('incomplete or wrong', 'delete the wrong ones', arguments=['--verify'])
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if parts[0] in line)
    stem = Path(path).name.split('.')[0].removesuffix('_labelTrainIds')
    assert all(part in line for part in (*parts, stem)), out
    assert case.tree() == before


@pytest.mark.parametrize(('change', 'text'), [
    (lambda path: path.write_bytes(path.read_bytes()[:-40]), 'does not decode'),
    (lambda path: path.write_bytes(b''), 'does not decode'),
    (lambda path: turn(path), 'the mask is 16x14 pixels, its image 14x16'),
    (lambda path: path.unlink(), 'no image in ade/ADEChallengeData2016/images/validation')])
def test_verify_finds_wrong_images(case, change, text, capsys):
    case = case('ade20k')
    case.put()
    assert case.run() == 0
    change(case.root / 'ade/ADEChallengeData2016/images/validation/ADE_val_00000001.jpg')
    case.fails('incomplete or wrong', arguments=['--verify'])
    assert [line for line in capsys.readouterr().out.splitlines() if text in line and 'ADE_val_00000001' in line]


def test_verify_counts_and_names_absent_classes(case, capsys):
    case = case('ade20k')
    case.put()
    assert case.run() == 0
    for kind, ending in (('images', 'jpg'), ('annotations', 'png')):
        (case.root / f'ade/ADEChallengeData2016/{kind}/training/ADE_train_00000002.{ending}').unlink()
    labels = data_archives.mask([*range(3), *range(5, 151)], 0)
    for number in (1, 2):
        save(labels, case.root / f'ade/ADEChallengeData2016/annotations/validation/ADE_val_0000000{number}.png')
    capsys.readouterr()
    case.fails('incomplete or wrong', arguments=['--verify'])
    out = capsys.readouterr().out
    assert 'train: 11 of 12 images' in out and 'there are 11 images and 11 masks' in out
    assert 'classes in training: 150 of 150\n' in out
    assert 'classes in val: 148 of 150; none of sky, floor\n' in out


def test_verify_finds_images_that_are_trained_on_and_tested_on(case, capsys):
    case = case('voc12')
    case.put()
    assert case.run() == 0
    aug = case.root / 'VOCdevkit/VOC2012/ImageSets/Segmentation/aug.txt'
    aug.write_text(aug.read_text().replace('2008_000022', '2007_000012'))
    case.fails('incomplete or wrong', arguments=['--verify'])
    assert 'listed more than once: 2007_000012' in capsys.readouterr().out


def test_a_short_list_of_voc_is_not_taken_for_the_whole(case):
    case = case('voc12')
    case.put()
    lists = case.root / 'VOCdevkit/VOC2012/ImageSets/Segmentation'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('2007_000001\n')
    case.fails(lists / 'train.txt', 'lists 1 images, expected 2', 'Delete it')
    assert not (lists / 'aug.txt').exists()
    (lists / 'train.txt').unlink()
    assert case.run() == 0


def test_many_wrong_files_are_counted(capsys):
    verify.show('wrong', [f'file {number}' for number in range(1005)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == verify.SHOWN + 1 and lines[-1] == '    wrong: 1,000 more'
