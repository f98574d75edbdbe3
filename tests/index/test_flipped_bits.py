"""A flipped bit in a store: noticed by the check, and never more than an error of one line where the store is used."""

from pathlib import Path

import pytest

from bit_flips import outcomes
from rag_jax.index import ownership
from rag_jax.index.manifest import Manifest
from stores import build_all_parts, is_checked, is_used


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("flipped") / "store"
    return folder, build_all_parts(folder)


def test_the_check_notices_every_flip(built: tuple[Path, Manifest]) -> None:
    """But in the marker, whose bytes mean nothing."""
    folder, expected = built
    assert is_checked(folder, expected)
    seen = outcomes(folder, 200, lambda: is_checked(folder, expected))
    assert files_of(seen.harmless) <= {ownership.MARKER}
    held = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files_of(seen.noticed) == held - {ownership.MARKER}, "each of them is checked"


def files_of(places: list[str]) -> set[str]:
    return {place.partition(",")[0] for place in places}


def test_a_flip_ends_in_one_line_or_not_at_all(built: tuple[Path, Manifest]) -> None:
    folder, _ = built
    assert is_used(folder)
    seen = outcomes(folder, 40, lambda: is_used(folder), seed=1)
    assert len(seen.noticed) > len(seen.harmless), seen
