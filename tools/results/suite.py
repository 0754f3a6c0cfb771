"""The open-vocabulary suite: which of its datasets are left to test, and the results of the others."""
import argparse
import json
import os
import shlex
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from datasets.overlap import VOCABULARIES
from models.errors import UserError
from models.weights.clip_sizes import fill_in
from models.weights.files import Checkpoint
from tools.engine.build import dataset_facts
from tools.engine.config import REPOSITORY, dataset_configs, load_config
from tools.engine.data import evaluation_dataset, use_several_scales
from tools.engine.errors import plain_message
from tools.engine.same_test import identity
from tools.engine.validation_images import VALIDATION_IMAGES
from tools.results.published import ROWS

COPIED = 'images', 'prompt_set', 'text_embeddings', 'overlap', 'iteration', 'file', 'identity'  # from a test's JSON


class Part(NamedTuple):
    """A dataset of the suite.

    Args:
        name: its config is configs/cross_dataset/coco_to_NAME.py.
        title: its name in papers.
        benchmark: its name in tools/prepare_data.py.
    """
    name: str
    title: str
    benchmark: str


SUITE = (Part('ade847', 'A-847', 'ade20k_full'), Part('context459', 'PC-459', 'context459'),
         Part('ade20k150', 'A-150', 'ade20k'), Part('context59', 'PC-59', 'context'), Part('voc20', 'PAS-20', 'voc12'),
         Part('voc20b', 'PAS-20b', 'voc20b'))


class Prepared(NamedTuple):
    """A dataset that can be tested.

    Args:
        root: its folder.
        options: KEY=VALUE for this dataset alone.
        images: their number.
        identity: of its test, see `same_test.identity`, with the SHA-256 of the checkpoint.
    """
    root: str
    options: list[str]
    images: int
    identity: dict[str, str]


def check_model(checkpoint: Checkpoint, options: list[str]) -> None:
    """Check that a checkpoint is of the CLIP of the suite's configs, before any data are read.

    Raises:
        UserError: it is not.
    """
    fill_in(load_config(REPOSITORY / f'configs/cross_dataset/coco_to_{SUITE[0].name}.py', options), checkpoint)


def prepared(part: Part, args: argparse.Namespace, data: Path, checkpoint: str) -> Prepared | str:
    """Return the dataset of a part, or the reason why it cannot be tested.

    Args:
        data: folder of all datasets.
        checkpoint: SHA-256 of the file.

    Raises:
        UserError: an option does not fit the config.
    """
    file = REPOSITORY / f'configs/cross_dataset/coco_to_{part.name}.py'
    root, options = str(data / usual_root(file).relative_to(REPOSITORY / 'data')), options_of(part)
    config = load_config(file, [*args.cfg_options, *options], root)
    if args.aug_test:
        use_several_scales(config)
    dataset_facts(config)  # raises for class names and prompts of the options
    try:
        dataset = evaluation_dataset(config, 'test', scored=True)
    except UserError as error:
        return plain_message(error).split('. ')[0]  # its remedy is that of test.py
    return Prepared(root, options, len(dataset), {'checkpoint': checkpoint, **identity(config, dataset)})


def options_of(part: Part) -> list[str]:
    """Return the KEY=VALUE options of one dataset, from NAMES and OPTIONS_<name> in the environment.

    Raises:
        UserError: NAMES is another word than 'cleaned', or an option is none.
    """
    names = os.environ.get('NAMES', '')
    if names not in ('', 'cleaned'):
        raise UserError(f'NAMES={names}: cleaned is possible, or nothing for the names of the datasets.')
    cleaned = [f'data.test.classes={VOCABULARIES / "cleaned" / part.name}.txt'] if names else []
    own = shlex.split(os.environ.get(f'OPTIONS_{part.name}', ''))
    if wrong := [option for option in own if '=' not in option]:
        raise UserError(f'OPTIONS_{part.name}: KEY=VALUE is needed, not {wrong[0]!r}.')
    return cleaned + own


@cache
def usual_root(config: Path) -> Path:
    """Return the folder of the test data that a config names."""
    return Path(next(dataset_configs(load_config(config).data.test)).data_root)


def result_of(folder: Path, sought: dict[str, str]) -> dict[str, Any] | None:
    """Return the newest result of this very test in a folder, with its `file`; None if there is none."""
    for file in sorted(folder.glob('eval_*.json'), key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            facts = json.loads(file.read_text())
        except (ValueError, OSError):  # of a test that was killed while it wrote, or no file
            continue
        if isinstance(facts, dict) and facts.get('identity') == sought and facts.keys() >= {*COPIED} - {'file'} and \
                isinstance(facts.get('metric'), dict) and 'mIoU' in facts['metric']:
            return {**facts, 'file': str(file)}
    return None


def plan(parts: dict[Part, Prepared | str], work: Path, data: Path) -> tuple[list[str], str]:
    """Return a line for each dataset that is left to test, its name, folder and options; and a report on all.

    Raises:
        UserError: none is prepared.
    """
    lines, report = [], []
    for part, found in parts.items():
        if isinstance(found, str):
            state = f'not prepared: {found}\n    {preparation(part, data)}'
        elif result := result_of(work / part.name, found.identity):
            state = f'tested before: {result["file"]}'
        else:
            state = f'{found.images:,} of {VALIDATION_IMAGES[part.benchmark]:,} images to test'
            lines.append('\t'.join([part.name, found.root, *found.options]))
        report.append(f'{part.title}: {state}\n')
    if all(isinstance(found, str) for found in parts.values()):
        raise UserError(f'none of the six datasets is prepared in {data}:\n{"".join(report)}Prepare one, or name '
                        'another folder with DATA=DIR.')
    return lines, ''.join(report)


def preparation(part: Part, data: Path) -> str:
    """Return the command that prepares a dataset."""
    download = [] if part.benchmark == 'ade20k_full' else ['--download']  # that is given to account holders only
    return shlex.join(['python', 'tools/prepare_data.py', part.benchmark, '--root', str(data), *download])


def results(parts: dict[Part, Prepared | str], work: Path, data: Path) -> dict[str, dict[str, Any]]:
    """Return the result of each dataset, or why there is none, as plain values by the name of its config."""
    found = {}
    for part, state in parts.items():
        test = None if isinstance(state, str) else result_of(work / part.name, state.identity)
        entry = {'title': part.title, 'images_of_dataset': VALIDATION_IMAGES[part.benchmark],
                 'published': {row.method: row.mIoU_seen for row in ROWS if row.protocols == (f'cross_{part.name}',)}}
        if test is None:
            found[part.name] = entry | {'missing': f'not prepared, {state}: `{preparation(part, data)}`' if isinstance(
                state, str) else 'not tested with this checkpoint, these settings and data'}
        else:
            found[part.name] = entry | {name: test['metric'].get(name) for name in ('mIoU', 'mIoU_known', 'mIoU_new')
                                        } | {name: test[name] for name in COPIED}
    return found
