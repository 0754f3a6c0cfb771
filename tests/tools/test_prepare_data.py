"""Each benchmark, from small invented archives on a local server to its folders, and the failures on the way."""
import errno
import hashlib
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections import namedtuple
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import data_archives
from tests.web_server import serving
from tools import prepare_data
from tools.engine import downloads, errors, files
from tools.preparation import parallel, sources, unpack

REAL = dict(sources.BENCHMARKS)
MAPS, DETAIL, SBD = 'stuffthingmaps_trainval2017.zip', 'trainval_merged.json', 'benchmark.tgz'
ADE_FULL, MATLAB = 'ADE20K_2021_17_01.zip', 'trainval.tar.gz'
ADE_IMAGES = 'ADE20K_2021_17_01/images/ADE/validation'


class Case:
    """A benchmark whose archives are small, on a local server and, all or those in `put`, where a user puts them."""

    def __init__(self, name, server, root, monkeypatch, put=None):
        self.name, self.server, self.root, self.monkeypatch = name, server, root, monkeypatch
        self.made = getattr(data_archives, name)()
        self.archives = list(self.made.files)
        for archive in self.archives:
            server.files[f'/{archive}'] = self.made.archive(archive)
        self.publish()
        self.put(put)

    def publish(self, urls=None):
        """Puts the server's archives in the place of the real ones, with the same facts published of them."""
        archives = []
        for archive in REAL[self.name].archives:
            content = self.server.files[f'/{archive.name}']
            published = {kind: len(content) if kind == 'size' else hashlib.new(kind, content).hexdigest()
                         for kind in archive.published}
            archives.append(archive._replace(urls=urls or (f'{self.server.url}/{archive.name}',), published=published))
        splits = [split._replace(count=self.made.counts[split.name]) for split in REAL[self.name].splits]
        self.monkeypatch.setitem(sources.BENCHMARKS, self.name, REAL[self.name]._replace(
            archives=tuple(archives), splits=tuple(splits)))

    def put(self, archives=None):
        for archive in self.archives if archives is None else archives:
            (self.root / 'downloads').mkdir(parents=True, exist_ok=True)
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
        """The run ends with one line that contains all of `parts`."""
        message = self.run(*arguments)
        assert isinstance(message, str) and message.startswith('error: ') and '\n' not in message, message
        for part in parts:
            assert str(part) in message, message

    def tree(self):
        """Path -> time of the last change and content, of all files but the archives."""
        return {str(path.relative_to(self.root)): (path.stat().st_mtime_ns, path.read_bytes())
                for path in sorted(self.root.rglob('*')) if path.is_file() and 'downloads' not in path.parts}


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, 'RETRY_WAITS', (0, 0))
    monkeypatch.setenv('no_proxy', '*')
    with serving({}) as server:
        yield lambda name, **options: Case(name, server, tmp_path / 'data', monkeypatch, **options)


def test_published_hashes_are_well_formed():
    for archive in {archive.name: archive for each in REAL.values() for archive in each.archives}.values():
        for kind, value in archive.published.items():
            assert value > 1e8 if kind == 'size' else len(bytes.fromhex(value)) == hashlib.new(kind).digest_size


# ---- from archives to folders

@pytest.mark.parametrize('name', REAL)
def test_download_unpack_convert_verify(case, name, capsys):
    case = case(name, put=())
    if name == 'ade20k_full':  # the page to ask at is no archive to download
        for arguments in ((), ('--download',)):
            case.fails(case.root / 'downloads', *case.archives, 'account holders', f'ask at {case.server.url}/',
                       'Put it there.', arguments=arguments)
        assert case.server.ranges == [] and not case.root.exists()
        case.put()
    else:
        case.fails(case.root / 'downloads', *case.archives, f'{case.server.url}/{case.archives[0]}', '--download')
    assert case.run('--download', '--workers', '2') == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f'{name} is complete.' and 'Traceback' not in printed.err
    assert ('no size or checksum is published' in printed.err) == (name in ('coco', 'ade20k_full', 'context459'))
    for path, expected in case.made.expected.items():
        file = case.root / path
        if isinstance(expected, bytes):
            assert file.read_bytes() == expected
        elif isinstance(expected, list):
            assert file.read_text().split() == expected
        else:
            with Image.open(file) as image:
                if isinstance(expected, tuple):
                    assert image.size == expected
                    continue
                assert image.mode in (('I;16',) if expected.dtype == np.uint16 else ('L', 'P'))
                np.testing.assert_array_equal(np.asarray(image), expected, err_msg=path)
    tree = case.tree()
    assert set(tree) == {*case.made.expected}, 'and nothing else'
    assert {path.name for path in (case.root / 'downloads').iterdir()} == {'.lock', *case.archives}

    requests = len(case.server.ranges)
    assert case.run('--download') == 0 and len(case.server.ranges) == requests
    shutil.rmtree(case.root / 'downloads')  # archives are not needed any more
    assert case.run() == 0
    assert case.run('--verify') == 0
    assert case.tree() == tree and not (case.root / 'downloads').exists()


def test_only_the_archives_of_missing_files_are_needed(case):
    case = case('voc12')
    assert case.run() == 0
    assert case.server.ranges == []
    tree = case.tree()
    shutil.rmtree(case.root / 'downloads')
    lost = next(path for path in case.made.expected if 'Aug/2008' in path)
    (case.root / lost).unlink()
    case.fails('benchmark.tgz')
    case.put(['benchmark.tgz'])
    assert case.run() == 0
    again = case.tree()
    assert again.pop(lost)[1] == tree.pop(lost)[1] and again == tree, 'nothing else was written'


@pytest.mark.parametrize(('name', 'lost', 'archive'), [
    ('voc12', 'VOCdevkit/VOC2012/ImageSets/Segmentation/aug.txt', SBD),
    ('voc12', 'VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt', 'VOCtrainval_11-May-2012.tar'),
    ('context459', 'VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt', DETAIL),
    ('context459', 'VOCdevkit/VOC2010/SegmentationClassContext459/2008_000003.png', MATLAB)])
def test_a_lost_list_or_mask_needs_its_own_archive(case, name, lost, archive):
    case = case(name)
    assert case.run() == 0
    tree = case.tree()
    shutil.rmtree(case.root / 'downloads')
    (case.root / lost).unlink()
    message = case.run()
    assert [each for each in case.archives if each in message] == [archive]
    case.put([archive])
    assert case.run() == 0
    assert {path: content for path, (_, content) in case.tree().items()} == {
        path: content for path, (_, content) in tree.items()}


def test_pycocotools_is_missing(case, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pycocotools', None)
    case('context').fails('pip install -r tools/preparation/requirements.txt')


def test_a_list_alone_needs_no_pycocotools(case, monkeypatch):
    case = case('context459')
    monkeypatch.setitem(sys.modules, 'pycocotools', None)
    assert case.run() == 0


# ---- downloads; test_download.py has connections that drop

def test_the_second_address_is_tried_when_the_first_is_gone(case):
    case = case('ade20k', put=())
    name = 'ADEChallengeData2016.zip'
    urls = (f'{case.server.url}/gone/{name}', f'{case.server.url}/{name}')
    case.publish(urls=urls)
    assert case.run('--download') == 0
    del case.server.files[f'/{name}']
    shutil.rmtree(case.root)
    case.fails('404', *urls, 'by hand', arguments=['--download'])


def test_another_file_is_there(case):
    case = case('ade20k')
    path = case.root / 'downloads/ADEChallengeData2016.zip'
    path.write_bytes(wrong := path.read_bytes()[:-1])
    case.fails(path, 'Delete it', case.server.url, 'bytes, expected', 'truncated', arguments=['--download'])
    assert path.read_bytes() == wrong and case.server.ranges == []


def test_space_is_checked_before_unpacking(case, monkeypatch):
    case = case('ade20k')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: namedtuple('usage', 'free')(1000))
    case.fails('to unpack ADEChallengeData2016.zip', '0.00 GB are free', '--root')
    assert case.tree() == {}


def test_large_images_that_become_small_need_less_space(case, monkeypatch):
    case = case('ade20k_full')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: namedtuple('usage', 'free')(10_000))
    case.fails('to unpack ADE20K_2021_17_01.zip', '0.00 GB are free')
    monkeypatch.setattr(unpack, 'CONVERTED_BYTES', 1_500)
    assert case.run() == 0


# ---- damaged archives

def half(content: bytes) -> bytes:
    return content[:len(content) // 2]


def replaced(old: bytes, new: bytes):
    def change(content: bytes) -> bytes:
        assert old in content, 'the case is wrong'
        return content.replace(old, new, 1)
    return change


def flipped(content: bytes) -> bytes:
    """One bit of a compressed image is another."""
    place = content.index(b'ADE_val_00000001.jpg') + 100
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1:]


@pytest.mark.parametrize(('name', 'archive', 'change', 'expected'), [
    ('voc12', 'VOCtrainval_11-May-2012.tar', ('VOC2012/JPEGImages', 'Images'), 'VOCdevkit/VOC2012/JPEGImages/*.jpg'),
    ('coco', MAPS, ('val2017', 'val'), 'val2017/*.png'),
    ('context459', MATLAB, ('.mat', '.png'), 'trainval/*.mat'),
    ('ade20k_full', ADE_FULL, ('_seg', '_mask'), 'ADE20K_2021_17_01/images/ADE/validation/*/*/*_seg.png')])
def test_an_archive_without_the_expected_files(case, name, archive, change, expected):
    case = case(name)
    case.made.files[archive] = {inside.replace(*change): content
                                for inside, content in case.made.files[archive].items()}
    case.server.files[f'/{archive}'] = case.made.archive(archive)
    case.publish()
    case.put()
    case.fails(case.root / 'downloads' / archive, f'it has no files {expected})', 'get it again')


@pytest.mark.parametrize(('name', 'archive', 'inside', 'change', 'words'), [
    ('voc12', 'VOCtrainval_11-May-2012.tar', '', half, ''),
    ('voc12', SBD, '', half, ''),
    ('voc12', SBD, 'benchmark_RELEASE/dataset/cls/2008_000021.mat', lambda content: b'MATLAB', ''),
    ('coco', MAPS, '', half, ''),
    ('coco', MAPS, 'val2017/000000000049.png', half, ''),
    ('coco', MAPS, 'val2017/000000000049.png', lambda content: save([[11]]), 'no label ids [11]'),
    ('coco', MAPS, 'val2017/000000000049.png', lambda content: save([[[1, 1, 1]]]), "Pillow's mode RGB"),
    ('ade20k', 'ADEChallengeData2016.zip', '', flipped, 'ADEChallengeData2016/images/validation/ADE_val_00000001.jpg'),
    ('ade20k_full', ADE_FULL, '', half, ''),
    ('ade20k_full', ADE_FULL, f'{ADE_IMAGES}/urban/street/ADE_val_00000002.jpg', half, ''),
    ('ade20k_full', ADE_FULL, f'{ADE_IMAGES}/urban/street/ADE_val_00000002_seg.png', half, ''),
    ('ade20k_full', ADE_FULL, f'{ADE_IMAGES}/urban/park/ADE_val_00000001_seg.png', lambda content: save([[1, 2]]),
     "Pillow's mode L"),
    ('context459', MATLAB, '', half, ''),
    ('context459', MATLAB, 'trainval/2008_000003.mat', lambda content: b'MATLAB', ''),
    ('context459', MATLAB, 'trainval/2008_000003.mat', lambda content: data_archives.mat(np.ones((2, 2), np.uint8)),
     'LabelMap'),
    ('context', DETAIL, '', half, ''),
    ('context', DETAIL, '', replaced(b'{', b'[{'), ''),
    ('context', DETAIL, '', replaced(b'"annos_segmentation"', b'"annotations"'), "KeyError: 'annos_segmentation'"),
    ('context', DETAIL, '', replaced(b'"counts": "', b'"counts": "~'), '2008_000003.jpg in'),
    ('context', DETAIL, '', replaced(b'"size": [14, 16]', b'"size": [16, 14]'), '2008_000003.jpg has size [16, 14]')])
def test_damage_in_an_archive_is_named(case, name, archive, inside, change, words):
    """In archives that have the published hash, or none."""
    case = case(name)
    files, whole = case.made.files[archive], case.server.files[f'/{archive}']
    if inside:
        files[inside] = change(files[inside])
        case.server.files[f'/{archive}'] = case.made.archive(archive)
    else:
        case.server.files[f'/{archive}'] = change(whole)
    case.publish()
    case.put()
    case.fails(inside, words, case.root / 'downloads' / archive, 'damaged', 'get it again',
               arguments=['--workers', '2'])
    case.server.files[f'/{archive}'] = whole
    case.publish()
    case.put()
    assert case.run() == 0


# ---- runs that end early

@pytest.mark.parametrize('workers', ['1', '2'])
def test_the_disk_fills_up(case, monkeypatch, workers):
    case = case('coco')
    real_replace = Path.replace

    def replace(path, target):
        if '000000000050_' in path.name:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return real_replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'replace', replace)
        case.fails('the disk is full', 'run this again', arguments=['--workers', workers])
    before = case.tree()
    assert not [path for path in before if '000000000050_label' in path], 'no file, and no part of one'
    assert case.run() == 0
    assert case.tree().items() >= before.items(), 'existing files were made again'


@pytest.mark.parametrize(('name', 'folder', 'end'), [
    ('voc12', 'VOCdevkit/VOC2012/SegmentationClassAug', signal.SIGINT),
    ('context', 'VOCdevkit/VOC2010/SegmentationClassContext', signal.SIGKILL)])
def test_an_interrupted_run_is_resumed(case, monkeypatch, name, folder, end, capfd):
    """Interrupted while it slowly writes the first masks."""
    case = case(name)
    real_replace = Path.replace

    def replace(path, target):
        time.sleep(0.3 if Path(target).suffix == '.png' else 0)
        return real_replace(path, target)

    def run():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(case.run('--workers', '2'))

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'replace', replace)
        patch.setattr(parallel, 'CHUNK', 1)
        process = multiprocessing.get_context('fork').Process(target=run)
        process.start()
    deadline = time.monotonic() + 30
    while not list((case.root / folder).glob('[!.]*.png')) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, end)
    process.join(20)
    assert process.exitcode == (130 if end == signal.SIGINT else -end)
    if end == signal.SIGINT:
        assert capfd.readouterr().err.splitlines()[-1] == 'stopped.'
    time.sleep(0.5)  # workers that outlive their parent notice it
    left = case.tree()
    time.sleep(0.5)
    assert case.tree() == left, 'still at work'
    before = {path: file for path, file in left.items() if '.part' not in path}  # left by a kill, removed by the next
    masks, expected = ([path for path in paths if path.startswith(folder)] for paths in (before, case.made.expected))
    assert 0 < len(masks) < len(expected), 'the case is wrong'
    for path in before:
        if path.endswith(('.png', '.jpg')):
            Image.open(case.root / path).load()
    assert case.run() == 0
    after = case.tree()
    assert after.items() >= before.items(), 'existing files were made again'
    assert set(after) == {*case.made.expected}


def lock(folder):
    lock.held = files.lock_folder(folder, 'taken')


def test_one_run_at_a_time(case):
    case = case('ade20k')
    with ProcessPoolExecutor(1, multiprocessing.get_context('fork')) as pool:
        pool.submit(lock, case.root / 'downloads').result(20)
        case.fails('another run writes to', case.root / 'downloads')
    assert case.run() == 0


def test_a_worker_that_is_killed():
    with pytest.raises(ValueError, match='--workers 1'):
        list(parallel.parallel(kill_oneself, [0] * 3, 3, 2, 'files'))


def kill_oneself(task):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_root_that_cannot_be_written(case):
    case = case('ade20k', put=())
    case.root.write_text('a file')
    case.fails(case.root, 'cannot write', arguments=['--download'])
    case.fails(case.root, '--root', arguments=['--verify'])


# ---- verifying

def save(labels) -> bytes:
    return data_archives.encoded(np.array(labels, dtype=np.uint8))


@pytest.mark.parametrize(('kind', 'change', 'text'), [
    ('annotations', lambda path: path.write_bytes(save(np.full(data_archives.SIZE, 201))), 'label ids [201] are out'),
    ('annotations', lambda path: path.write_bytes(save(np.zeros((14, 15)))), 'is 15x14 pixels, its image 16x14'),
    ('annotations', lambda path: path.unlink(), 'no mask in ade/ADEChallengeData2016/annotations/validation'),
    ('images', lambda path: path.write_bytes(path.read_bytes()[:-40]), 'broken image'),
    ('images', lambda path: path.unlink(), 'no image in ade/ADEChallengeData2016/images/validation')])
def test_verify_finds_wrong_files(case, kind, change, text, capsys):
    """With the functions that load samples for training, whose tests have more kinds of damage."""
    case = case('ade20k')
    assert case.run() == 0
    change(next((case.root / f'ade/ADEChallengeData2016/{kind}/validation').glob('ADE_val_00000001.*')))
    before = case.tree()
    case.fails('incomplete or wrong', 'delete the wrong ones', arguments=['--verify'])
    assert [line for line in capsys.readouterr().out.splitlines() if text in line and 'ADE_val_00000001' in line]
    assert case.tree() == before


def test_verify_counts_and_names_absent_classes(case, capsys):
    case = case('ade20k')
    assert case.run() == 0
    for kind, ending in (('images', 'jpg'), ('annotations', 'png')):
        (case.root / f'ade/ADEChallengeData2016/{kind}/training/ADE_train_00000002.{ending}').unlink()
    labels = data_archives.mask([*range(3), *range(5, 151)], 0)
    for number in (1, 2):
        (case.root / f'ade/ADEChallengeData2016/annotations/validation/ADE_val_0000000{number}.png').write_bytes(
            save(labels))
    capsys.readouterr()
    case.fails('incomplete or wrong', arguments=['--verify'])
    out = capsys.readouterr().out
    assert 'train: 11 of 12 images' in out and 'there are 11 images and 11 masks' in out
    assert 'classes in training: 150 of 150\n' in out
    assert 'classes in val: 148 of 150; none of sky, floor\n' in out


def test_verify_finds_images_of_two_splits(case, capsys):
    case = case('voc12')
    assert case.run() == 0
    aug = case.root / 'VOCdevkit/VOC2012/ImageSets/Segmentation/aug.txt'
    aug.write_text(aug.read_text().replace('2008_000022', '2007_000012'))
    case.fails('incomplete or wrong', arguments=['--verify'])
    assert 'listed more than once: 2007_000012' in capsys.readouterr().out


def test_a_short_list_of_voc_is_an_error(case):
    case = case('voc12')
    lists = case.root / 'VOCdevkit/VOC2012/ImageSets/Segmentation'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('2007_000001\n')
    case.fails(lists / 'train.txt', 'lists 1 images, expected 2', 'Delete it')
    assert not (lists / 'aug.txt').exists()
    (lists / 'train.txt').unlink()
    assert case.run() == 0
