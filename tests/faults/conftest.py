"""The table of `make faults`: how many inputs of each family were tried, and how many met the promise."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

TABLE = pytest.StashKey[list[tuple[str, int, int]]]()  # family, tried, met the promise


@pytest.fixture(scope="session")
def ground() -> Iterator[Path]:
    """A folder that users without rights may enter, unlike those of pytest."""
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def table(request: pytest.FixtureRequest) -> list[tuple[str, int, int]]:
    return request.config.stash.setdefault(TABLE, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(TABLE, [])
    if rows:
        rows = [*rows, ("all", *(sum(row[at] for row in rows) for at in (1, 2)))]
        terminalreporter.write_line(f"\n{'family':<18}{'tried':>8}{'met':>8}")
        for name, tried, met in rows:
            terminalreporter.write_line(f"{name:<18}{tried:>8,}{met:>8,}")
