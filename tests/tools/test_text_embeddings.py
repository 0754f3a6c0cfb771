"""tools/text_embeddings.py: class names and prompts of all sources, text encoders of any CLIP; real embeddings."""
import json
import sys

import numpy as np
import pytest
import torch

from datasets import BY_NAME, COCOStuff164k, PascalVOC20
from models.class_names import PROMPT_SETS, synonyms, templates_of
from models.text_encoder import embed_class_names, tokenize
from models.weights import files
from models.weights.clip_variant import text_encoder_of
from models.weights.names import TEXT_TOWER
from tests.clip_files import clip_weights
from tests.conftest import REPOSITORY
from tools.engine import embeddings
from tools.engine.embeddings import similar_pairs

SCRIPT = 'tools/text_embeddings.py'
DATA = REPOSITORY / 'tests/data'


def expected(clip, names, templates) -> np.ndarray:
    return embed_class_names(text_encoder_of(files.read(clip)), names, templates).numpy()


# ---- against reality

def test_token_ids_are_those_of_clip():
    """All class names in use and all prompts, recorded from OpenAI's own tokenizer."""
    recorded = json.loads((DATA / 'clip_token_ids.json').read_text())['ids']
    known = {part for cls in BY_NAME.values() for name in cls.CLASSES for part in synonyms(name)}
    assert {f'a photo of a {name}' for name in known} <= set(recorded)
    assert {template.format('tvmonitor') for name in PROMPT_SETS for template in templates_of(name)} <= set(recorded)
    for tokens, (text, ids) in zip(tokenize(list(recorded)), recorded.items()):
        assert tokens.tolist() == ids + [0] * (77 - len(ids)), text


@pytest.mark.parametrize(('name', 'neighbour'), [('aeroplane', 'airplane'), ('sofa', 'couch'), ('tvmonitor', 'tv'),
                                                 ('motorbike', 'motorcycle'), ('diningtable', 'dining table')])
def test_real_embeddings_have_the_expected_neighbours(name, neighbour):
    """CLIP ViT-B/16's own embeddings of VOC's classes (one prompt) and COCO-Stuff's (fifteen)."""
    voc, coco = (files.read_embeddings(DATA / f'text_embeddings/{file}.npy')
                 for file in ('voc12_single', 'coco_multi'))
    assert voc.shape == (20, 512) and coco.shape == (171, 512) and voc.dtype == torch.float32
    for table in (voc, coco):
        assert (table.norm(dim=1) - 1).abs().max() < 5e-4
    similarity = coco @ voc[PascalVOC20.CLASSES.index(name)]
    assert COCOStuff164k.CLASSES[int(similarity.argmax())] == neighbour


def all_pairs(rows: np.ndarray, cosine: float) -> list[tuple[float, int, int]]:
    """Cosine, class, class, by a table of all classes; the most alike first."""
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    return sorted(((float(cosines[i, j]), i, j) for i in range(len(rows)) for j in range(i + 1, len(rows))
                   if cosines[i, j] >= cosine), reverse=True)


@pytest.mark.parametrize('block', [7, 171, 256])
def test_similar_pairs_are_found_in_blocks(monkeypatch, block):
    """Of COCO-Stuff's real embeddings: the counts that the help of --similar gives."""
    rows = files.read_embeddings(DATA / 'text_embeddings/coco_multi.npy').numpy()
    monkeypatch.setattr(embeddings, 'ROWS', block)
    expected = all_pairs(rows, 0.93)
    assert len(expected) == 39 and len(all_pairs(rows, 0.9)) == 211
    found = similar_pairs(rows, 0.93, most=1000)
    assert [*map(tuple, found.pairs)] == [(i, j) for _, i, j in expected]
    assert found.cosines == pytest.approx([value for value, _, _ in expected], abs=1e-6)
    best = similar_pairs(rows, 0.93, most=5)
    assert np.array_equal(best.pairs, found.pairs[:5])
    for some in (found, best):
        assert some.neighbours.tolist() == np.bincount(found.pairs.ravel(), minlength=171).tolist()
    assert {*np.array(COCOStuff164k.CLASSES)[found.pairs[:2]].ravel()} == {'dining table', 'table', 'rock', 'stone'}
    assert len(similar_pairs(rows[:1], 0.93, most=5).pairs) == 0


# ---- the command

def test_similar_names_need_no_file(call, clip_file, monkeypatch):
    names = BY_NAME['miniature'].CLASSES
    rows = expected(clip_file, names, templates_of('single'))
    pairs = all_pairs(rows, 0.5)
    assert 3 < len(pairs) < 190, 'the test would show little'
    done = call(SCRIPT, 'miniature', '--clip', clip_file, '--similar', 0.5)
    lines = [line.replace(' (unseen)', '').split('\t') for line in done.stdout.splitlines()]
    assert lines == [[f'{value:.3f}', names[i], names[j]] for value, i, j in pairs]
    assert f'{len(pairs)} pairs of 20 classes have a cosine of at least 0.5' in done.stderr
    counts = np.bincount([index for _, *pair in pairs for index in pair], minlength=20)
    assert f'{names[counts.argmax()]} ({counts.max()})' in done.stderr.replace(' (unseen)', '')
    assert 'at least 0.93' in call(SCRIPT, 'miniature', '--clip', clip_file, '--similar').stderr
    total = len(all_pairs(rows, 1e-3))
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
    done = call(SCRIPT, 'miniature', '--clip', clip_file, '--similar', 1e-3)
    assert total > 50 == len(done.stdout.splitlines()) and f'{total} pairs of 20' in done.stderr
    assert '; 50 of them are listed' in done.stderr


@pytest.fixture
def rows_of(output, tmp_path):
    """Runs the command: the embeddings that it writes, and its output."""
    def rows_of(classes, *options) -> tuple[np.ndarray, str]:
        said = output(SCRIPT, classes, '--file', tmp_path / 'new/rows.npy', *options)
        assert [path.name for path in (tmp_path / 'new').iterdir()] == ['rows.npy']
        return np.load(tmp_path / 'new/rows.npy'), said
    return rows_of


def test_a_dataset_by_its_name(rows_of, clip_file):
    rows, said = rows_of('miniature', '--clip', clip_file)
    names = BY_NAME['miniature'].CLASSES
    assert rows.dtype == np.float32
    assert np.abs(rows - expected(clip_file, names, templates_of('single'))).max() < 1e-6
    pair = said.split('most alike: ')[1].split(';')[0].rsplit(' ', 1)
    first, second = (names.index(name.removesuffix(' (unseen)')) for name in pair[0].split(' ~ '))
    assert [name for name in said.split('most alike: ')[1].split() if name == '(unseen)'], 'at least one of the best'
    assert float(pair[1]) == pytest.approx(rows[first] @ rows[second], abs=6e-4)
    similarity = rows @ rows.T - 2 * np.eye(len(rows))
    assert similarity.max() == pytest.approx(rows[first] @ rows[second], abs=1e-6)


def test_names_and_prompts_from_files_by_an_official_checkpoint(rows_of, tmp_path):
    weights, clip = clip_weights(seed=3), tmp_path / 'official.pth'
    torch.save(weights, tmp_path / 'reference.pt')
    torch.save({'state_dict': {f'text_encoder.{name}': value for name, value in weights.items()
                               if name.startswith(TEXT_TOWER)}}, clip)
    (tmp_path / 'names.txt').write_text('sofa, couch\n\ntv\n')
    (tmp_path / 'prompts.txt').write_text('a {} here\n{}\n')
    for options, prompts in ((['--prompts', tmp_path / 'prompts.txt'], ['a {} here', '{}']),
                             ([], templates_of('coco15'))):
        rows, _ = rows_of(tmp_path / 'names.txt', '--clip', clip, *options)
        assert np.abs(rows - expected(tmp_path / 'reference.pt', [['sofa', 'couch'], 'tv'], prompts)).max() < 1e-6


def test_a_config_brings_its_clip_and_classes(rows_of, tiny_configs, clip_file):
    """Four heads of eight, which the weights alone do not tell."""
    encoder = text_encoder_of(files.read(clip_file), {'text_encoder': {'transformer_heads': 4}})
    rows = embed_class_names(encoder, PascalVOC20.CLASSES, templates_of('single')).numpy()
    assert np.abs(rows_of(tiny_configs['inductive'])[0] - rows).max() < 1e-6
    assert np.abs(rows - expected(clip_file, PascalVOC20.CLASSES, templates_of('single'))).max() > 1e-3


@pytest.mark.parametrize(('classes', 'options', 'words'), [
    ('names.txt', [], 'class names occur twice: cat'),
    ('many.txt', ['--clip', 'nowhere.pt'], '70,000 classes: 65,535 at most'),
    ('nowhere.txt', [], 'is not a dataset (voc12, coco, context60,'),
    ('voc12', ['--prompts', 'haiku'], "no prompt set and no text file 'haiku'"),
    ('voc12', ['--clip', 'nowhere.pt'], 'no file nowhere.pt')])
def test_bad_input(fails, clip_file, tmp_path, monkeypatch, classes, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'names.txt').write_text('cat\ncat\n')
    (tmp_path / 'many.txt').write_text('\n'.join(f'thing {index}' for index in range(70_000)))
    assert words in fails(SCRIPT, classes, '--clip', clip_file, '--file', 'rows.npy', *options)
    assert not (tmp_path / 'rows.npy').exists()


@pytest.mark.parametrize(('options', 'words'), [
    ([], 'nothing to do: --file FILE.npy writes the embeddings, --similar lists'),
    (['--similar', 2], "'2' is not a cosine above 0 and at most 1"),
    (['--similar', 'nan'], "'nan' is not a cosine"),
    (['--similar', 'voc12'], "'voc12' is not a cosine above 0 and at most 1. CLASSES comes first")])
def test_a_bad_command_line(call, options, words):
    done = call(SCRIPT, 'voc12', *options, check=False)
    assert done.returncode == 2 and words in done.stderr
