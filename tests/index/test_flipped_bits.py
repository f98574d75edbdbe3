"""A flipped bit in a store: noticed by the check, and never more than an error of one line where the store is used."""

from pathlib import Path

import pytest

from bit_flips import outcomes
from rag_jax.index.manifest import Manifest
from stores import build_all_parts, is_checked, is_used


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("flipped") / "store"
    return folder, build_all_parts(folder)


def test_the_check_notices_every_flip(built: tuple[Path, Manifest]) -> None:
    """But in the layout of the manifest, and in the marker, whose bytes mean nothing."""
    folder, expected = built
    assert is_checked(folder, expected)
    seen = outcomes(folder, 60, lambda: is_checked(folder, expected))
    assert seen["noticed"] > 9 * seen["harmless"], seen


def test_a_flip_ends_in_one_line_or_not_at_all(built: tuple[Path, Manifest]) -> None:
    folder, _ = built
    assert is_used(folder)
    seen = outcomes(folder, 40, lambda: is_used(folder), seed=1)
    assert seen["noticed"] > seen["harmless"], seen
