"""tools/text_embeddings.py: class names and prompts of all sources, text encoders of any CLIP; real embeddings."""
import json

import numpy as np
import pytest
import torch

from datasets import BY_NAME, COCOStuff164k, PascalVOC20
from models.class_names import PROMPT_SETS, templates_of
from models.text_encoder import CLIPTextEncoder, embed_class_names, tokenize
from models.weights import files
from models.weights.clip import text_tower
from models.weights.names import TEXT_TOWER
from tests.clip_files import clip_weights
from tests.conftest import REPOSITORY

SCRIPT = 'tools/text_embeddings.py'
DATA = REPOSITORY / 'tests/data'


def expected(clip, names, templates) -> np.ndarray:
    tower = text_tower(files.read(clip))
    return embed_class_names(CLIPTextEncoder.like(tower), names, templates).numpy()


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

def test_a_dataset_by_its_name(output, clip_file, tmp_path):
    said = output(SCRIPT, 'miniature', '--clip', clip_file, '--file', tmp_path / 'new/rows.npy')
    rows = np.load(tmp_path / 'new/rows.npy')
    names = BY_NAME['miniature'].CLASSES
    assert rows.dtype == np.float32
    assert np.abs(rows - expected(clip_file, names, templates_of('single'))).max() < 1e-6
    pair = said.split('most alike: ')[1].split(';')[0].rsplit(' ', 1)
    first, second = (names.index(name) for name in pair[0].split(' ~ '))
    assert float(pair[1]) == pytest.approx(rows[first] @ rows[second], abs=6e-4)
    similarity = rows @ rows.T - 2 * np.eye(len(rows))
    assert similarity.max() == pytest.approx(rows[first] @ rows[second], abs=1e-6)
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == ['rows.npy']


def test_names_with_synonyms_and_prompts_from_files(output, clip_file, tmp_path):
    (tmp_path / 'names.txt').write_text('sofa, couch\n\ntv\n')
    (tmp_path / 'prompts.txt').write_text('a {} here\n{}\n')
    output(SCRIPT, tmp_path / 'names.txt', '--prompts', tmp_path / 'prompts.txt', '--clip', clip_file, '--file',
        tmp_path / 'rows.npy')
    rows = expected(clip_file, [['sofa', 'couch'], 'tv'], ['a {} here', '{}'])
    assert np.abs(np.load(tmp_path / 'rows.npy') - rows).max() < 1e-6


def test_a_config_brings_its_clip_and_classes(output, tiny_configs, clip_file, tmp_path):
    """Four heads of eight, which the weights alone do not tell."""
    output(SCRIPT, tiny_configs['inductive'], '--file', tmp_path / 'rows.npy')
    tower = text_tower(files.read(clip_file))
    rows = embed_class_names(CLIPTextEncoder.like(tower, 4), PascalVOC20.CLASSES, templates_of('single')).numpy()
    assert np.abs(np.load(tmp_path / 'rows.npy') - rows).max() < 1e-6
    assert np.abs(rows - expected(clip_file, PascalVOC20.CLASSES, templates_of('single'))).max() > 1e-3


def test_an_official_checkpoint_holds_a_text_tower(output, tmp_path):
    weights = clip_weights(seed=3)
    torch.save({'state_dict': {f'text_encoder.{name}': value for name, value in weights.items()
                               if name.startswith(TEXT_TOWER)}}, tmp_path / 'file.pth')
    (tmp_path / 'names.txt').write_text('cat\ndog\n')
    output(SCRIPT, tmp_path / 'names.txt', '--clip', tmp_path / 'file.pth', '--file', tmp_path / 'rows.npy')
    torch.save(weights, tmp_path / 'reference.pt')
    rows = expected(tmp_path / 'reference.pt', ['cat', 'dog'], templates_of('coco15'))
    assert np.abs(np.load(tmp_path / 'rows.npy') - rows).max() < 1e-6


@pytest.mark.parametrize(('names', 'options', 'words'), [
    ('cat\ncat\n', [], 'class names occur twice: cat'),
    ('', [], 'names.txt is empty'),
    (None, [], 'is not a dataset (voc12, coco_stuff164k,'),
    ('cat\n', ['--prompts', 'haiku'], "no prompt set and no text file 'haiku'"),
    ('cat\n', ['--prompts', 'bad.txt'], "prompt 'a photo': it needs one {}"),
    ('cat\n', ['--clip', 'nowhere.pt'], 'no file nowhere.pt'),
    ('cat\n', ['--clip', 'bad.txt'], "bad.txt is not a checkpoint: it is a text file that begins 'a photo'"),
])
def test_bad_input(fails, clip_file, tmp_path, names, options, words):
    (tmp_path / 'bad.txt').write_text('a photo\n')
    if names is not None:
        (tmp_path / 'names.txt').write_text(names)
    options = [tmp_path / option if option == 'bad.txt' else option for option in options]
    defaults = {'--clip': clip_file, '--file': tmp_path / 'rows.npy'}
    defaults |= dict(zip(options[::2], options[1::2]))
    assert words in fails(SCRIPT, tmp_path / 'names.txt', *(word for pair in defaults.items() for word in pair))
    assert not (tmp_path / 'rows.npy').exists()
