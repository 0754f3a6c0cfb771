"""Join mmcv-full's C++ sources into four units, so that torch's headers are parsed four times instead of 73.

    python tools/environment/join_sources.py FOLDER    the unpacked source archive

That parsing takes most of the compilation. Each unit includes its sources one after another. They are renamed to
`.hpp`, as setup.py compiles every `.cpp`, and the archive's own list of files keeps them in the wheel.
"""
import sys
from pathlib import Path

# In one unit, without the other implementations for the CPU: they define names that those define, too.
APART = ('cpu/psamask.cpp', 'cpu/roi_align_rotated.cpp', 'cpu/rotated_feature_align.cpp')


def join(folder: Path) -> None:
    def size(unit: list[Path]) -> int:
        return sum(source.stat().st_size + 3000 for source in unit)

    sources = [*folder.glob('*.cpp'), *folder.glob('cpu/*.cpp')]
    units = [[folder / name for name in APART], [], [], []]
    for source in sorted(sources, key=lambda source: (-source.stat().st_size, source)):
        if source not in units[0]:
            min(units[1:] if source.parent.name == 'cpu' else units, key=size).append(source)
    for number, unit in enumerate(units):
        lines = ['#include <torch/extension.h>']
        for source in unit:
            header = source.rename(source.with_suffix('.hpp')).relative_to(folder)
            lines += [f'#include "{header}"', '#undef min', '#undef max']  # macros of one source, names in another
        (folder / f'unit{number}.cpp').write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    join(Path(sys.argv[1]) / 'mmcv/ops/csrc/pytorch')
