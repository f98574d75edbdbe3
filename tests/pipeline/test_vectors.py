"""The vectors of a tower as a config wants them."""

from dataclasses import dataclass, replace

import pytest

from rag_jax.errors import InputError
from rag_jax.models.bert import BertConfig
from rag_jax.pipeline.vectors import with_vectors

TOWER = BertConfig(20, width=16, layers=1, heads=2, ffn_width=16, max_positions=8)
SHORT = replace(TOWER, truncated_width=4)


def test_what_is_not_given_is_the_checkpoint_s():
    assert with_vectors(TOWER, "here") is TOWER
    assert with_vectors(SHORT, "here") is SHORT
    assert with_vectors(TOWER, "here", norm=2.0) == replace(TOWER, vector_norm=2.0)


@pytest.mark.parametrize("tower", [TOWER, SHORT, replace(TOWER, projection=24)])
@pytest.mark.parametrize("width", [1, 4, 7, 16])
def test_a_width_is_that_of_the_vectors(tower, width):
    found = with_vectors(tower, "here", width=width)
    assert found.vector_width == width
    assert replace(found, truncated_width=tower.truncated_width) == tower


def test_the_whole_width_is_not_truncated():
    assert with_vectors(SHORT, "here", width=16) == TOWER


@pytest.mark.parametrize(("tower", "width", "most"), [(TOWER, 17, 16), (SHORT, 0, 16), (TOWER, -1, 16)])
def test_a_width_beyond_the_vectors_is_refused(tower, width, most):
    told = f"^here: retriever.vector_width is {width}, the tower's vectors have {most} components; give 1 to {most}"
    with pytest.raises(InputError, match=told):
        with_vectors(tower, "here", width=width)


def test_a_network_that_cannot_truncate_is_refused():
    @dataclass(frozen=True)
    class Own:
        vocab_size: int = 9
        max_positions: int = 9
        vector_width: int = 8
        vector_norm: float | None = None

    assert with_vectors(Own(), "here", width=8) == Own()
    with pytest.raises(
        InputError, match=r"^here: its network does not support retriever\.vector_width 4; leave it None"
    ):
        with_vectors(Own(), "here", width=4)
