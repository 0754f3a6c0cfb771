"""tools/text_embeddings.py: class names and prompts of all sources, text encoders of any CLIP; real embeddings."""
import json

import numpy as np
import pytest
import torch

from datasets import BY_NAME, COCOStuff164k, PascalVOC20
from models.class_names import PROMPT_SETS, templates_of
from models.text_encoder import embed_class_names, tokenize
from models.weights import files
from models.weights.clip_variant import text_encoder_of
from models.weights.names import TEXT_TOWER
from tests.clip_files import clip_weights
from tests.conftest import REPOSITORY

SCRIPT = 'tools/text_embeddings.py'
DATA = REPOSITORY / 'tests/data'


def expected(clip, names, templates) -> np.ndarray:
    return embed_class_names(text_encoder_of(files.read(clip)), names, templates).numpy()


# ---- against reality

def test_token_ids_are_those_of_clip():
    """All class names in use and all prompts, recorded from OpenAI's own tokenizer."""
    recorded = json.loads((DATA / 'clip_token_ids.json').read_text())['ids']
    known = {name for cls in BY_NAME.values() for name in cls.CLASSES}
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


# ---- the command

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
    ('nowhere.txt', [], 'is not a dataset (voc12, coco, context60,'),
    ('voc12', ['--prompts', 'haiku'], "no prompt set and no text file 'haiku'"),
    ('voc12', ['--clip', 'nowhere.pt'], 'no file nowhere.pt')])
def test_bad_input(fails, clip_file, tmp_path, monkeypatch, classes, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'names.txt').write_text('cat\ncat\n')
    assert words in fails(SCRIPT, classes, '--clip', clip_file, '--file', 'rows.npy', *options)
    assert not (tmp_path / 'rows.npy').exists()
