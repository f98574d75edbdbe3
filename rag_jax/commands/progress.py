"""How far a long command is: a bar with the rate and the time left; where there is no terminal, a line now and then."""

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich import progress

from rag_jax.terminal import Terminal

T = TypeVar("T")
EVERY = 10.0  # seconds between lines


class Progress:
    """Counts things up to `total`, if that is known; some of them may have been done `before`."""

    def __init__(self, what: str, total: int | None = None, before: int = 0, of: str = "passages") -> None:
        self.what, self.total, self.count, self.before, self.of = what, total, before, before, of
        self.console = Terminal(stderr=True)
        self._began = self._told = time.perf_counter()
        self._told_before = False
        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TextColumn("{task.completed:,.0f}" + (f" of {total:,}" if total else "")),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
        )
        self._bar = progress.Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self._task = self._bar.add_task(what, total=total, completed=before, rate="")

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        if kind is None and self.count > self.before:
            self.console.print(f"{self.what}: {self._line()}", highlight=False, soft_wrap=True)

    def advance(self, count: int) -> None:
        """So many more are done."""
        self.count += count
        self._bar.update(self._task, advance=count, rate=f"{self._rate:,.0f}/s")
        if not self.console.is_terminal and time.perf_counter() - self._told > EVERY:
            self._told = time.perf_counter()
            # no forecast from the first line: what was compiled before it would be counted for every batch
            left = f", {(self.total - self.count) / self._rate:,.0f} s left" if self.total and self._told_before else ""
            self._told_before = True
            self.console.print(f"{self.what}: {self._line()}{left}", highlight=False, soft_wrap=True)

    def counted(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each counted as it passes."""
        for item in items:
            yield item
            self.advance(1)

    @property
    def _rate(self) -> float:
        return (self.count - self.before) / max(time.perf_counter() - self._began, 1e-9)

    def _line(self) -> str:
        of = f" of {self.total:,}" if self.total else ""
        return f"{self.count:,}{of}, {self._rate:,.{0 if self._rate > 10 else 1}f} {self.of}/s"
