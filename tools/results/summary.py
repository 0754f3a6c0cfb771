"""The table of runs beside the published rows that they compare with, and the table of the published scores."""
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmseg.datasets import DATASETS
from prettytable import PrettyTable, TableStyle

from tools.preparation.sources import BENCHMARKS
from tools.results import leaves, published
from tools.results.leaves import Leaf
from tools.results.published import SCORES
from tools.results.runs import Run, leaf_beside, own_leaf

HEAD = 'protocol', 'setting', 'method'
COSTS = {'trained_parameters': 'trained (M)', 'seconds': 's / iteration'}  # shown where they are known
SPREAD = 'Scores in percent; of several runs mean ± sample standard deviation.'


class Value(NamedTuple):
    """A score in percent or a cost: the centre and half width of its bar, and its text."""
    centre: float
    half: float
    text: str


class Line(NamedTuple):
    """A line of the table; scores and costs that do not exist are not in `values`."""
    measured: bool
    label: str
    values: dict[str, Value]
    note: str = ''


class Block(NamedTuple):
    """The seeds of one config and of others of the same task, and the published rows that they compare with."""
    protocol: str
    setting: str
    runs: list[Run]
    lines: list[Line]


def blocks(runs: Sequence[Run]) -> list[Block]:
    """Group runs of the same config and of comparable ones, in the order in which they were named."""
    found: dict[tuple, dict[tuple, list[Run]]] = {}
    for run in runs:
        own, beside = own_leaf(run), leaf_beside(run)
        block = found.setdefault((beside is None, beside.name if beside else run.config, *run.kind), {})
        block.setdefault((own is None, own.name if own else run.config), []).append(run)
    return [_block(list(groups.values())) for groups in found.values()]


def _block(groups: list[list[Run]]) -> Block:
    runs = [run for group in groups for run in group]
    leaf = leaf_beside(runs[0])
    lines = [_measured(group, leaf) for group in groups]
    if leaf is None:
        return Block(Path(runs[0].config).name, '-', runs, lines)
    rows = published.others(leaf.protocol, leaf.setting)
    if leaf.config.get('published'):
        note = published.NOTES.get((leaf.protocol, leaf.setting), '')
        rows.insert(0, published.Row('CLIP-RC', leaf.setting, (leaf.protocol,), note=note,
                                     **{name: leaf.config.published.get(name) for name in SCORES}))
    for row in rows:
        values = {name: _printed(score) for name in SCORES if (score := getattr(row, name)) is not None}
        lines.append(Line(False, f'published: {row.method}', values, row.note))
    protocol = published.PROTOCOLS.get(leaf.protocol) or leaf.name.removeprefix('configs/')
    return Block(protocol, leaf.setting.replace('_', ' '), runs, lines)


def _measured(runs: list[Run], beside: Leaf | None) -> Line:
    """Make the line of the seeds of one config."""
    first, images, all_images = runs[0], runs[0].facts.get('images'), _images_of(beside)
    label = 'this code' if beside is None or own_leaf(first) else Path(first.config).stem
    label += f', {len(runs)} run{"s" if len(runs) > 1 else ""}{", six scales" if first.multi_scale else ""}'
    if images not in (None, all_images):
        label += f', {images:,}{f" of {all_images:,}" if all_images else ""} images'
    values = {name: value for name in SCORES if (value := over_seeds(runs, name))}
    costs = {'trained_parameters': ([run.facts.get('trained_parameters') for run in runs], '{:.2f}', 1e-6),
             'seconds': ([run.seconds for run in runs], '{:.3f}', 1)}
    for name, (known, form, scale) in costs.items():
        if None not in known:
            mean = scale * statistics.mean(known)
            values[name] = Value(mean, 0., form.format(mean))
    return Line(True, label, values, '; '.join(run.note for run in runs if run.note))


def _images_of(leaf: Leaf | None) -> int | None:
    """Return the number of images that a benchmark's published scores are of; None for other datasets."""
    dataset = DATASETS.get(leaf.config.data.test.type) if leaf else None
    return next((split.count for benchmark in BENCHMARKS.values() for split in benchmark.splits
                 if dataset and issubclass(dataset, DATASETS.get(benchmark.dataset)) and split.name == 'val'), None)


def over_seeds(runs: list[Run], name: str) -> Value | None:
    """Return mean and sample standard deviation of a score; None unless every run has it."""
    scores = [run.scores.get(name) for run in runs]
    if None in scores:
        return None
    mean = 100 * statistics.mean(scores)
    if len(scores) == 1:
        return Value(mean, 0., f'{mean:.1f}')
    spread = 100 * statistics.stdev(scores)
    return Value(mean, spread, f'{mean:.1f} ± {spread:.1f}')


def _printed(score: float | tuple[float, float]) -> Value:
    if isinstance(score, tuple):
        return Value(sum(score) / 2, (score[1] - score[0]) / 2, f'{score[0]} to {score[1]}')
    return Value(score, 0., str(score))


def table(found: list[Block]) -> str:
    """Make the table in Markdown, with its notes below."""
    lines = [(block, line) for block in found for line in block.lines]
    names = {name: name.replace('_', ' ') for name in SCORES}
    names |= {name: title for name, title in COSTS.items() if any(name in line.values for _, line in lines)}
    notes = list(dict.fromkeys(line.note for _, line in lines if line.note))
    rows = []
    for block, line in lines:
        label = line.label + (f' [{1 + notes.index(line.note)}]' if line.note else '')
        rows.append([*(text.replace('|', '/') for text in (block.protocol, block.setting, label)),
                     *(line.values[name].text if name in line.values else '-' for name in names)])
    numbered = [f'- [{number}] {note}.' for number, note in enumerate(notes, 1)]
    made = PrettyTable([*HEAD, *names.values()], align='r')
    made.set_style(TableStyle.MARKDOWN)
    made.align.update(dict.fromkeys(HEAD, 'l'))
    made.add_rows(rows)
    return '\n'.join([made.get_string(), '', SPREAD, *numbered])


def markdown(found: list[Block], image: str) -> str:
    """Make a page of the table, the runs behind it, and the image."""
    sources = [f'- {block.protocol}, {block.setting}: ' +
               ', '.join(f'`{Path(run.config).name}` from `{run.folder}`' for run in block.runs) for block in found]
    return '\n'.join(['# Scores', '', table(found), '', *sources, '', f'![Scores as an image]({image})', ''])


def published_table() -> str:
    """Make the README's table of CLIP-RC's published scores in percent, with configs and official checkpoints."""
    names = [name.replace('_', ' ') for name in SCORES]
    lines = [f'| dataset, setting | CONFIG | {" | ".join(names)} | the authors\' FILE |', '| --- ' * 7 + '|']
    for name, url in published.OFFICIAL.items():
        leaf = leaves.leaves()[name]
        cells = [f'{published.SHORT[leaf.protocol]}, {leaf.setting.replace("_", " ")}',
                 f'`{name.removeprefix("configs/")}`', *(str(leaf.config.published[score]) for score in SCORES),
                 f'[download]({url})']
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)
