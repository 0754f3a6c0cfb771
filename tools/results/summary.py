"""The table of runs beside the published rows that they compare with, and the table of the published scores."""
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prettytable import PrettyTable, TableStyle

from tools.results import leaves, published
from tools.results.leaves import Leaf
from tools.results.published import SCORES
from tools.results.runs import Run, leaf_beside, own_leaf

HEAD = 'protocol', 'setting', 'method'
COSTS = {'trained_parameters': 'trained (M)', 'seconds': 's / iteration'}  # shown where they are known
SPREAD = 'Scores in percent; of several runs mean ± sample standard deviation.'


class Line(NamedTuple):
    """A line of the table; `cells` holds the texts of scores and costs, by name, without those that are unknown."""
    protocol: str
    setting: str
    label: str
    cells: dict[str, str]
    note: str = ''


def lines_of(runs: Sequence[Run]) -> list[Line]:
    """Make a line of the seeds of each config, and below those of the same task the published rows."""
    tasks: dict[tuple, dict[tuple, list[Run]]] = {}
    for run in runs:
        own, beside = own_leaf(run), leaf_beside(run)
        task = tasks.setdefault((beside is None, beside.name if beside else run.config, *run.kind), {})
        task.setdefault((own is None, own.name if own else run.config), []).append(run)
    return [line for task in tasks.values() for line in _task(list(task.values()))]


def _task(groups: list[list[Run]]) -> list[Line]:
    first = groups[0][0]
    leaf = leaf_beside(first)
    if leaf is None:
        return [_measured(group, leaf, Path(first.config).name, '-') for group in groups]
    protocol = published.PROTOCOLS.get(leaf.protocol) or leaf.name.removeprefix('configs/')
    setting = leaf.setting.replace('_', ' ')
    rows = published.others(leaf.protocol, leaf.setting)
    if leaf.config.get('published'):
        note = published.NOTES.get((leaf.protocol, leaf.setting), '')
        rows.insert(0, published.Row('CLIP-RC', leaf.setting, (leaf.protocol,), note=note,
                                     **{name: leaf.config.published.get(name) for name in SCORES}))
    return [_measured(group, leaf, protocol, setting) for group in groups] + [
        Line(protocol, setting, f'published: {row.method}', _printed(row), row.note) for row in rows]


def _measured(runs: list[Run], beside: Leaf | None, protocol: str, setting: str) -> Line:
    """Make the line of the seeds of one config."""
    first, images = runs[0], runs[0].facts.get('images')
    label = 'this code' if beside is None or own_leaf(first) else Path(first.config).stem
    label += f', {len(runs)} run{"s" if len(runs) > 1 else ""}{", six scales" if first.multi_scale else ""}'
    label += '' if images is None else f', {images:,} images'
    cells = {name: text for name in SCORES if (text := over_seeds([run.scores.get(name) for run in runs]))}
    costs = {'trained_parameters': ([run.facts.get('trained_parameters') for run in runs], '{:.2f}', 1e-6),
             'seconds': ([run.seconds for run in runs], '{:.3f}', 1)}
    for name, (known, form, scale) in costs.items():
        if None not in known:
            cells[name] = form.format(scale * statistics.mean(known))
    return Line(protocol, setting, label, cells, '; '.join(run.note for run in runs if run.note))


def over_seeds(scores: list[float | None]) -> str:
    """Format fractions in percent, several as mean ± sample standard deviation; '' unless every run has the score."""
    if None in scores:
        return ''
    spread = f' ± {100 * statistics.stdev(scores):.1f}' if len(scores) > 1 else ''
    return f'{100 * statistics.mean(scores):.1f}{spread}'


def _printed(row: published.Row) -> dict[str, str]:
    scores = {name: getattr(row, name) for name in SCORES}
    return {name: f'{score[0]} to {score[1]}' if isinstance(score, tuple) else str(score)
            for name, score in scores.items() if score is not None}


def table(lines: list[Line]) -> str:
    """Make the table in Markdown, with its notes below."""
    names = {name: name.replace('_', ' ') for name in SCORES}
    names |= {name: title for name, title in COSTS.items() if any(name in line.cells for line in lines)}
    notes = list(dict.fromkeys(line.note for line in lines if line.note))
    made = PrettyTable([*HEAD, *names.values()], align='r')
    made.set_style(TableStyle.MARKDOWN)
    made.align.update(dict.fromkeys(HEAD, 'l'))
    for line in lines:
        label = line.label + (f' [{1 + notes.index(line.note)}]' if line.note else '')
        made.add_row([*(text.replace('|', '/') for text in (line.protocol, line.setting, label)),
                      *(line.cells.get(name, '-') for name in names)])
    numbered = [f'- [{number}] {note}.' for number, note in enumerate(notes, 1)]
    return '\n'.join([made.get_string(), '', SPREAD, *numbered])


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
