#!/usr/bin/env python3
"""Writes the table of README.md beside it anew: the packages that tested.lock pins, and their licences as installed."""
import argparse
import re
import sys
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # this repository's `tools`, whoever else has one
from tools.engine import process

HERE = Path(__file__).resolve().parent
LOCK, PAGE = HERE / 'tested.lock', HERE / 'README.md'
HEADER = '| package | version | licence |\n| --- | --- | --- |\n'
LONGEST = 60  # characters: some packages' field holds the whole text of the licence


def pins(lock: str) -> dict[str, str]:
    """Names of packages, and the versions that the text of a lock pins them to."""
    return dict(re.findall(r'^([a-z\d][\w.-]*)==(\S+)', lock, flags=re.MULTILINE))


def licence(package: Message) -> str:
    """What a package's metadata say: the expression, else the field where it is a name, else the classifiers."""
    classifiers = [text.split(' :: ')[-1] for text in package.get_all('Classifier', []) if text.startswith('License :')]
    field = (package['License-Expression'] or package['License'] or '').strip()
    if field in ('', 'UNKNOWN') or '\n' in field or len(field) > LONGEST:
        field = ', '.join(classifiers)
    return field or 'none stated'


def table(lock: str) -> str:
    """ValueError where another version than the lock's is installed, or none."""
    rows = []
    for name, version in pins(lock).items():
        try:
            package = metadata(name)
        except PackageNotFoundError:
            raise ValueError(f'{name} is not installed: run this in the environment of tested.lock '
                             '(bash tools/setup_env.sh)') from None
        if package['Version'] != version:
            raise ValueError(f'{name} {package["Version"]} is installed, tested.lock pins {version}: run this in its '
                             'environment (bash tools/setup_env.sh)')
        rows.append(f'| {name} | {version} | {licence(package)} |\n')
    return HEADER + ''.join(rows)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    text, _, _ = PAGE.read_text().partition(HEADER)
    PAGE.write_text(text + table(LOCK.read_text()))


if __name__ == '__main__':
    process.run(main)
