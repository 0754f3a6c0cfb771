"""The table of the open-vocabulary suite, from the entries of `suite.results`, and the notes below it."""
import argparse
import shlex
from pathlib import Path
from typing import Any

from prettytable import PrettyTable, TableStyle

from tools.results.published import CAT_SEG_TRAINING
from tools.results.suite import SUITE, options_of

FAMILY = 'A-847, PC-459 and PAS-20b are not published for ZegCLIP, CLIP-RC or the methods that build on them'


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
