"""Long texts in pieces."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rag_jax.moderation import pieces


def test_a_text_that_fits_is_one_piece():
    assert pieces.split("all of it", lambda text: True) == ["all of it"]


def test_it_is_cut_at_white_space():
    assert pieces.split("one two three four", lambda text: len(text) <= 9) == ["one two", "three", "four"]


@given(st.text(st.sampled_from("ab \n"), max_size=60), st.integers(1, 9))
def test_every_piece_fits_and_nothing_but_white_space_is_lost(text, limit):
    found = pieces.split(text.strip(), lambda piece: len(piece) <= limit)
    assert all(len(piece) <= limit for piece in found)
    assert "".join("".join(found).split()) == "".join(text.split())


@pytest.mark.parametrize("text", ["x" * 100, "x " + "y" * 99])
def test_a_word_that_is_too_long_is_cut(text):
    assert max(map(len, pieces.split(text, lambda piece: len(piece) <= 7))) <= 7
