"""How far a long work is, said on the terminal or in a log. Needs nothing but Python."""
import sys
import time

MB = 1e6  # bytes


class Progress:
    """How far something is, on stderr: one line redrawn on a terminal, otherwise a new line every 10 percent.

    Args:
        have: what was there before.
        total: what there will be, or None when nobody knows.
        counted: what the numbers count, such as 'masks'; without it they are bytes.
    """

    line_is_open = False  # of a terminal, by whichever progress

    def __init__(self, have: int, total: int | None, counted: str = '') -> None:
        self.first, self.total, self.counted, self.start = have, total, counted, time.monotonic()
        self.redraw, self.tenths = sys.stderr.isatty(), 0

    def update(self, have: int) -> None:
        tenths = 10 * have // (self.total or 500_000_000)
        if not self.redraw and tenths == self.tenths:
            return
        self.tenths = tenths
        speed = max(have - self.first, 1) / max(time.monotonic() - self.start, 1e-3)
        line = f'{self._text(have)}, {self._text(speed)}/s'
        if self.total:
            minutes, seconds = divmod(round((self.total - have) / speed), 60)
            total = f'{self._text(self.total)} {self.counted}'.strip()
            line = f'{have / self.total:4.0%} of {total}: {line}, {minutes}:{seconds:02d} left'
        sys.stderr.write(f'\r{line}\033[K' if self.redraw else f'{line}\n')
        sys.stderr.flush()
        Progress.line_is_open = self.redraw

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *_) -> None:
        self.end_line()

    @classmethod
    def end_line(cls) -> None:
        """What is said next stands on a line of its own."""
        if cls.line_is_open:
            sys.stderr.write('\n')
        cls.line_is_open = False

    def _text(self, amount: float) -> str:
        if not self.counted:
            return f'{amount / MB:.1f} MB'
        return f'{amount:,}' if isinstance(amount, int) else f'{amount:,.{1 if amount < 10 else 0}f}'
