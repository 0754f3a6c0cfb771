"""The table of runs beside the published rows that they compare with, and the table of the published scores."""
import statistics
from collections.abc import Sequence
from pathlib import Path

from prettytable import PrettyTable, TableStyle

from models.weights.published_files import CHECKPOINTS
from tools.results import leaves, published
from tools.results.leaves import Leaf
from tools.results.published import SCORES
from tools.results.runs import Run, leaf_beside, prompts_of

HEAD = 'protocol', 'setting', 'method'
COSTS = 'trained (M)', 's / iteration'
Line = tuple[list[str], str]  # the cells of a line of the table, and a note


def lines_of(runs: Sequence[Run]) -> list[Line]:
    """Make a line of the seeds of each config, and below those of the same task the published rows."""
    tasks: dict[tuple, tuple[Leaf | None, dict[str, list[Run]]]] = {}
    for run in runs:
        leaf, own = leaf_beside(run)
        _, groups = tasks.setdefault((leaf.name if leaf else '', '' if leaf else run.config, *run.kind), (leaf, {}))
        groups.setdefault('' if own else run.config, []).append(run)
    return [line for task in tasks.values() for line in _task(*task)]


def _task(leaf: Leaf | None, groups: dict[str, list[Run]]) -> list[Line]:
    """Make the lines of a task; the runs of a config other than `leaf` have its path as their key."""
    if leaf is None:
        return [_measured(runs, Path(config).name, '-', 'this code') for config, runs in groups.items()]
    head = published.PROTOCOLS.get(leaf.protocol) or leaf.name.removeprefix('configs/'), leaf.setting.replace('_', ' ')
    rows = [row for row in published.ROWS if leaf.protocol in row.protocols and leaf.setting == row.setting]
    if leaf.config.get('published'):
        rows.insert(0, published.Row('CLIP-RC', leaf.setting, (leaf.protocol,), **leaf.config.published))
    printed = [([*head, f'published: {row.method}', *(str(getattr(row, name) or '-') for name in SCORES), '-', '-'],
                row.note) for row in rows]
    return [*(_measured(runs, *head, Path(config).stem or 'this code') for config, runs in groups.items()), *printed]


def _measured(runs: list[Run], protocol: str, setting: str, label: str) -> Line:
    """Make the line of the seeds of one config."""
    label += (f', {len(runs)} run{"s" if len(runs) > 1 else ""}{", six scales" if runs[0].multi_scale else ""}, '
              f'{runs[0].facts["images"]:,} images')
    label += f', {prompts}' if (prompts := prompts_of(runs[0])) else ''
    trained, seconds = [run.facts['trained_parameters'] / 1e6 for run in runs], [run.seconds for run in runs]
    cells = [protocol, setting, label, *(over_seeds([run.scores.get(name) for run in runs]) for name in SCORES),
             f'{statistics.mean(trained):.2f}', '-' if None in seconds else f'{statistics.mean(seconds):.3f}']
    return cells, '; '.join(run.note for run in runs if run.note)


def over_seeds(scores: list[float | None]) -> str:
    """Format fractions in percent, several as mean ± sample standard deviation; '-' unless every run has the score."""
    if None in scores:
        return '-'
    spread = f' ± {100 * statistics.stdev(scores):.1f}' if len(scores) > 1 else ''
    return f'{100 * statistics.mean(scores):.1f}{spread}'


def table(lines: list[Line]) -> str:
    """Make the table in Markdown, with its notes below."""
    notes = list(dict.fromkeys(note for _, note in lines if note))
    made = PrettyTable([*HEAD, *(name.replace('_', ' ') for name in SCORES), *COSTS], align='r')
    made.set_style(TableStyle.MARKDOWN)
    made.align.update(dict.fromkeys(HEAD, 'l'))
    for (protocol, setting, label, *cells), note in lines:
        label += f' [{1 + notes.index(note)}]' if note else ''
        made.add_row([*(text.replace('|', '/') for text in (protocol, setting, label)), *cells])
    numbered = [f'- [{number}] {note}.' for number, note in enumerate(notes, 1)]
    return '\n'.join([made.get_string(), '', 'Scores in percent; of several runs mean ± sample standard deviation.',
                      *numbered])


def published_table() -> str:
    """Make the README's table of CLIP-RC's published scores in percent, with configs and official checkpoints."""
    names = [name.replace('_', ' ') for name in SCORES]
    lines = [f'| dataset, setting | CONFIG | {" | ".join(names)} | the authors\' FILE |', '| --- ' * 7 + '|']
    names_of = {f'configs/{config}.py': key for key, (config, _) in CHECKPOINTS.items()}
    for name, url in published.OFFICIAL.items():
        leaf = leaves.leaves()[name]
        cells = [f'{published.SHORT[leaf.protocol]}, {leaf.setting.replace("_", " ")}',
                 f'`{name.removeprefix("configs/")}`', *(str(leaf.config.published[score]) for score in SCORES),
                 f'[{names_of[name]}]({url})']
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)
