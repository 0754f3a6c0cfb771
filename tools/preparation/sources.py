"""The benchmarks as data: their archives, the files taken from each, and the splits that result.

Layouts are mmsegmentation 0.30's, below one root folder. No archive was available to compare with. Importing this
module is quick.
"""
from typing import NamedTuple

from tools.engine.validation_images import VALIDATION_IMAGES


class Folder(NamedTuple):
    """Files of an archive and where they go.

    Args:
        inside: the folder in the archive, without its subfolders; `*` stands for any names, also of several levels.
        target: the folder under the root.
        endings: of a file's name in the archive and under the root.
        converter: its name in `convert`; None copies the files.
    """
    inside: str
    target: str
    endings: tuple[str, str]
    converter: str | None = None


class Archive(NamedTuple):
    """A file that the owners of a dataset publish.

    Args:
        urls: addresses, tried in this order.
        published: 'size' in bytes, 'md5', 'sha1' or 'sha256', as far as known. Sizes and SHA-256 are from TensorFlow
            Datasets (url_checksums/), MD5 from torchvision (datasets/), SHA-1 from GluonCV (scripts/datasets/).
        folders: folders taken from it.
        on_request: its owners give it to account holders only; `urls` are the pages to ask at.
    """
    name: str
    urls: tuple[str, ...]
    published: dict[str, int | str]
    folders: tuple[Folder, ...]
    on_request: bool = False


class Split(NamedTuple):
    """Images and their masks; paths are relative to the root.

    Args:
        count: number of images.
        names: text file of image names, one per line without ending; None: all images of the folder.
    """
    name: str
    count: int
    images: str
    masks: str
    names: str | None = None


class Benchmark(NamedTuple):
    """A prepared dataset.

    Args:
        dataset: name of its class in `datasets`, which has the class names and their ids.
        splits: 'val' is for testing, the others are for training.
        mask_ending: ending of a mask's file name, after the name of the image.
    """
    dataset: str
    archives: tuple[Archive, ...]
    splits: tuple[Split, ...]
    mask_ending: str = '.png'


JPG, PNG, TXT = ('.jpg', '.jpg'), ('.png', '.png'), ('.txt', '.txt')
VOC12, VOC10, COCO, ADE = 'VOCdevkit/VOC2012', 'VOCdevkit/VOC2010', 'coco_stuff164k', 'ADEChallengeData2016'
ADE_FULL = 'ade/ADE20K847'
SBD_LISTS = 'VOCdevkit/VOCaug/dataset'  # SBD's own train.txt and val.txt
VOC_LISTS = f'{VOC12}/ImageSets/Segmentation'
CONTEXT_LISTS = f'{VOC10}/ImageSets/SegmentationContext'
CONTEXT_MASKS, CONTEXT459_MASKS = f'{VOC10}/SegmentationClassContext', f'{VOC10}/SegmentationClassContext459'

VOC12_ARCHIVE = Archive(
    'VOCtrainval_11-May-2012.tar',
    ('http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar',),
    {'size': 1_999_639_040,
     'sha256': 'e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb'},
    tuple(Folder(folder, folder, endings) for folder, endings in (
        (f'{VOC12}/JPEGImages', JPG), (f'{VOC12}/SegmentationClass', PNG), (VOC_LISTS, TXT))))

SBD_ARCHIVE = Archive(
    'benchmark.tgz',
    ('https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz',),
    {'md5': '82b4d87ceb2ed10f6038a1cba92111cb',
     'sha1': '7129e0a480c2d6afb02b517bb18ac54283bfaa35'},
    (Folder('benchmark_RELEASE/dataset', SBD_LISTS, TXT),
     Folder('benchmark_RELEASE/dataset/cls', f'{VOC12}/SegmentationClassAug', ('.mat', '.png'), 'sbd')))

COCO_ARCHIVES = (
    Archive(
        'train2017.zip', ('http://images.cocodataset.org/zips/train2017.zip',),
        {'size': 19_336_861_798,
         'sha256': '69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929'},
        (Folder('train2017', f'{COCO}/images/train2017', JPG),)),
    Archive(
        'val2017.zip', ('http://images.cocodataset.org/zips/val2017.zip',),
        {'size': 815_585_330,
         'sha256': '4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05'},
        (Folder('val2017', f'{COCO}/images/val2017', JPG),)),
    Archive(  # its owners give a rounded size (659 MB) and no hash
        'stuffthingmaps_trainval2017.zip',
        ('http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip',), {},
        tuple(Folder(part, f'{COCO}/annotations/{part}', ('.png', '_labelTrainIds.png'), 'coco_stuff')
              for part in ('train2017', 'val2017'))))

VOC10_ARCHIVE = Archive(
    'VOCtrainval_03-May-2010.tar',
    ('http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar',),
    {'md5': 'da459979d0c395079b5c75ee67908abb',
     'sha1': 'bf9985e9f2b064752bf6bd654d89f017c76c395a'},
    (Folder(f'{VOC10}/JPEGImages', f'{VOC10}/JPEGImages', JPG),))

DETAIL_URL = 'https://codalabuser.blob.core.windows.net/public/trainval_merged.json'
DETAIL_ARCHIVE = Archive(  # the owners' server is reported gone; the second address is the Internet Archive's copy
    'trainval_merged.json', (DETAIL_URL, f'https://web.archive.org/web/20251122105902id_/{DETAIL_URL}'),
    {'sha1': '169325d9f7e9047537fedca7b04de4dddf10b881'},
    (Folder('.', CONTEXT_MASKS, ('.jpg', '.png'), 'context'), Folder('.', CONTEXT_LISTS, TXT)))

CONTEXT459_ARCHIVE = Archive(  # its owners give a rounded size (30.7 MB) and no hash
    'trainval.tar.gz', ('https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz',), {},
    (Folder('trainval', CONTEXT459_MASKS, ('.mat', '.png'), 'context459'),))

ADE_ARCHIVE = Archive(
    'ADEChallengeData2016.zip', ('http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',),
    {'size': 967_382_037,
     'sha256': '7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29'},
    tuple(Folder(f'{ADE}/{kind}/{part}', f'ade/{ADE}/{kind}/{part}', endings)
          for kind, endings in (('images', JPG), ('annotations', PNG)) for part in ('training', 'validation')))

ADE_FULL_ARCHIVE = Archive(
    'ADE20K_2021_17_01.zip', ('https://groups.csail.mit.edu/vision/datasets/ADE20K/request_data/',), {},
    tuple(Folder('ADE20K_2021_17_01/images/ADE/validation/*/*', f'{ADE_FULL}/{kind}/validation', endings, converter)
          for kind, endings, converter in (('images', JPG, 'ade_full_image'),
                                           ('annotations', ('_seg.png', '.png'), 'ade_full'))),
    on_request=True)

VOC12_VAL = Split('val', VALIDATION_IMAGES['voc12'], f'{VOC12}/JPEGImages', f'{VOC12}/SegmentationClass',
                  f'{VOC_LISTS}/val.txt')
CONTEXT_VAL = Split('val', VALIDATION_IMAGES['context'], f'{VOC10}/JPEGImages', CONTEXT_MASKS,
                    f'{CONTEXT_LISTS}/val.txt')

BENCHMARKS = {
    'voc12': Benchmark(
        'PascalVOC20', (VOC12_ARCHIVE, SBD_ARCHIVE),
        (Split('train', 1_464, f'{VOC12}/JPEGImages', f'{VOC12}/SegmentationClass', f'{VOC_LISTS}/train.txt'),
         Split('aug', 9_118, f'{VOC12}/JPEGImages', f'{VOC12}/SegmentationClassAug', f'{VOC_LISTS}/aug.txt'),
         VOC12_VAL)),
    'coco': Benchmark(
        'COCOStuff164k', COCO_ARCHIVES,
        (Split('train', 118_287, f'{COCO}/images/train2017', f'{COCO}/annotations/train2017'),
         Split('val', VALIDATION_IMAGES['coco'], f'{COCO}/images/val2017', f'{COCO}/annotations/val2017')),
        mask_ending='_labelTrainIds.png'),
    'context': Benchmark(
        'PascalContext60', (VOC10_ARCHIVE, DETAIL_ARCHIVE),
        (Split('train', 4_996, f'{VOC10}/JPEGImages', CONTEXT_MASKS, f'{CONTEXT_LISTS}/train.txt'),
         CONTEXT_VAL)),
    'ade20k': Benchmark(
        'ADE20K150', (ADE_ARCHIVE,),
        tuple(Split(name, count, f'ade/{ADE}/images/{part}', f'ade/{ADE}/annotations/{part}')
              for name, count, part in (('train', 20_210, 'training'),
                                        ('val', VALIDATION_IMAGES['ade20k'], 'validation')))),
    'ade20k_full': Benchmark(
        'ADE20K847', (ADE_FULL_ARCHIVE,),
        (Split('val', VALIDATION_IMAGES['ade20k_full'], f'{ADE_FULL}/images/validation',
               f'{ADE_FULL}/annotations/validation'),)),
    'context459': Benchmark(
        'PascalContext459',
        (VOC10_ARCHIVE, DETAIL_ARCHIVE._replace(folders=(Folder('.', CONTEXT_LISTS, TXT),)), CONTEXT459_ARCHIVE),
        (CONTEXT_VAL._replace(masks=CONTEXT459_MASKS),)),
    'voc20b': Benchmark('PascalVOC20b', (VOC12_ARCHIVE,), (VOC12_VAL,)),
}
