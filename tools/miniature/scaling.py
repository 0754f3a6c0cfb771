#!/usr/bin/env python3
"""Draw scores against length, images, CLIP and masks: `python tools/miniature/scaling.py RESULTS.json --out DIR`.

Reads results as in tests/data/miniature_results.json, of any number of seeds, and writes miniature_scaling.png.
"""
import argparse
import json
import math
import statistics
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # so that `datasets` and `tools` are this repository's
from tools.engine.errors import run

CLIPS = {'clip_short': 'trained a\nquarter', 'clip': 'as shipped'}
MASKS = {'inductive': 'of seen\nclasses', 'fully': 'of all\nclasses'}


def groups(results: dict[str, dict], of: str) -> dict[object, list[dict[str, float]]]:
    """Collect the scores of all seeds by one fact of their runs, such as 'iterations'; other facts are the usual ones.

    The usual facts are those of the run 'inductive_0'. Ablations do not count, nor do other tests of a run, such as
    'inductive_0, unseen names swapped'.
    """
    usual, found = results['inductive_0'], {}
    for name, result in results.items():
        same = all(result[fact] == usual[fact] for fact in ('setting', 'iterations', 'images', 'clip') if fact != of)
        if same and ', ' not in name and (result['clip'] != usual['clip'] or not result['options']):
            found.setdefault(result[of], []).append(result['scores'])
    return found


def draw(results: dict[str, dict], file: Path) -> None:
    """Draw means over seeds, with bars of one sample standard deviation; lines join numbers, not categories."""
    from matplotlib.ticker import FixedLocator, NullLocator

    from datasets.metrics import OF_SPLITS
    from models.colours import BOTH, SEEN, UNSEEN
    from tools.engine.plots import plot
    titles = {'iterations': 'iterations', 'images': 'images for training', 'clip': 'CLIP', 'setting': 'masks'}
    categories = {'clip': CLIPS, 'setting': MASKS}
    with plot(file, (12, 3.4)) as figure:
        panels = figure.subplots(1, len(titles), sharey=True)
        for panel, (fact, title) in zip(panels, titles.items(), strict=True):
            found = groups(results, fact)
            names = categories.get(fact)
            keys = sorted(found) if names is None else [key for key in names if key in found]
            for shift, name, colour in zip((-0.12, 0, 0.12), OF_SPLITS, (SEEN, UNSEEN, BOTH)):
                values = [[100 * scores[name] for scores in found[key]] for key in keys]
                places = keys if names is None else [place + shift for place in range(len(keys))]
                panel.errorbar(places, [*map(statistics.mean, values)], [
                    statistics.stdev(each) if len(each) > 1 else math.nan for each in values], marker='o', color=colour,
                    elinewidth=1, linestyle='-' if names is None else 'none', label=name.replace('_', ' '))
            if names is None:
                panel.set_xscale('log', base=2)
                panel.xaxis.set_major_locator(FixedLocator(keys))
                panel.xaxis.set_minor_locator(NullLocator())
                panel.xaxis.set_major_formatter('{x:,.0f}')
            else:
                panel.set_xticks(range(len(keys)), [names[key] for key in keys])
                panel.set_xlim(-0.5, len(keys) - 0.5)
            panel.set(title=title, ylim=(0, 100))
        panels[0].set_ylabel('percent')
        figure.legend(*panels[0].get_legend_handles_labels(), loc='outside right upper')


def main() -> None:
    parser = argparse.ArgumentParser(description='Draw scores of the miniature against length, images, CLIP and masks.')
    parser.add_argument('results', type=Path, help='JSON file of results')
    parser.add_argument('--out', type=Path, metavar='DIR', default='work_dirs', help='(default: %(default)s)')
    args = parser.parse_args()

    from models.errors import UserError
    from tools.engine.files import make_folder
    try:
        results = json.loads(args.results.read_text())
        draw(results, make_folder(args.out) / 'miniature_scaling.png')
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'{args.results} does not hold results as tests/data/miniature_results.json does: {error!r}'
                        ) from error


if __name__ == '__main__':
    run(main)
