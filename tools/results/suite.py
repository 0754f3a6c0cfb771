"""The open-vocabulary suite: which of its datasets are left to test, and the table of its results."""
import argparse
import json
import os
import shlex
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from prettytable import PrettyTable, TableStyle

from datasets.overlap import VOCABULARIES
from models.errors import UserError
from tools.engine.build import dataset_facts
from tools.engine.config import REPOSITORY, dataset_configs, load_config
from tools.engine.data import evaluation_dataset, use_several_scales
from tools.engine.errors import plain_message
from tools.engine.same_test import identity
from tools.engine.validation_images import VALIDATION_IMAGES
from tools.results.published import CAT_SEG_TRAINING, ROWS

FAMILY = 'A-847, PC-459 and PAS-20b are not published for ZegCLIP, CLIP-RC or the methods that build on them'


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


def table(found: dict[str, dict[str, Any]]) -> str:
    """Lay the results out in Markdown, a column for each dataset."""
    made = PrettyTable(['mIoU in percent', *(entry['title'] for entry in found.values())], align='r')
    made.set_style(TableStyle.MARKDOWN)
    made.align['mIoU in percent'] = 'l'
    methods = [*dict.fromkeys(method for entry in found.values() for method in entry['published']
                              if method.startswith('CAT-Seg'))]
    for head, cell in {
            'this checkpoint': lambda entry: percent(entry['mIoU']) + mark(entry),
            'this checkpoint, new classes': new_classes,
            **dict.fromkeys(methods), 'images': lambda entry: f'{entry["images"]:,} of {entry["images_of_dataset"]:,}',
            'prompts': prompts, 'classes named in training': share}.items():
        made.add_row([head, *(str(entry['published'].get(head, '-')) if cell is None else
                              '-' if 'missing' in entry else cell(entry) for entry in found.values())])
    return made.get_string()


def new_classes(entry: dict[str, Any]) -> str:
    """Write the mean over the new classes, and their number."""
    if entry['overlap'] is None:
        return 'unknown'
    return f'{percent(entry["mIoU_new"])}{mark(entry)} ({len(entry["overlap"]["new"])})'


def mark(entry: dict[str, Any]) -> str:
    """Mark a score of some of the images."""
    return '' if complete(entry) else ' *'


def percent(score: float | None) -> str:
    """Format a fraction in percent; '-' for none."""
    return '-' if score is None else f'{100 * score:.1f}'


def complete(entry: dict[str, Any]) -> bool:
    """Tell whether all images of a dataset were tested."""
    return entry['images'] == entry['images_of_dataset']


def prompts(entry: dict[str, Any]) -> str:
    """Name the prompt set of a test."""
    if entry['text_embeddings']:
        return Path(entry['text_embeddings']).name
    return entry['prompt_set'] if isinstance(entry['prompt_set'], str) else f'{len(entry["prompt_set"])} own'


def share(entry: dict[str, Any]) -> str:
    """Write how many of the classes were named in training."""
    if entry['overlap'] is None:
        return 'unknown'
    known, new = (len(entry['overlap'][name]) for name in ('known', 'new'))
    return f'{known} of {known + new}, {known / (known + new):.0%}'


def notes(found: dict[str, dict[str, Any]], checkpoint: str, args: argparse.Namespace) -> list[str]:
    """Say below the table what its numbers are of, and with what they do not compare."""
    tested = [entry for entry in found.values() if 'missing' not in entry]
    iteration, overlap = tested[0]['iteration'], tested[0]['overlap']
    lines = [f'{checkpoint}{"" if iteration is None else f", iteration {iteration:,}"}, SHA-256 '
             f'{tested[0]["identity"]["checkpoint"][:16]}...']
    if overlap is None:
        lines.append('The checkpoint does not say which classes it was trained on.')
    else:
        training = overlap['training']
        lines.append(f'Its training: {training["setting"].replace("_", " ")}, with the names of '
                     f'{training["classes_used"]} of the {training["classes"]} classes of '
                     f'{training["dataset"] or "a dataset that is none of this repository"}.')
    options = [*(['--cfg-options', *args.cfg_options] if args.cfg_options else []),
               *(['--aug-test'] if args.aug_test else [])]
    if options:
        lines.append(f'Options: {shlex.join(options)}.')
    if not all(map(complete, tested)):
        lines.append('Marked *: not all images of the dataset. The number does not compare.')
    own = [f'{part.title} {shlex.join(options)}' for part in SUITE if (options := options_of(part))]
    if own:
        lines.append(f'Options of single datasets: {"; ".join(own)}.')
    lines += ['-: not tested, not published, or no pixel of such a class.',
              'New classes (their number): the training had neither their name nor a synonym of it, as the lists in '
              'open_vocabulary.json show. Singular and plural, wider and narrower terms are different names.',
              f'{CAT_SEG_TRAINING}; its rows are those of its README.', f'{FAMILY}.']
    return lines + [f'{entry["title"]}: {entry["missing"]}.' for entry in found.values() if 'missing' in entry]
