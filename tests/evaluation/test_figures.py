"""The heat map of the token-wise posterior."""

from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="figures need the demo extra")

from rag_jax.evaluation.figures import token_posterior


def test_the_heat_map_is_a_picture_of_its_own_size(trained, tmp_path: Path) -> None:
    rag, _, _ = trained
    (answer,) = rag.answer(["what colour is Norburg"], num_docs=3)
    token_posterior("what colour is Norburg", answer, tmp_path / "posterior.png")
    assert (tmp_path / "posterior.png").read_bytes().startswith(b"\x89PNG")
